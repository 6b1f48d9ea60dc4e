"""Feeds tokens at positions to a program's decoder graphs, each input by its role, and reads what comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.core.specialization import Specialization, SpecRole
from ...ir.interface.roles import Role
from ...ir.program.contracts.padding import spare_rows, takes_whole_chunks
from ...ir.program.program import Program
from ...ir.program.unrolled import unrolled
from ...ir.symbolic.symbols import dims_of
from ..session.session import Optimization
from ..session.subject import Subject
from .beside import Beside
from .caches import CachePolicy
from .host import Host, NotDecodable, Rows
from .kv_cache import Caches
from .opening import open_each
from .probes import gives_all, refuse_starts, writes_rows_apart
from .prompt_reader import PromptReader
from .sampling import Sampling
from .step import Step, Writing
from .words import words_of

GUESSED_KS = (0, 1, 2, 4, 8)  # of a graph that takes any number of tokens


class Decoder:
    """A batch of texts in a program's caches: ``run`` adds tokens, ``keep`` says how many of them stay.

    Every graph is a `Host`; they share one set of `Caches`, which counts the tokens of each text.
    """

    def __init__(
        self,
        program: Program,
        *,
        rows: int | None = None,
        ctx: int = 0,
        ks: Sequence[int] | None = None,
        optimization: Optimization | None = None,
        beside: Beside | None = None,
    ) -> None:
        program = (each := unrolled(program)).program
        self.beside = beside or Beside.of(program, Sampling())
        self.graphs = _taking_tokens(program, ctx)
        self.rows = self._batch(rows)
        refuse_starts(self.graphs[0])
        bound = [graph.bind(self.rows) for graph in self.graphs]
        self.bindings = [binding for bindings, _ in bound for binding in bindings.values()]
        self.writing = bound[0][1].writing
        self.untold = {graph.name: _untold(graph, self.rows) for graph in self.graphs}
        self.caches = Caches(self.rows)
        for bindings, _ in bound:
            self.caches.open(bindings)
        names = [graph.name for graph in self.graphs]
        self.words = words_of(program, names)
        self.vocabulary = min(graph.vocabulary or 1 << 31 for graph in self.graphs)
        self.rewinds = all(binding.rewinds for binding in self.bindings)
        self.ctx = self._context(ctx)
        self._spare = spare_rows(program.contracts, names)
        # graph -> whether it takes whole chunks only, as a pass recorded, or once tried
        self._whole = dict.fromkeys((name for name in names if takes_whole_chunks(program.contracts, name)), True)
        try:
            open_each(self.graphs, each, optimization)
            self._apart = writes_rows_apart(self, self.graphs[0])
            self.decodes, self._prefills = self._sort(program.specializations, ks)
            if not self.ks:
                hint = "Clone a decode for k=0, or run one text at a time."
                raise NotDecodable(
                    "these graphs cannot take back rejected tokens", found=f"K {[*self.decodes]}", hint=hint
                )
        except BaseException:
            self.close()
            raise

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens of each text the caches hold; a text's next token stands at that position."""
        return self.caches.lengths

    @property
    def ks(self) -> tuple[int, ...]:
        """The speculative lengths that can run, ascending; only 0 where rejected tokens cannot be taken back.

        Fused attentions of the CPU runtime take one token a row where there are several rows.
        """
        several = self.rewinds and not (self.writing is Writing.LENGTHS and self.rows > 1)
        return tuple(k for k in sorted(self.decodes) if k == 0 or several)

    @property
    def last(self) -> int:
        """The last position that a token may have: some rows take padding, as a pass recorded or the layout says."""
        least = 1 if self.writing is Writing.POSITIONS else min(self.ks, default=0)
        spare = 0 if self._grows else least if self._spare is None else self._spare
        return min(self.ctx - spare, self._table) - 1

    @property
    def _table(self) -> int:
        """How many positions a table of the graph has, where it looks them up."""
        found = ((g.subject.tables.get(v.name or "") for v in g.subject.inputs(Role.POSITIONS)) for g in self.graphs)
        return min((rows for names in found for rows in names if rows is not None), default=1 << 31)

    @property
    def slots(self) -> int:
        """How many texts can run at once: one, where nothing tells padding or what it leaves behind stays."""
        subject = self.graphs[0].subject
        told = self.writing is not Writing.BEHIND or (subject.masks and bool(subject.inputs(Role.POSITIONS)))
        return self.rows if self.rewinds and told and self._apart else 1

    @property
    def refills(self) -> bool:
        """Whether a row can read a prompt while others are in the middle of their texts."""
        return self.writing is Writing.POSITIONS and self.rewinds

    def k_bound(self) -> int:
        """The largest K that the longest text leaves room for: except at positions, padding takes rows of the cache."""
        if self.writing is Writing.POSITIONS or self._grows:
            return self.ctx
        return self.ctx - 1 - int(self.lengths.max())

    @property
    def _grows(self) -> bool:
        """Whether the caches have no end of their own."""
        return self.writing is Writing.BEHIND and all(b.policy is not CachePolicy.PADDED for b in self.bindings)

    def reset(self) -> None:
        """Forgets every text."""
        self.caches.reset()
        for graph in self.graphs:
            graph.session.forget()

    def forget(self, row: int) -> None:
        """Frees a row for another text; a state that cannot be rewound starts anew."""
        if self.rewinds:  # caches that grow are as long as the longest text
            self.caches.rewind([row], [0])
        else:
            self.reset()

    def decode(self, k: int, ids: np.ndarray, positions: np.ndarray) -> Rows:
        """Runs the graph for K on ids and positions ``[rows, k + 1]``, padding at -1."""
        return self.run(self.decodes[k], Step.at(ids, positions, self.lengths))

    def prefill(self, texts: Mapping[int, Sequence[int]]) -> dict[int, np.ndarray]:
        """Reads whole texts into rows; gives each row what follows its last token."""
        return PromptReader(self, self._prefills, self._whole).read(texts)

    def token(self, column: int) -> int:
        """The token that a column of the logits, or a choice of the graph's own, stands for."""
        return column if self.words is None else int(self.words[column])

    def keep(self, counts: Sequence[int] | np.ndarray) -> None:
        """Of the last run each row's first ``counts`` tokens stay."""
        self.caches.keep(np.asarray(counts, np.int64))

    def close(self) -> None:
        """Lets the sessions and the caches go."""
        for graph in self.graphs:
            graph.close()
        self.caches.reset()

    def run(self, graph: Host, step: Step) -> Rows:
        """One run of one graph; ``keep`` then says which of its tokens stay."""
        found = graph.execute(self.caches, step, self.beside.fed(self.untold[graph.name], step))
        if found.values.ndim != (2 if found.are_tokens else 3):
            where = f"{graph.name}, output {graph.answer!r}"
            raise NotDecodable("no logits", where=where, found=list(found.values.shape))
        return found

    def _batch(self, asked: int | None) -> int:
        """How many texts there can be: what the graphs fix, else what was asked for."""
        fixed = max((graph.batch for graph in self.graphs if graph.batch is not None), default=None)
        if fixed is not None and asked is not None and asked > fixed:
            hint = f"Clone it with batch={asked}."
            raise UsageError(
                "the program was made for a smaller batch", found=asked, wanted=f"at most {fixed}", hint=hint
            )
        return fixed or asked or 1

    def _context(self, asked: int) -> int:
        held = [b for b in self.bindings if b.axis is not None and b.rewinds]
        fixed = [size for b in held if (size := b.sizes[b.axis or 0]) is not None]
        padded = any(b.policy is CachePolicy.PADDED for b in self.bindings)
        return min(fixed) if padded else min([*fixed, asked or 1 << 31])

    def _sort(self, known: Sequence[Specialization], ks: Sequence[int] | None) -> tuple[dict[int, Host], list[Host]]:
        """Which graph runs which K, and which read prompts, the best first."""
        decodes: dict[int, Host] = {}
        for graph in self.graphs:
            own = [item for item in known if item.graph in ("", graph.name)]
            if not own or any(item.role is not SpecRole.PREFILL for item in own):
                told = sorted({item.k for item in own if item.k is not None})  # what was compiled, and no other K
                decodes |= dict.fromkeys(_ks_of(self, graph, told or ks or GUESSED_KS), graph)
        readers = list(self.graphs)
        if not decodes:
            hint = "Clone it with clone-decode, or keep the logits of the last K + 1 tokens."
            raise NotDecodable("no graph gives logits for every token it takes", hint=hint)
        readers.sort(key=lambda graph: -(graph.length or 1 << 31))
        if ks is not None and (lacking := set(ks) - decodes.keys()):
            raise UsageError("not compiled", found=f"K {sorted(lacking)}", wanted=f"of {sorted(decodes)}")
        return ({k: graph for k, graph in decodes.items() if ks is None or k in ks}, readers)


