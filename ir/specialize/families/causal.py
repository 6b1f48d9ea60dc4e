"""Causal language models become prefill and decode, plain or continuously batched, with contexts and speculation."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ...core.specialization import SpecRole
from .base import Entry, FamilyError, Symbols, positive
from .ccl import ContextLengths, settled


class Phases(enum.Enum):
    """Which of the two phases get specializations."""

    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"


class EqualLengths(enum.Enum):
    """What becomes of a decode that is as long as the prefill (``k + 1 == prefill``)."""

    KEEP = "keep"  # it has its own logits rows: dropping it would lose its K
    SHARE = "share"  # the writer of the named format runs it on the prefill's graph


@dataclass(frozen=True)
class CausalSizes:
    """The sizes of a causal model's runs.

    Attributes:
        batch: Rows of a run without continuous batching.
        prefill: Tokens of a prefill run.
        ctx: Rows of the cache.
        full_batch: Sequences in flight with continuous batching; None without it.
        cache_batch: Rows of the cache's batch where it is more (prefix caching).
        continuous: Whether a prefill alone is batched continuously, its cache of ``cache_batch`` rows handed over.
        k: Speculative tokens, one decode each; None where the graph keeps no chosen number of logits.
        lengths: Compute context lengths, None for none.
        extra: Symbols that every specialization has besides, such as a sliding window.
    """

    batch: int = 1
    prefill: int = 32
    ctx: int = 128
    full_batch: int | None = None
    cache_batch: int | None = None
    continuous: bool = False
    k: tuple[int, ...] | None = None
    lengths: ContextLengths | None = None
    phases: Phases = Phases.BOTH
    equal_lengths: EqualLengths = EqualLengths.KEEP
    extra: tuple[tuple[str, int], ...] = ()


def context_lengths(
    prefill: tuple[int, ...], decode: tuple[int, ...], ctx: int, prompt: int, *, chunked: bool = False
) -> ContextLengths:
    """The lists as given where the compiler takes them, else moved to what it takes."""
    return settled(prefill, decode, ctx, prompt, chunked=chunked)


def causal(sizes: CausalSizes) -> list[Entry]:
    """The specializations of a causal model; FamilyError where the sizes contradict each other."""
    _check(sizes)
    entries: list[Entry] = []
    if sizes.phases is not Phases.DECODE or sizes.prefill == 1:
        entries += _prefills(sizes)
    if sizes.phases is not Phases.PREFILL and sizes.prefill > 1:
        entries += _decodes(sizes)
    return entries


def _check(sizes: CausalSizes) -> None:
    for name in ("batch", "prefill", "ctx"):
        positive(name, getattr(sizes, name))
    for name in ("full_batch", "cache_batch"):
        if getattr(sizes, name) is not None:
            positive(name, getattr(sizes, name))
    if sizes.prefill > sizes.ctx:
        raise FamilyError("is longer than the context", where="prefill", found=sizes.prefill, wanted=f"≤ {sizes.ctx}")
    if sizes.full_batch and sizes.cache_batch and sizes.cache_batch < sizes.full_batch:
        raise FamilyError(
            "has fewer rows than sequences in flight",
            where="cache batch",
            found=sizes.cache_batch,
            wanted=f"≥ {sizes.full_batch}",
        )
    if sizes.continuous and sizes.full_batch is None:
        _check_alone(sizes)
    if sizes.k is not None:
        _check_k(sizes, sizes.k)


def _check_alone(sizes: CausalSizes) -> None:
    """Sequences in flight are a decode's: a prefill of several tokens, without one, needs the cache's rows alone."""
    if sizes.phases is not Phases.PREFILL or sizes.prefill == 1 or sizes.cache_batch is None:
        raise FamilyError(
            "must be given with continuous batching",
            where="full_batch_size",
            hint="Only a prefill of several tokens, without decodes, takes the cache's rows alone.",
        )


def _check_k(sizes: CausalSizes, ks: tuple[int, ...]) -> None:
    if not ks:
        raise FamilyError("no number of speculative tokens is given", where="k", wanted="such as 0,4")
    for k in ks:
        positive("k", k, least=0)
        if k + 1 > sizes.prefill:
            raise FamilyError(
                "a prefill must have as many tokens as a decode with its proposals",
                where="prefill",
                found=sizes.prefill,
                wanted=f"≥ {k + 1} for k={k}",
            )
    if sizes.lengths is not None:
        raise FamilyError("speculation cannot be combined with context lengths", where="k and ccl", found=f"k={ks}")


def _prefills(sizes: CausalSizes) -> list[Entry]:
    role = SpecRole.DECODE if sizes.phases is Phases.DECODE else SpecRole.PREFILL
    symbols = {**_shared(sizes), "batch_size": _prefill_batch(sizes), "seq_len": sizes.prefill}
    if sizes.full_batch is not None:
        symbols["full_batch_exec_size"] = sizes.full_batch if sizes.prefill == 1 else 1
    if sizes.k is not None:
        symbols["num_logits_to_keep"] = 1
    rows = 1 if sizes.k is not None else None
    return [
        Entry(role, {**symbols, **length}, role.value.capitalize(), logits_rows=rows)
        for length in _each(sizes.lengths.prefill if sizes.lengths else None)
    ]


def _prefill_batch(sizes: CausalSizes) -> int:
    if sizes.full_batch is None:
        return 1 if sizes.continuous else sizes.cache_batch or sizes.batch
    return sizes.full_batch if sizes.prefill == 1 else 1


def _decodes(sizes: CausalSizes) -> list[Entry]:
    batch = sizes.full_batch if sizes.full_batch is not None else sizes.cache_batch or sizes.batch
    base = {**_shared(sizes), "batch_size": batch}
    if sizes.k is not None:
        return [
            Entry(SpecRole.DECODE, {**base, "seq_len": k + 1, "num_logits_to_keep": k + 1}, "Decode", k, k + 1)
            for k in sorted(set(sizes.k))
            if not _shared_with_prefill(sizes, k)
        ]
    return [
        Entry(SpecRole.DECODE, {**base, "seq_len": 1, **length}, "Decode")
        for length in _each(sizes.lengths.decode or None if sizes.lengths else None)
    ]


def _shared_with_prefill(sizes: CausalSizes, k: int) -> bool:
    plain = sizes.full_batch is None and sizes.phases is Phases.BOTH
    return plain and sizes.equal_lengths is EqualLengths.SHARE and k + 1 == sizes.prefill


def _shared(sizes: CausalSizes) -> Symbols:
    symbols = {"ctx_len": sizes.ctx, **dict(sizes.extra)}
    rows = sizes.cache_batch or sizes.full_batch
    if rows is not None and (sizes.continuous or sizes.full_batch is not None):
        symbols["full_batch_size"] = rows
    return symbols


def _each(lengths: tuple[int, ...] | None) -> list[Symbols]:
    return [{}] if lengths is None else [{"comp_ctx_lengths": length} for length in lengths]


def phases(batch: int, prefill: int, ctx: int, full_batch: int | None = None) -> list[Entry]:
    """A prefill and a decode named by their length alone, as the oldest writer did; one where they are the same."""
    for name, given in (("batch", batch), ("prefill", prefill), ("ctx", ctx), ("full_batch", full_batch or 1)):
        positive(name, given)
    if prefill > ctx:
        raise FamilyError("is longer than the context", where="prefill", found=prefill, wanted=f"≤ {ctx}")
    shared = {"ctx_len": ctx} if full_batch is None else {"ctx_len": ctx, "full_batch_size": full_batch}
    first = Entry(SpecRole.PREFILL, {**shared, "batch_size": batch, "seq_len": prefill})
    second = Entry(SpecRole.DECODE, {**shared, "batch_size": full_batch or batch, "seq_len": 1})
    return [first] if first.symbols == second.symbols else [first, second]
