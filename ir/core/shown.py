"""A result shows itself in a notebook as a small table; the command prints the same facts its own way."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

Table = tuple[str, Sequence[str], Iterable[Sequence[object]]]
"""Title, column heads, rows."""


class Shown:
    """A mixin: a subclass gives a title, columns and rows, and notebooks draw them."""

    def _rows(self) -> Table:
        """What the table holds."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """What a notebook shows: no script, no style sheet, every text escaped."""
        title, columns, rows = self._rows()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(_text(cell))}</td>' for cell in row)}</tr>" for row in rows)
        return (
            f"<table><caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _text(cell: object) -> str:
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
