"""Prompt lookup finds the text's last n tokens earlier in it and proposes what followed then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ....ir.core.errors import UsageError


class NGram:
    """Looks up the last n tokens for every n in ``[shortest, longest]``, in one dictionary for each n.

    Of all earlier places the first gives the longest continuation, so the dictionaries keep the first place only: a
    token costs a dictionary entry for each n, a proposal a look-up for each n, whatever the length of the text.
    """

    def __init__(self, shortest: int = 3, longest: int = 5) -> None:
        if not 1 <= shortest <= longest:
            raise UsageError("n-gram sizes must be 1 <= shortest <= longest", found=f"{shortest}, {longest}")
        self.sizes = range(longest, shortest - 1, -1)
        self.text: list[int] = []
        # gram -> where its first continuation begins; a gram enters when the token after it is known
        self._after: dict[int, dict[tuple[int, ...], int]] = {size: {} for size in self.sizes}

    def extend(self, tokens: Iterable[int]) -> None:
        """Takes in what the text went on with."""
        text, tables = self.text, list(self._after.items())
        for token in tokens:
            end = len(text)
            for size, table in tables:
                if size <= end:
                    table.setdefault(tuple(text[end - size :]), end)
            text.append(token)

    def propose(self, k: int) -> list[int]:
        """The longest continuation over all n, of those alike the one that the largest n found."""
        best, found, length = 0, 0, len(self.text)
        for _, start in self.places():
            if min(k, length - start) > best:
                best, found = min(k, length - start), start
                if best == k:
                    break
        return self.text[found : found + best]

    def places(self) -> Iterator[tuple[int, int]]:
        """For each n, the largest first, where the last n tokens were first continued; n never seen before left out."""
        text, length = self.text, len(self.text)
        for size, table in self._after.items():
            start = table.get(tuple(text[length - size :])) if size <= length else None
            if start is not None:
                yield size, start

    def finish(self) -> None:
        """The dictionaries go with the text."""


class SizesInvalid(UsageError, ValueError):
    """Sizes of a prompt lookup that are not positive, or an n-gram longer than the text."""


def lookup_candidates(
    ids: Sequence[int], *, num_pred_tokens: int, max_ngram_size: int, fill: int = -1
) -> tuple[list[int], bool]:
    """Prompt lookup as QEfficient does it: n down to 1; the proposal filled up, and whether there is none.

    It leaves out a place whose continuation begins inside the last n tokens. Raises SizesInvalid.
    """
    if num_pred_tokens <= 0 or max_ngram_size <= 0 or max_ngram_size > len(ids):
        found = f"num_pred_tokens {num_pred_tokens}, max_ngram_size {max_ngram_size}"
        raise SizesInvalid("no prompt lookup", found=found, wanted=f"sizes of 1 or more, n-grams of at most {len(ids)}")
    proposer = NGram(1, max_ngram_size)
    proposer.extend(ids)
    best: list[int] = []
    for size, start in proposer.places():
        found = list(ids[start : start + num_pred_tokens])
        if start < len(ids) - size and len(found) > len(best):
            best = found
    return best + [fill] * (num_pred_tokens - len(best)), not best
