"""Writes the table and the picture of the rooms out of the linter's contracts and the packages' own captions."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRAME, BOX = 'fill="#f4f6f8" stroke="#8a94a0"', 'fill="#ffffff" stroke="#5a7fa8"'


def layers() -> dict[str, list[list[str]]]:
    """Floor -> its rows of rooms, top first, as ``pyproject.toml`` has the linter hold them."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    first, *inside = config["tool"]["importlinter"]["contracts"]
    rows = {contract["containers"][0].rpartition(".")[2]: contract["layers"] for contract in inside}
    floors = [floor.rpartition(".")[2] for floor in first["layers"]]
    return {floor: [row.split(" | ") for row in rows.get(floor, [])] for floor in floors}


def rooms() -> str:
    """Every room with its caption, the first sentence that its package says of itself."""
    rows = ["| room | what it is for |", "|---|---|"]
    for floor, lines in layers().items():
        for room in (floor, *(f"{floor}/{name}" for line in lines for name in line)):
            doc = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))) or ""
            rows.append(f"| `{room}/` | {' '.join(doc.split()).replace('``', '`')} |")
    return "\n".join([*rows, ""])


def picture() -> str:
    """The rooms as an SVG: a floor a frame, a layer a row; whatever stands lower may be imported."""
    shapes, y = list[str](), 10
    for floor, lines in layers().items():
        height = 34 + 34 * len(lines)
        shapes.append(
            f'<rect x="10" y="{y}" width="620" height="{height - 6}" rx="6" fill="#f4f6f8" stroke="#8a94a0"/>'
        )
        shapes.append(f'<text x="22" y="{y + 19}" font-weight="bold">{floor}/</text>')
        for number, line in enumerate(lines):
            width = 500 / len(line)
            for place, room in enumerate(line):
                x, top = 120 + place * width, y + 14 + 34 * number
                shapes.append(f'<rect x="{x:.0f}" y="{top}" width="{width - 8:.0f}" height="28" rx="4" {BOX}/>')
                shapes.append(f'<text x="{x + width / 2 - 4:.0f}" y="{top + 18}" text-anchor="middle">{room}</text>')
        y += height
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {y + 4}" font-family="sans-serif" font-size="13">'
    return "\n".join([head, *shapes, "</svg>", ""])