def _taking_tokens(program: Program, ctx: int) -> list[Host]:
    """The graphs that decoding runs, without sessions."""
    subjects = [Subject.of(program.graph(name), name) for name in program.names]
    taking = [subject for subject in subjects if subject.inputs(Role.TOKEN_IDS)]
    if not taking:
        raise NotDecodable("no graph takes token ids", found=", ".join(program.names))
    return [Host(subject, ctx=ctx, guesses=False, buffers=True) for subject in taking]


def _ks_of(decoder: Decoder, graph: Host, ks: Sequence[int]) -> tuple[int, ...]:
    """The Ks that a graph can run: that of its width, or any where it takes any number of tokens."""
    width = graph.length
    if width == 1:
        return (0,)
    if width is not None:
        logits = next((dims_of(v) for v in graph.subject.model.graph.outputs if v.name == graph.answer), None) or ()
        return (width - 1,) if len(logits) > 1 and logits[1] == width else ()
    return tuple(ks) if gives_all(decoder, graph) else (0,)


def _untold(graph: Host, rows: int) -> list[ir.Value]:
    """The inputs that a step does not tell, and that may be 0; NotDecodable names one that may not."""
    bindings, interface = graph.bind(rows)
    free = {name: value for name, value in graph.inputs.items() if name not in bindings}
    for name in free:
        role = graph.subject.roles[name]
        if role is Role.EMBEDDINGS or (name not in interface.inputs and role not in _ZEROS):
            where = f"{graph.name}, input {name!r}"
            raise NotDecodable("decoding has nothing to feed here", where=where, found=role.value)
    return [value for name, value in free.items() if name not in interface.inputs]


_ZEROS = (Role.BRANCH, Role.IMAGE_INDEX, Role.ADAPTER, Role.SAMPLING, Role.OTHER)
