"""Assigns the sizes of a family to a graph's own symbols: each by what it means, else by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from ..core.errors import PassRefused, UnknownNameError
from ..core.specialization import SpecRole
from ..interface.axes import Axis
from ..interface.dimensions import DimensionAnalysis
from ..symbolic.symbols import symbols_of
from .families.base import Entry, Symbols

MEANINGS: dict[str, tuple[Axis, ...]] = {  # name in the families -> what it may be in a graph, the first that it has
    "batch_size": (Axis.BATCH,),
    "seq_len": (Axis.SEQ, Axis.FRAMES, Axis.ENCODER),
    "full_batch_size": (Axis.CACHE_BATCH,),
    "num_logits_to_keep": (Axis.LOGITS,),
    "comp_ctx_lengths": (Axis.ATTENDED,),
    "ctx_len": (Axis.CTX,),
    "decoder_ctx_len": (Axis.CTX,),
    "encoder_ctx_len": (Axis.ENCODER,),
    "feature_len": (Axis.FRAMES,),
    "sliding_window": (Axis.WINDOW,),
    "grid_height": (Axis.PATCHES,),
    "grid_width": (Axis.PATCH_WIDTH,),
    "grid_h": (Axis.GRID_HEIGHT,),
    "grid_w": (Axis.GRID_WIDTH,),
    "time": (Axis.TIME,),
    "img_size": (Axis.HEIGHT, Axis.WIDTH),
}
DEMANDED = ("full_batch_size", "comp_ctx_lengths", "batch_size", "seq_len")  # asked for: the graph must have them
TOLERATED = ("full_batch_exec_size",)  # for the compiler; no graph has it


def check_symbols(given: Mapping[str, int], models: Iterable[ir.Model], *, where: str) -> None:
    """Raises UnknownNameError for a size under a name that no dimension of any graph's inputs and outputs has."""
    known = {name for model in models for name in symbols_of(model)}
    for name in given:
        if name not in known and name not in TOLERATED:
            raise UnknownNameError("symbol", name, sorted(known), where=where)


@dataclass(frozen=True)
class Assignment:
    """An entry under the graph's symbols, and the graph's symbols that nothing in it decides."""

    entry: Entry
    missing: tuple[str, ...]


def assign(canonical: DimensionAnalysis, entry: Entry, given: Mapping[str, int], *, where: str) -> Assignment:
    """Binds the graph's symbols by the entry's sizes; ``given`` are sizes under the graph's own names.

    PassRefused where the graph has no axis for a size that was asked for, or fixes another size.
    """
    binding: Symbols = dict(given)
    for meaning, group, size in _sizes(canonical, entry.symbols, entry.role):
        for name, value in canonical.bind({meaning: size}, group).items():
            binding.setdefault(name, value)
    binding = _named(canonical, entry.symbols, binding)
    complete = canonical.complete(binding)
    binding |= {name: complete[name] for name in canonical.needed if name in complete}
    _check(canonical, entry, binding, where)
    binding |= {name: entry.symbols[name] for name in TOLERATED if name in entry.symbols}
    missing = tuple(name for name in canonical.needed if name not in binding)
    return Assignment(replace(entry, symbols=binding), missing)


def _sizes(canonical: DimensionAnalysis, symbols: Symbols, role: SpecRole) -> Iterator[tuple[Axis, str, int]]:
    """Each size with the meaning and the group that the graph has for it."""
    for name, size in symbols.items():
        found = next((axis for axis in MEANINGS.get(name, ()) if canonical.groups(axis)), None)
        if name == "img_size":
            yield from ((axis, group, size) for axis in MEANINGS[name] for group in canonical.groups(axis))
        elif found is not None:
            yield from ((found, group, size) for group in canonical.groups(found))
    ctx, seq = symbols.get("ctx_len", symbols.get("decoder_ctx_len")), symbols.get("seq_len")
    if ctx is not None and seq is not None:
        # a growing cache is full but for the new rows in a decode, and empty in a prefill
        past = ctx - seq if role is SpecRole.DECODE else 0
        yield from ((Axis.PAST, group, _ring(group, past)) for group in canonical.groups(Axis.PAST))
    yield from ((Axis.WINDOW, group, _ring(group, 0)) for group in canonical.groups(Axis.WINDOW) if _ring(group, 0))


def _ring(group: str, past: int) -> int:
    """The rows of a cache that keeps a window of them, full or not; ``past`` for any other."""
    window = group.removeprefix("window ")
    return int(window) if window.isdigit() else past


def _named(canonical: DimensionAnalysis, symbols: Symbols, binding: Symbols) -> Symbols:
    """Sizes whose names are symbols of the graph that no role tells."""
    own = {name: size for name, size in symbols.items() if name in canonical.needed}
    return {**own, **binding}


def _check(canonical: DimensionAnalysis, entry: Entry, binding: Symbols, where: str) -> None:
    for name in DEMANDED:
        axes = MEANINGS[name]
        if name in entry.symbols and not any(canonical.groups(axis) for axis in axes) and name not in binding:
            raise PassRefused(
                f"the graph has no axis for {name}", where=where, found=f"{name}={entry.symbols[name]}",
                wanted=f"an input with {axes[0].value}", hint="onnx-passes inspect shows what its inputs are.",
            )  # fmt: skip
    for meaning, group, size in _sizes(canonical, entry.symbols, entry.role):
        found = canonical.size(meaning, binding, group)
        if found is not None and found != size:
            raise PassRefused(
                f"the graph has another {meaning.value}", where=where, found=found, wanted=size,
                hint="Give the size that the graph is made for, or export it with a symbol there.",
            )  # fmt: skip
