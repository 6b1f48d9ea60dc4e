"""specialize adds the sizes that a program is compiled for, as a family of models needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, cast

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UnknownNameError, UsageError
from ..ir.core.specialization import Manifest, Specialization, SpecRole
from ..ir.interface.analysis import ALL, Known, analysis_of
from ..ir.interface.axes import Axis
from ..ir.interface.dimensions import DimensionAnalysis
from ..ir.program.contracts.sizes import Claims
from ..ir.program.program import Program
from ..ir.specialize.assign import assign, check_symbols
from ..ir.specialize.families import (
    ENCODERS,
    FAMILIES,
    CausalSizes,
    Entry,
    Phases,
    causal,
    context_lengths,
    encoder,
    multimodal,
    named,
    speech,
)
from ..ir.specialize.families.ccl import STEP, UNIT
from .base import Pass, Report

CAUSAL = ("causal-lm", "peft")
_EVERY = ("family", "batch", "symbols", "graph")
_DECODES = ("prefill", "ctx", "full_batch", "cache_batch", "ccl", "ccl_prefill", "phases")
_PICTURES = (*_DECODES, "height", "width", "lengths")
READS: Mapping[str, tuple[str, ...]] = {  # family -> the options that decide its sizes, beside those of every family
    **dict.fromkeys(CAUSAL, (*_DECODES, "k")),
    **dict.fromkeys(ENCODERS, ("lengths",)),
    "speech": ("ctx", "encoder_ctx"),
    "raw": ("tag",),
}


@dataclass(frozen=True)
class Specialize(Pass):
    """Adds to the program's specializations those that a family of models needs; no graph changes.

    Before → after::

        input_ids[batch_size, seq_len], past_key.0[batch_size, 2, ctx_len, 16]
          →   Prefill {batch_size: 1, seq_len: 128, ctx_len: 4096}, Decode {1, 1, 4096}      (prefill=128 ctx=4096)

    1. Sizes are bound under the graph's own names, found by what its inputs are; a cache that grows is empty in a
       prefill, and full but for the new rows in a decode.
    2. ``k`` gives one decode of k+1 tokens each; ``ccl`` one a context length; ``full_batch`` continuous batching.
    3. ``lengths`` gives an encoder, and a picture-and-text model in one run, one specialization each;
       ``height`` and ``width`` a picture model one a picture.
    4. Names stay unique beside those already there; a specialization already there is not added again.
    5. A graph that takes no state has only its prefill.

    Refused: a size that the graph has no axis for or fixes otherwise; a symbol of the graph that nothing decides; an
    option that the family does not read.

    Attributes:
        family: causal-lm, peft, embedding, sequence-classification, ctc, speech, raw, or a picture-and-text family.
        batch: Rows of a run.
        prefill: Tokens of a prefill.
        ctx: Rows of the cache.
        k: Speculative tokens of the decodes.
        full_batch: Sequences in flight with continuous batching.
        cache_batch: Rows of the cache's batch where they are more.
        ccl: Context lengths of decodes.
        ccl_prefill: Context lengths of prefills.
        phases: both, prefill or decode.
        lengths: Lengths of an encoder; of a picture-and-text model that carries nothing, its prefills and contexts.
        encoder_ctx: Rows of a speech encoder's output.
        height: Heights of pictures in pixels.
        width: Widths of pictures in pixels.
        symbols: Sizes under the graph's own names, over all that the family decides.
        tag: What a raw specialization is called.
        graph: The graph it is for; empty for all.
    """

    name: ClassVar[str] = "specialize"
    preserves: ClassVar[frozenset[Known]] = ALL

    family: str = "causal-lm"
    batch: int = 1
    prefill: int = 32
    ctx: int = 128
    k: tuple[int, ...] = ()
    full_batch: int | None = None
    cache_batch: int | None = None
    ccl: tuple[int, ...] = ()
    ccl_prefill: tuple[int, ...] = ()
    phases: Phases = Phases.BOTH
    lengths: tuple[int, ...] = ()
    encoder_ctx: int = 1500
    height: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    symbols: Mapping[str, int] = field(default_factory=dict[str, int])
    tag: str = ""
    graph: str = ""

    def run(self, program: Program) -> Report:
        """Adds the specializations in the order (role, K)."""
        if self.graph and self.graph not in program.graphs:
            raise UnknownNameError("graph", self.graph, program.graphs, where=self.name)
        self._check_options()
        check_symbols(self.symbols, program.graphs.values(), where=f"{self.name}, symbols")
        before = Manifest.of(program.specializations).specializations
        found = list(before)
        for graph, model in program.graphs.items():
            if self.graph in ("", graph):
                own = graph if len(program.graphs) > 1 else ""
                found += named(self._entries(graph, model), own, found)
        program.specializations = list(Manifest.of(found).specializations)
        added = len(found) - len(before)
        claims = (self._claims(),) if self.family in CAUSAL else ()
        notes = _notes(found[len(before) :])
        warnings = tuple(dict.fromkeys(moved_lengths(self, found[len(before) :])))
        counts = {"specializations": added}
        return Report(modified=bool(added), counts=counts, notes=notes, warnings=warnings, contracts=claims)

    def _check_options(self) -> None:
        """Raises UsageError for an option that was set and that the family does not read."""
        if self.family not in READS and self.family not in FAMILIES:
            raise UnknownNameError("family", self.family, [*_BUILDERS, *FAMILIES], where=self.name)
        read = (*_EVERY, *READS.get(self.family, _PICTURES))
        for option in fields(self):
            default = option.default_factory() if callable(option.default_factory) else option.default
            if option.name not in read and getattr(self, option.name) != default:
                raise UsageError(
                    f"family {self.family!r} does not read option {option.name!r}",
                    where=self.name,
                    found=f"{option.name}={_shown(getattr(self, option.name))}",
                    hint=f"It reads {', '.join(read[len(_EVERY) :])}.",
                )

    def _claims(self) -> Claims:
        """What was asked for: a prompt of one token is a decode; phases say where only half was."""
        return Claims(
            prefill=self.phases is not Phases.DECODE and self.prefill > 1,
            ks=self.k if self.phases is not Phases.PREFILL else (),
        )

    def _entries(self, graph: str, model: ir.Model) -> list[Entry]:
        canonical = analysis_of(model).dimensions()
        where = f"{self.name}, graph {graph!r}"
        made = [assign(canonical, entry, self.symbols, where=where) for entry in self._wanted(canonical)]
        for item in made:
            if item.missing:
                places = ", ".join(f"{name} at {canonical.place(name)}" for name in item.missing[:4])
                raise PassRefused(
                    "nothing decides symbols of the graph", where=where, found=places,
                    hint=f"Give them: symbols={','.join(f'{name}:N' for name in item.missing)}.",
                )  # fmt: skip
        return [item.entry for item in made]

    def _wanted(self, canonical: DimensionAnalysis) -> list[Entry]:
        return _BUILDERS.get(self.family, _multimodal)(self, canonical)


Builder = Callable[[Specialize, DimensionAnalysis], list[Entry]]


def _causal(options: Specialize, canonical: DimensionAnalysis) -> list[Entry]:
    ctx = options.ctx if canonical.states else options.prefill
    lengths = None
    if options.ccl or options.ccl_prefill:
        lengths = context_lengths(options.ccl_prefill, options.ccl, ctx, options.prefill)
    sizes = CausalSizes(
        batch=options.batch,
        prefill=options.prefill,
        ctx=lengths.ctx if lengths else ctx,
        full_batch=options.full_batch,
        cache_batch=options.cache_batch,
        k=options.k or ((0,) if canonical.groups(Axis.LOGITS) else None),  # one row each where nobody speculates
        lengths=lengths,
        phases=_phases(options, canonical),
    )
    return causal(sizes)


def _phases(options: Specialize, canonical: DimensionAnalysis) -> Phases:
    """As asked; a graph that takes no state cannot decode."""
    carried = any(state.input is not None for state in canonical.states)
    return options.phases if carried else Phases.PREFILL


def _encoder(options: Specialize, canonical: DimensionAnalysis) -> list[Entry]:
    return encoder(options.family, options.lengths, options.batch)


def _speech(options: Specialize, canonical: DimensionAnalysis) -> list[Entry]:
    """One graph may hold both halves, or either: a half is recognized by what it reads."""
    entries = speech(options.ctx, options.encoder_ctx, options.batch)
    reads = {SpecRole.ENCODE: canonical.groups(Axis.FRAMES), SpecRole.DECODE: canonical.groups(Axis.SEQ)}
    kept = [entry for entry in entries if reads[entry.role]]
    alone = {"seq_len"} if not reads[SpecRole.DECODE] else set[str]()
    return [replace(entry, symbols={k: v for k, v in entry.symbols.items() if k not in alone}) for entry in kept]


def _raw(options: Specialize, canonical: DimensionAnalysis) -> list[Entry]:
    return [Entry(SpecRole.OTHER, {}, options.tag or None)]


def _multimodal(options: Specialize, canonical: DimensionAnalysis) -> list[Entry]:
    """Vision alone where the graph reads no tokens; else each phase, with each picture where it reads pictures."""
    if options.lengths:
        sizes = [replace(options, prefill=size, ctx=size, lengths=()) for size in dict.fromkeys(options.lengths)]
        return [entry for each in sizes for entry in _multimodal(each, canonical)]
    given: dict[str, Any] = {
        "batch_size": options.batch,
        "prefill_seq_len": options.prefill,
        "ctx_len": options.ctx,
        "kv_offload": True,
        "continuous_batching": options.full_batch is not None,
        "full_batch_size": options.full_batch,
        "kv_cache_batch_size": options.cache_batch,
        "comp_ctx_lengths_prefill": list(options.ccl_prefill) or None,
        "comp_ctx_lengths_decode": list(options.ccl) or None,
        **_picture(options),
    }
    lists = multimodal(options.family, given)
    visions = lists.get("vision", [])
    if not canonical.groups(Axis.SEQ):
        return visions
    wanted = {Phases.PREFILL: [SpecRole.PREFILL], Phases.DECODE: [SpecRole.DECODE]}.get(_phases(options, canonical))
    language = [entry for entry in lists["lang"] if wanted is None or entry.role in wanted]
    pictures: list[dict[str, int]] = [vision.symbols for vision in visions] if _reads_pictures(canonical) else [{}]
    return [
        Entry(entry.role, {**picture, **entry.symbols}, entry.role.value.capitalize())
        for entry in language
        for picture in pictures
    ]


def _reads_pictures(canonical: DimensionAnalysis) -> bool:
    return any(canonical.groups(axis) for axis in (Axis.PATCHES, Axis.HEIGHT, Axis.GRID_HEIGHT))


def _picture(options: Specialize) -> dict[str, Any]:
    geometry = FAMILIES[options.family].geometry.options
    tall = next((name for name in geometry if name in ("height", "image_height")), None)
    if tall is None:
        return {}
    return {tall: list(options.height) or None, tall.replace("height", "width"): list(options.width) or None}


_BUILDERS: dict[str, Builder] = {
    **dict.fromkeys(CAUSAL, _causal),
    **dict.fromkeys(ENCODERS, _encoder),
    "speech": _speech,
    "raw": _raw,
}


def _notes(added: Sequence[Specialization]) -> tuple[str, ...]:
    return tuple(f"{item.name}: {', '.join(f'{k}={v}' for k, v in item.symbols.items())}" for item in added)


def _shown(value: object) -> str:
    """An option's value as pipeline text has it."""
    if isinstance(value, Phases):
        return value.value
    return ",".join(map(str, cast("tuple[object, ...]", value))) if isinstance(value, tuple) else str(value)


def moved_lengths(options: Specialize, added: Sequence[Specialization]) -> Iterator[str]:
    """A sentence for each list of context lengths that came out other than asked, and why.

    The rules are those of QEfficient's compile step; ``ir/specialize/families/ccl.py`` has them.
    """
    asked = {SpecRole.PREFILL: options.ccl_prefill, SpecRole.DECODE: options.ccl}
    for role, lengths in asked.items():
        given = {item.binding["comp_ctx_lengths"] for item in added if _attends(item, role)}
        if lengths and given and given != set(lengths):
            yield (
                f"{role.value}: context lengths {_shown(tuple(sorted(given)))} instead of {_shown(lengths)}: the "
                f"compiler's lengths are at least {UNIT} or the whole context, and a prefill's lie {STEP} below a "
                "decode's; clone-decode{ccl=…} takes them as they are"
            )


def _attends(item: Specialization, role: SpecRole) -> bool:
    return item.role is role and "comp_ctx_lengths" in item.binding
