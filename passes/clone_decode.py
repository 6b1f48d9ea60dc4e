"""clone-decode makes one graph per role and speculative length, all with the nodes and weights of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..ir.core.errors import PassRefused, UsageError
from ..ir.core.specialization import Manifest, Specialization, SpecRole, distinct
from ..ir.interface.analysis import ALL, Known, analysis_of, forget
from ..ir.interface.axes import Axis
from ..ir.interface.dimensions import DimensionAnalysis
from ..ir.interface.logits import logits_output
from ..ir.interface.roles import Role
from ..ir.manifests.deployment import Form, deployment_of, form_for
from ..ir.program.clone import Clone, inner_symbols, materialize
from ..ir.program.clone_records import clones_of, notes_on, spare_rows, static_past, unhidden, whole_chunks
from ..ir.program.contracts.sizes import Claims
from ..ir.program.program import Program
from ..ir.proof.several import refuse_several
from ..ir.rewrite.bind_sizes import drop_idle, refuse_other_defaults
from ..ir.rewrite.lm_head import answers_end_of_run
from ..ir.rewrite.scalar_ranges import squeeze_ranges
from ..ir.specialize.assign import check_symbols
from ..ir.specialize.length_choices import refuse_length_choices
from ..ir.specialize.lengths import Lengths, bind_lengths
from ..ir.specialize.one_graph import has_open_defaults, on_one_graph
from ..ir.specialize.speculator import as_configured
from ..ir.states import Pairing
from ..ir.symbolic.dims import substitute
from ..ir.symbolic.symbols import dims_of
from .base import Pass, Report
from .simplify import Simplify


@dataclass(frozen=True)
class CloneDecode(Pass):
    """Makes one graph per role and speculative length K of a decoder: ``prefill``, ``decode_k0``, ``decode_k4`` …

    ``clone-decode{k=0,4 ctx=128 prefill=32}`` on a decoder with ``input_ids [batch, seq]`` gives::

        prefill     input_ids [1, 32]
        decode_k0   input_ids [1, 1]      logits of the last row
        decode_k4   input_ids [1, 5]      logits of the last 5 rows

    1. A decode takes K + 1 tokens. A growing cache holds ``ctx - seq`` rows before a run, a fused one shares a buffer
       of ``ctx`` rows, a cache that is written in place has ``ctx``.
    2. ``num_logits_to_keep``, where the graph has it, is K + 1 in a decode and 1 in a prefill.
    3. With an input that chooses cache rows by batch (continuous batching) a prefill runs one row of ``batch``.
    4. ``fold=false`` shares the nodes: dimensions and value infos differ, and the file is written without a copy of the
       graph. ``fold=true`` gives each clone nodes of its own, simplified for its sizes;
       an input of which only the shape was used is gone then.
    5. ``static=false`` keeps the symbols; the manifest's bindings tell the sizes.
       ``form=specializations`` leaves one graph and names its bindings ``Prefill``, ``Decode_0`` …: one call of a
       compiler that reads them, and the weights once on the device. One graph that picks is ``package{as=branches}``.
    6. A graph that takes one token a run gets no prefill; recurrent states take in every row, so that a prefill of
       theirs reads whole chunks only (recorded). The rows of a convolution's state are those that it looks back.
    7. Operands of Range that are no scalars are squeezed: with known shapes a runtime refuses them.

    Left alone: graphs that carry nothing from run to run. Refused: K that the context cannot hold, a dimension that the
    graph fixes to another size, a symbol that nothing decides, logits of fewer rows than a decode checks, a run of
    several tokens (a prefill, or K > 0) that is not what one token a run is, and a branch that the graph takes by the
    length of the text (long-context tables), where fixed sizes would always take one.

    Attributes:
        ctx: The context: how many tokens a cache can hold.
        k: The speculative lengths; without any, one ``decode`` of one token.
        prefill: How many tokens a prefill takes; without it there is none.
        batch: How many rows run at once.
        cache_batch: How many rows caches have where an input chooses among them; ``batch`` by default.
        ccl: Lengths of the context that is attended to, for graphs with an input for it; one graph each.
        bind: Sizes of symbols that none of these decides.
        static: Whether sizes take the place of symbols.
        fold: Whether each clone is simplified for its sizes.
        target: The compiler that the clones are for, where it forbids something.
        form: graphs, specializations, or auto: as the target takes them, and graphs where sizes are folded, symbols
            kept, or inputs with a default have open sizes; for presets branches too, one graph that picks.
    """

    name: ClassVar[str] = "clone-decode"
    preserves: ClassVar[frozenset[Known]] = ALL

    ctx: int
    k: tuple[int, ...] = ()
    prefill: int | None = None
    batch: int = 1
    cache_batch: int | None = None
    ccl: tuple[int, ...] = ()
    bind: Mapping[str, int] = field(default_factory=dict[str, int])
    static: bool = True
    fold: bool = False
    target: str | None = None
    form: Form = Form.GRAPHS

    def __post_init__(self) -> None:
        """Sorts K and takes each once; UsageError for sizes below their least, and for folding what stays symbolic."""
        object.__setattr__(self, "k", tuple(sorted(set(self.k))))
        object.__setattr__(self, "ccl", tuple(sorted(set(self.ccl))))
        sizes = {"ctx": self.ctx, "batch": self.batch, "prefill": self.prefill, "cache_batch": self.cache_batch}
        least = [(name, size, 1) for name, size in sizes.items() if size is not None]
        least += [("k", size, 0) for size in self.k] + [("ccl", size, 1) for size in self.ccl]
        for name, size, lowest in (*least, *((f"bind={name}", size, 0) for name, size in self.bind.items())):
            if size < lowest:
                raise UsageError("too small", where=f"pass {self.name!r}, {name}", found=size, wanted=f">= {lowest}")
        if self.fold and not self.static:
            raise UsageError("folding needs sizes", where=f"pass {self.name!r}", found="fold=true static=false")
        if self.fold and self.form is Form.SPECIALIZATIONS:
            raise UsageError(
                "one graph of many sizes cannot be folded for each",
                where=f"pass {self.name!r}",
                found="fold=true form=specializations",
                hint="form=graphs writes a graph each.",
            )

    def run(self, program: Program) -> Report:
        """Replaces each decoder of the program by its clones; raises PassRefused before it changes anything."""
        self._check_lengths()
        check_symbols(self.bind, program.graphs.values(), where=f"{self.name}, bind")
        ks, warnings = as_configured((origin.path.parent for origin in program.origins), self.k)
        each = self.fold or not self.static or any(map(has_open_defaults, program.graphs.values()))
        chosen = replace(self, k=ks, form=form_for(self.form, self.target, each=each))
        decoders = {name: analysis_of(model).dimensions() for name, model in program.graphs.items()}
        decoders = {name: found for name, found in decoders.items() if _is_decoder(found)}
        if not decoders:
            raise PassRefused(
                "no graph carries a state from run to run, so there is nothing to decode with",
                where=self.name,
                found=", ".join(program.graphs),
                wanted="a graph with a cache that enters and leaves it",
            )
        if (self.prefill or 0) > 1 and all(map(_takes_one, decoders.values())):
            chosen = replace(chosen, prefill=None)
            warnings += (_NO_PREFILL,)
        plans = {
            name: [chosen.specialize(found, lengths, role, k) for role, k, lengths in chosen.lengths(found)]
            for name, found in decoders.items()
        }
        for name, found in decoders.items() if (chosen.prefill or 0) > 1 or any(chosen.k) else ():
            refuse_several(found.model, f"{self.name}, graph {name!r}")
        for found in decoders.values() if self.static else ():
            chosen.check_choices(found)
        blind = {name for name, found in decoders.items() if chosen.cannot_tell_padding(found, plans[name])}
        squeezed, placed = 0, dict[str, list[Specialization]]()
        for name, specs in plans.items():
            changed = squeeze_ranges(program.graphs[name], self.name) if self.static else 0
            if changed:
                forget(program.graphs[name], {Known.STATES, Known.ROLES})
            squeezed += changed
            if chosen.form is Form.SPECIALIZATIONS:
                placed[name] = chosen.record(program, name, specs, decoders[name])
            else:
                placed[name] = _prefixed(specs, name if len(plans) > 1 else "")
                chosen.place(program, name, placed[name], decoders[name].needed)
        made = {"specializations": len(program.specializations)} if chosen.form is Form.SPECIALIZATIONS else {}
        counts = {"graphs": len(program.names), **made, "squeezed": squeezed}
        warnings += unhidden(decoders) if self.static else ()
        padding = (*whole_chunks(decoders, placed, blind, chosen.prefill or 1), *spare_rows(decoders, placed, self.ctx))
        clones = [] if chosen.form is Form.SPECIALIZATIONS else clones_of(placed)
        pasts = static_past(decoders) if self.static else ()
        claims = Claims(prefill=(chosen.prefill or 0) > 1, ks=chosen.k)  # a prompt of one token is a decode
        contracts = (*clones, *pasts, *padding, claims)
        return Report(
            True,
            counts,
            notes=notes_on(decoders, self.batch, max(chosen.k, default=0)),
            warnings=warnings,
            contracts=contracts,
        )

    def _check_lengths(self) -> None:
        """Refuses what the context or the target cannot hold."""
        longest = max(self.k, default=0)
        if longest >= self.ctx:
            raise PassRefused(
                "K does not fit the context", where=self.name, found=f"K={longest}", wanted=f"< {self.ctx}"
            )
        if self.prefill is not None and self.prefill > self.ctx:
            raise PassRefused(
                "a prefill does not fit the context", where=self.name, found=self.prefill, wanted=f"<= {self.ctx}"
            )
        if over := [size for size in self.ccl if size > self.ctx]:
            raise PassRefused("longer than the context", where=f"{self.name}, ccl", found=over, wanted=f"<= {self.ctx}")
        if deployment_of(self.target).covers and self.prefill is not None and longest + 1 > self.prefill:
            raise PassRefused(
                f"target {self.target!r} wants a prefill at least as long as the longest decode",
                where=self.name,
                found=f"prefill={self.prefill} and K + 1 = {longest + 1}",
                hint="Raise prefill, or drop the larger K.",
            )

    def lengths(self, graph: DimensionAnalysis) -> Iterator[tuple[SpecRole, int | None, Lengths]]:
        """Role, K and sizes of every clone of one graph: the product of speculative lengths and attended contexts."""
        if self.ccl and graph.dim(Axis.ATTENDED) is None:
            raise PassRefused(
                "no input tells how much of the context is attended to, so ccl does nothing",
                where=f"{self.name}, graph {graph.model.graph.name!r}",
                found=f"ccl={','.join(map(str, self.ccl))}",
                hint="Leave ccl= out: only graphs exported with an input that tells the attended length take it.",
            )
        rows = self.cache_batch or self.batch
        chooses = bool(graph.groups(Axis.CACHE_BATCH))
        whole = Lengths(self.batch, rows if chooses else self.batch, 1, self.ctx, 1)
        for attended in self.ccl or (None,):
            if self.prefill is not None:
                batch = 1 if chooses else self.batch
                yield SpecRole.PREFILL, None, replace(whole, batch=batch, seq=self.prefill, attended=attended)
            for k in self.k or (None,):
                seq = (k or 0) + 1
                yield SpecRole.DECODE, k, replace(whole, seq=seq, rows=seq, attended=attended)

    def check_choices(self, graph: DimensionAnalysis) -> None:
        """Refuses a graph that takes one branch for short texts and another for long ones, by its cache's growth."""
        if not any(state.traits.gains_rows and state.pairing is Pairing.BOTH for state in graph.states):
            return
        where, facts = f"{self.name}, graph {graph.model.graph.name!r}", graph.demands.facts
        for _, _, lengths in self.lengths(graph):
            sizes = (replace(lengths, ctx=lengths.seq), lengths)
            empty, full = (bind_lengths(graph, size, self.bind, where) for size in sizes)
            refuse_length_choices(graph.model, facts, empty, full, where)

    def cannot_tell_padding(self, graph: DimensionAnalysis, specs: Sequence[Specialization]) -> bool:
        """Whether a prefill answers fewer rows than it takes, and those of its end."""
        prefills = (spec for spec in specs if spec.role is SpecRole.PREFILL and spec.logits_rows is not None)
        known = (graph.model, self.name, graph.states, graph.roles, graph.demands.facts)
        fewer = [spec.binding for spec in prefills if (spec.logits_rows or 0) < (self.prefill or 1)]
        return bool(fewer) and answers_end_of_run(*known, fewer[0])

    def specialize(self, graph: DimensionAnalysis, lengths: Lengths, role: SpecRole, k: int | None) -> Specialization:
        """One specialization with its binding; PassRefused where the graph does not take these sizes."""
        where = f"{self.name}, graph {graph.model.graph.name!r}"
        binding = bind_lengths(graph, lengths, self.bind, where)
        missing = [name for name in graph.needed if name not in binding]
        if missing and self.static:
            raise PassRefused(
                f"nothing decides the size of symbol {missing[0]!r}",
                where=f"{where}, {graph.place(missing[0])}",
                hint=f"Give bind={','.join(f'{name}:SIZE' for name in missing)}, or static=false.",
            )
        rows = _logits_rows(graph, binding)
        if k and rows is not None and rows < lengths.rows:
            raise PassRefused(
                f"the graph gives logits of {rows} rows, and K={k} checks {lengths.rows}",
                where=where,
                hint="Put keep-last-logits{symbol=num_logits_to_keep} before this pass.",
            )
        tail = f"_ccl{lengths.attended}" if lengths.attended is not None else ""
        name = f"{role.value}_k{k}{tail}" if k is not None else f"{role.value}{tail}"
        return Specialization(name=name, role=role, binding=binding, k=k, logits_rows=rows)

    def record(
        self, program: Program, base: str, specs: Sequence[Specialization], found: DimensionAnalysis
    ) -> list[Specialization]:
        """Leaves the graph as it is, and its bindings among the program's specializations."""
        for spec in specs:
            refuse_other_defaults(program.graphs[base], spec.binding, f"{self.name}, graph {base!r}")
        others = [item for item in program.specializations if item.graph not in ("", base)]
        own = on_one_graph(specs, found, base if len(program.names) > 1 else "", others)
        program.specializations = list(Manifest.of([*others, *own]).specializations)
        return own

    def place(self, program: Program, base: str, specs: Sequence[Specialization], needed: Sequence[str]) -> None:
        """Puts the clones of one graph into the program, and what they are into its specializations."""
        model = program.graphs[base]
        bindings = {spec.name: dict(spec.binding) if self.static else {} for spec in specs}
        for binding in bindings.values():
            refuse_other_defaults(model, binding, f"{self.name}, graph {base!r}")
        inner = inner_symbols(model)
        clones = {name: Clone(base, binding) for name, binding in bindings.items()}
        if self.fold or any(inner & binding.keys() for binding in bindings.values()):
            copies = {name: materialize(model, clone, name) for name, clone in clones.items()}
            for copy in copies.values() if self.fold else ():
                read = [value for value in copy.graph.inputs if value.uses()]
                Simplify().call(copy)
                drop_idle(copy.graph, read)
            del program.graphs[base]
            program.graphs |= copies
            program.bound |= bindings
        else:
            program.clones |= clones
        own = [
            spec.model_copy(update={"binding": {s: spec.binding[s] for s in needed if s in spec.binding}})
            for spec in specs
        ]
        others = [item for item in program.specializations if item.graph != base]
        program.specializations = list(Manifest.of([*others, *own]).specializations)


