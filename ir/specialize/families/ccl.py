"""Compute context lengths say how much of the context a run reads: a list for prefills and one for decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .base import FamilyError

UNIT = 1024  # contexts are rounded up to a multiple of this, and no length is smaller
FIRST = 4096  # contexts up to this have one length
STEP = 32  # where a decode has the same length, a prefill moves to the multiple below: the compiler wants them distinct
MOST = 5  # of each list: the compiler limits the number of specializations
STARTS = ((32768, 4096, 4000), (65536, 8192, 8000))  # up to this context: first decode length, first prefill length
LARGE = (16384, 16000)


@dataclass(frozen=True)
class ContextLengths:
    """The lengths of prefills, those of decodes, and the context they end at."""

    prefill: tuple[int, ...]
    decode: tuple[int, ...]
    ctx: int


def automatic(ctx: int, prefill: int) -> ContextLengths:
    """Lengths that double from a start fit for the context; one list for both where the prompt has one token."""
    _check_prompt(prefill)
    whole = max(-(-ctx // UNIT), 1) * UNIT
    if whole <= FIRST:
        return ContextLengths((whole,), (whole,), whole)
    if prefill == 1:
        shared = _doubling(FIRST, whole, 2 * MOST)
        return ContextLengths(shared, shared, whole)
    decode, first = next(((d, p) for limit, d, p in STARTS if whole <= limit), LARGE)
    return ContextLengths(_doubling(first, whole, MOST), _doubling(decode, whole, MOST), whole)


def settled(
    prefill: Sequence[int], decode: Sequence[int], ctx: int, prompt: int, *, chunked: bool = False
) -> ContextLengths:
    """Lengths as the compiler takes them: sorted, in the context, the last one the context, prefill unlike decode.

    Empty lists: both, lengths are chosen; one, it is the whole context, but for the decodes of a ``chunked`` prefill,
    which have none. FamilyError where no distinct length is left, or one list would serve both phases without decodes.
    """
    _check_prompt(prompt)
    if not prefill and not decode:
        chosen = automatic(ctx, prompt)
        prefill, decode, ctx = chosen.prefill, chosen.decode, chosen.ctx
    first = _bounded(prefill or (ctx,), ctx)
    if chunked and not decode:
        if prompt == 1:
            raise FamilyError("must be given where both phases take one token", where="comp_ctx_lengths_decode")
        return ContextLengths(first, (), ctx)
    second = _bounded(decode or (ctx,), ctx)
    if prompt == 1:
        both = tuple(sorted({*first, *second}))
        return ContextLengths(both, both, ctx)
    return ContextLengths(_distinct(first, second), second, ctx)


def _check_prompt(prompt: int) -> None:
    if prompt < 1:
        raise FamilyError("is no length of a prompt", where="prefill_seq_len", found=prompt, wanted="at least 1")


def _doubling(start: int, end: int, most: int) -> tuple[int, ...]:
    found = [start]
    while found[-1] * 2 <= end and len(found) < most:
        found.append(found[-1] * 2)
    if found[-1] == end:
        return tuple(found)
    return (*found[:-1], end) if len(found) == most or _beside(found[-1], end) else (*found, end)


def _beside(last: int, end: int) -> bool:
    """Whether a length in round thousands is the same step as the context, which then takes its place."""
    in_thousands = last % 1000 == 0
    return in_thousands and (end & (end - 1) == 0 or end // 1000 * 1000 == last)


def _bounded(lengths: Sequence[int], ctx: int) -> tuple[int, ...]:
    given = [max(length, UNIT) for length in lengths]
    if given[-1] < ctx:
        given.append(ctx)
    return tuple(sorted({min(length, ctx) for length in given}))


def _distinct(prefill: Sequence[int], decode: Sequence[int]) -> tuple[int, ...]:
    found: list[int] = []
    for wanted in prefill:
        length = wanted
        while length in decode or length in found:
            length = (length - 1) // STEP * STEP
        if length <= 0:
            raise FamilyError(
                "no prefill length is left that no decode has",
                where="comp_ctx_lengths",
                found=f"{wanted} in both",
                hint="Give other lengths.",
            )
        found.append(length)
    return tuple(sorted(found))
