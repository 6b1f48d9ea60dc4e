"""Maps each column of a decoder's logits to its token, where the head has only some words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...ir.program.contracts.chain import Chain
from ...ir.program.contracts.heads import SelectedWords, words_left
from ...ir.program.program import Program
from .host import NotDecodable


def words_of(program: Program, graphs: Iterable[str]) -> np.ndarray | None:
    """Column -> token id, None where every column is its own.

    Raises NotDecodable where graphs differ, or give a score of words.
    """
    found: set[tuple[int, ...] | None] = set()
    for graph in graphs:
        links = Chain.of(program.contracts, graph).links
        score = next(
            (x for x in links if isinstance(x, SelectedWords) and x.scores not in ("columns", "softmax")), None
        )
        if score is not None:
            raise NotDecodable(
                "the graph gives a score, not a number for each word", where=graph, found=score.scores,
                hint="Use predict, or select-vocab{as=columns}.",
            )  # fmt: skip
        found.add(words_left(links))
    if len(found) > 1:
        raise NotDecodable("the graphs choose of different words", hint="Put select-vocab before the clones.")
    words = next(iter(found), None)
    return np.array(words, np.int64) if words is not None else None
