"""Captions are sentences: the first line of every file of ours has a verb of its own and ends as a sentence does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("ir", "passes", "runtime", "cli")
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py")) if path.read_text("utf-8").strip()]

VERBS = frozenset(
    """
    adds allow answer answers applies are ask asks be become becomes begin belong belongs binds builds calibrates
    can cannot carries carry choose chooses come comes compares compute computes contains converts copies counts
    create cuts decides describe differs does draws emits ends enter evaluates feeds fills find finds fit fits
    fixes folds follow follows generates get gets give gives go goes grow guess guesses had has have hold holds
    imports infer infers is joins keep keeps know knows lacks lands lays learns leave leaves let lets lie lies
    lists look make makes may measures meet merges move moves must name names need needs opens plans play plays
    prints propagates proposes prove proves put puts raises ran reach reaches read reads recognises records refers
    refuse refuses reject relate relates removes replaces replays reports rests return returns run runs say says
    see sees selects serves set share shares shows speak spells spread spreads stand stands state states stay
    stays steps stop strip sum take takes tell tells ties transfers translates understands use uses visits walks
    was watch watches were win wins works write writes
    """.split()
)  # fmt: skip


def has_a_verb(caption: str) -> bool:
    """One more than its relative clauses have."""
    words = re.findall(r"[a-z]+", caption.lower())
    clauses = sum(word in ("that", "who", "whose") for word in words)
    return sum(word in VERBS or word.endswith("ed") for word in words) > clauses


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_caption_is_a_sentence(path: Path) -> None:
    said = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0]
    assert said.endswith((".", "…")), "a sentence ends"
    assert has_a_verb(said), f"{said!r} names a thing and says nothing of it"


def test_a_noun_with_a_relative_clause_is_no_sentence() -> None:
    assert not has_a_verb("Operators that carry a cache.")
    assert has_a_verb("Operators that carry a cache have their rows here.")