def _is_decoder(graph: DimensionAnalysis) -> bool:
    return any(s.pairing is Pairing.BOTH and s.traits.changes for s in graph.states)


_NO_PREFILL = "the graph takes one token a run, so there is no prefill: the decode reads prompts, one token a run"


def _takes_one(graph: DimensionAnalysis) -> bool:
    """True for a graph that an export fixed to one token a run."""
    inputs = {value.name: dims_of(value) for value in graph.model.graph.inputs}
    tokens = [inputs[name] for name, role in graph.roles.items() if role in (Role.TOKEN_IDS, Role.EMBEDDINGS)]
    return bool(tokens) and all(dims is not None and list(dims[1:2]) == [1] for dims in tokens)


def _prefixed(specs: Sequence[Specialization], prefix: str) -> list[Specialization]:
    """The specializations, alike ones once; named after their graph too where the program has several decoders."""
    names = [(spec, f"{prefix}_{spec.name}" if prefix else spec.name) for spec in distinct(specs)]
    return [spec.model_copy(update={"name": name, "graph": name}) for spec, name in names]


def _logits_rows(graph: DimensionAnalysis, binding: Mapping[str, int]) -> int | None:
    """How many rows the logits have; None where they are no ``[batch, rows, …]`` or their number stays open."""
    value = logits_output(graph.model, graph.states)
    if value is None:
        return None
    for dims in (dims_of(value), graph.demands.facts.shape(value)):
        if dims is not None and len(dims) >= 2 and dims[1] is not None:
            size = substitute(dims[1], binding)
            if isinstance(size, int):
                return size
    return None
