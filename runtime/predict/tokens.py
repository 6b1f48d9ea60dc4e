"""Texts become token ids; where one is too long, special tokens and what a template puts around it are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ir.core.errors import UsageError
from ...ir.serialization.tokenizer_file import open_tokenizer
from .texts import Item

TRIES = 16  # cuts of one text: its tokens may change at the cut


@dataclass(frozen=True)
class Tokens:
    """One text's ids and segment ids; ``cut``: how many tokens did not fit."""

    ids: list[int]
    types: list[int]
    cut: int = 0


class Encoder:
    """The tokenizer of one ``tokenizer.json``, its own padding and truncation off."""

    def __init__(self, path: Path) -> None:
        self._tokenizer: Any = open_tokenizer(path, "arrays with --feeds")

    def encode(self, items: Sequence[Item], longest: int | None) -> list[Tokens]:
        """The tokens of all items, at most ``longest`` each."""
        if any(item.templated for item in items):
            return [self._templated(item, longest) for item in items]
        given = [item.text if item.pair is None else (item.text, item.pair) for item in items]
        if longest is not None:
            self._tokenizer.enable_truncation(longest)
        encodings = self._tokenizer.encode_batch_fast(given) if hasattr(self._tokenizer, "encode_batch_fast") else None
        encodings = encodings if encodings is not None else self._tokenizer.encode_batch(given)
        self._tokenizer.no_truncation()
        return [Tokens(found.ids, found.type_ids, sum(map(_own, found.overflowing))) for found in encodings]

    def _templated(self, item: Item, longest: int | None) -> Tokens:
        """The text is cut at its end until the whole fits; what stands around it stays."""
        text, lost = item.text, 0
        for _ in range(TRIES):
            found = self._tokenizer.encode(f"{item.before}{text}{item.after}")
            excess = len(found.ids) - longest if longest is not None else 0
            if excess <= 0:
                return Tokens(found.ids, found.type_ids, lost)
            inner = self._tokenizer.encode(text, add_special_tokens=False)
            kept = len(inner.ids) - excess
            if kept <= 0:
                break
            text, lost = text[: inner.offsets[kept - 1][1]], lost + excess
        raise UsageError(
            "the template alone is longer than the longest compiled length", found=item.before[:60], wanted=longest
        )


def _own(encoding: Any) -> int:
    """The tokens of the text itself: every piece that did not fit has special tokens of its own around it."""
    return len(encoding.ids) - sum(encoding.special_tokens_mask)
