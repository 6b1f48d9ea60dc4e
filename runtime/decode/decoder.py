"""Feeds tokens at positions to a program's decoder graphs, each input by its role, and reads what comes next."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.core.errors import UsageError
from ...ir.core.specialization import SpecRole, read_specialization
from ...ir.interface.roles import Role
from ...ir.program.program import Program
from ...ir.symbolic.symbols import dims_of
from ..session.session import Optimization
from ..speculate.plan import PAD_POSITION
from .feeds import NotDecodable, Run, Writing
from .holdings import Hold, Sizes
from .probes import gives_all, refuse_starts, writes_rows_apart
from .state_session import GraphSession, StateSession

WIDE = 512  # tokens that a prefill of free length takes at once
GUESSED_KS = (0, 1, 2, 4, 8)  # of a graph that takes any number of tokens


@dataclass(frozen=True)
class Rows:
    """What one run gave: logits ``[rows, n, vocabulary]`` or tokens ``[rows, n]``; ``first`` is n's first token."""

    values: np.ndarray
    first: np.ndarray

    @property
    def are_tokens(self) -> bool:
        """Whether the graph chose the tokens itself."""
        return self.values.ndim == 2

    def after(self, row: int, token: int) -> np.ndarray:
        """What follows the row's token number ``token`` of the run: logits ``[vocabulary]`` or one token."""
        return self.values[row, token - int(self.first[row])]


class Decoder:
    """A batch of texts in a program's caches: ``run`` adds tokens, ``keep`` says how many of them stay.

    ``lengths`` is how many tokens of each text the caches hold; a text's next token stands at that position.
    """

    def __init__(
        self,
        program: Program,
        *,
        rows: int | None = None,
        ctx: int = 0,
        ks: Sequence[int] | None = None,
        optimization: Optimization = Optimization.ALL,
    ) -> None:
        known = {item.graph: item for item in map(read_specialization, program.specializations) if item.graph}
        asked = Sizes(rows or 1, ctx)
        self.session = StateSession(program, asked, optimization=optimization)
        try:
            self._graphs = [g for g in self.session.graphs.values() if g.subject.inputs(Role.TOKEN_IDS)]
            if not self._graphs:
                raise NotDecodable("no graph takes token ids", found=", ".join(self.session.graphs))
            self.rows = self._batch(rows)
            if self.rows != asked.rows and self._open_sizes:
                self.session.close()
                self.session = StateSession(program, Sizes(self.rows, ctx), optimization=optimization)
                self._graphs = [g for g in self.session.graphs.values() if g.subject.inputs(Role.TOKEN_IDS)]
            refuse_starts(self._graphs[0])
            self.vocabulary = min(g.subject.tables.get(_tokens(g), 1 << 31) for g in self._graphs)
            self.writing = _writing(self._graphs[0])
            self.rewinds = all(h.rewinds for g in self._graphs for h in g.holdings.values())
            self.ctx = self._context(ctx)
            self.lengths = np.zeros(self.rows, np.int64)
            self._width = 0
            self._apart = writes_rows_apart(self, self._graphs[0])
            self._decodes, self._prefills = self._sort(known, ks)
            if not self.ks:
                hint = "Clone a decode for k=0, or run one text at a time."
                raise NotDecodable(
                    "these graphs cannot take back rejected tokens", found=f"K {[*self._decodes]}", hint=hint
                )
        except BaseException:
            self.session.close()
            raise

    @property
    def ks(self) -> tuple[int, ...]:
        """The speculative lengths that can run, ascending; only 0 where rejected tokens cannot be taken back.

        Fused attentions of the CPU runtime take one token a row where there are several rows.
        """
        several = self.rewinds and not (self.writing is Writing.LENGTHS and self.rows > 1)
        return tuple(k for k in sorted(self._decodes) if k == 0 or several)

    @property
    def last(self) -> int:
        """The last position that a token may have: of a cache written at positions the last row takes the padding."""
        spare = 0 if self._grows else 1 if self.writing is Writing.POSITIONS else min(self.ks, default=0)
        return min(self.ctx - spare, self._table) - 1

    @property
    def _table(self) -> int:
        """How many positions a table of the graph has, where it looks them up."""
        found = ((g.subject.tables.get(v.name or "") for v in g.subject.inputs(Role.POSITIONS)) for g in self._graphs)
        return min((rows for names in found for rows in names if rows is not None), default=1 << 31)

    @property
    def slots(self) -> int:
        """How many texts can run at once: one, where nothing tells padding or what it leaves behind stays."""
        subject = self._graphs[0].subject
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
        return self.writing is Writing.BEHIND and all(
            h.hold is not Hold.PADDED for g in self._graphs for h in g.holdings.values()
        )

    @property
    def _open_sizes(self) -> bool:
        """Whether some state leaves a size to us."""
        states = (v for g in self._graphs for n, v in g.inputs.items() if n in g.holdings)
        return any(not isinstance(dim, int) for value in states for dim in dims_of(value) or ())

    def only(self, ks: Sequence[int]) -> Decoder:
        """The same decoder, sessions and texts with fewer Ks. Raises UsageError where one is not compiled."""
        if lacking := set(ks) - self._decodes.keys():
            raise UsageError("not compiled", found=f"K {sorted(lacking)}", wanted=f"of {sorted(self._decodes)}")
        fewer = copy.copy(self)
        fewer._decodes = {k: self._decodes[k] for k in ks}
        return fewer

    def reset(self) -> None:
        """Forgets every text."""
        self.session.reset()
        self.lengths[:] = 0

    def forget(self, row: int) -> None:
        """Frees a row for another text; a state that cannot be rewound starts anew."""
        self.lengths[row] = 0
        if not self.rewinds:
            self.session.reset()
        else:  # caches that grow are as long as the longest text
            self.session.keep(self.lengths, np.zeros_like(self.lengths), 0)

    def decode(self, k: int, ids: np.ndarray, positions: np.ndarray) -> Rows:
        """Runs the graph for K on ids and positions ``[rows, k + 1]``, padding at -1."""
        return self._run(self._decodes[k], ids, positions, list(range(self.rows)))

    def prefill(self, texts: Mapping[int, Sequence[int]]) -> dict[int, np.ndarray]:
        """Reads whole texts into rows; gives each row what follows its last token."""
        found: dict[int, np.ndarray] = {}
        graph = self._prefills[0]
        if graph.subject.fixed(0) == 1 or not self._mixes(texts):
            for row, text in texts.items():
                self._read({row: text}, found)
        else:
            self._read(texts, found)
        return found

    def keep(self, counts: Sequence[int] | np.ndarray) -> None:
        """Of the last run each row's first ``counts`` tokens stay."""
        kept = np.asarray(counts, np.int64)
        self.session.keep(self.lengths, kept, self._width)
        self.lengths += kept

    def close(self) -> None:
        """Lets the sessions go."""
        self.session.close()

    def _mixes(self, texts: Mapping[int, Sequence[int]]) -> bool:
        """Whether texts can be read at once: something tells padding, or they are equally long and nobody idles."""
        if self.writing is not Writing.BEHIND:
            return True
        same = len({len(text) for text in texts.values()}) == 1 and len(texts) == self.rows
        return same or bool(self._graphs[0].subject.masks)

    def _read(self, texts: Mapping[int, Sequence[int]], found: dict[int, np.ndarray]) -> None:
        done = dict.fromkeys(texts, 0)
        while left := [row for row in texts if done[row] < len(texts[row])]:
            longest = max(len(texts[row]) - done[row] for row in left)
            graph, width = self._reader(longest)
            rows = [left[0]] if graph.subject.fixed(0) == 1 and self.rows > 1 else list(range(self.rows))
            ids, positions = np.zeros((len(rows), width), np.int64), np.full((len(rows), width), PAD_POSITION, np.int64)
            counts = np.zeros(self.rows, np.int64)
            for at, row in enumerate(rows):
                if row not in done:
                    continue
                part = texts[row][done[row] : done[row] + width]
                ids[at, : len(part)], counts[row] = part, len(part)
                positions[at, : len(part)] = np.arange(self.lengths[row], self.lengths[row] + len(part))
            results = self._run(graph, ids, positions, rows)
            for at, row in enumerate(rows):
                if counts[row]:
                    done[row] += int(counts[row])
                    found[row] = np.array(results.after(at, int(counts[row]) - 1))
            self.keep(counts)

    def _reader(self, longest: int) -> tuple[GraphSession, int]:
        """The graph that reads the next tokens of a text, and how many at once."""
        single = self.writing is Writing.LENGTHS and self.rows > 1  # see ks
        for graph in self._prefills:
            width = graph.subject.fixed(1)
            if single and self.lengths.any() and (width is None or width > 1):
                continue
            if width is None:
                return graph, longest if single else min(longest, WIDE)
            if width <= longest or self._pads:
                return graph, width
        graph = self._decodes.get(0)
        if graph is None:
            raise NotDecodable("nothing can read the end of a text", hint="Clone a decode for k=0 too.")
        return graph, 1

    @property
    def _pads(self) -> bool:
        """Whether a run may hold fewer tokens than it takes."""
        return self.rewinds and (self.writing is not Writing.BEHIND or self._graphs[0].subject.masks)

    def _run(self, graph: GraphSession, ids: np.ndarray, positions: np.ndarray, rows: list[int]) -> Rows:
        run = Run(graph, ids, positions, rows, self.lengths, self.ctx, self.writing)
        found = graph.execute(run.feeds(), self.session.memory, run.width)
        self._width = run.width
        return _rows(graph, found, run.width, run.counts)

    def _batch(self, asked: int | None) -> int:
        """How many texts there can be: what the graphs fix, else what was asked for."""
        sizes = [g.subject.fixed(0) for g in self._graphs]
        fixed = max((size for size in sizes if size is not None), default=None)
        if fixed is not None and asked is not None and asked > fixed:
            hint = f"Clone it with batch={asked}."
            raise UsageError(
                "the program was made for a smaller batch", found=asked, wanted=f"at most {fixed}", hint=hint
            )
        return fixed or asked or 1

    def _context(self, asked: int) -> int:
        held = (h.sizes[h.axis] for g in self._graphs for h in g.holdings.values() if h.axis is not None and h.rewinds)
        fixed = [size for size in held if size is not None]
        padded = any(h.hold is Hold.PADDED for g in self._graphs for h in g.holdings.values())
        return min([*fixed, asked or 1 << 31]) if not padded else min(fixed)

    def _sort(
        self, known: Mapping[str, Any], ks: Sequence[int] | None
    ) -> tuple[dict[int, GraphSession], list[GraphSession]]:
        """Which graph runs which K, and which read prompts, the best first."""
        decodes: dict[int, GraphSession] = {}
        readers: list[GraphSession] = []
        for graph in self._graphs:
            width, item = graph.subject.fixed(1), known.get(graph.name)
            if item is None or item.role is not SpecRole.PREFILL:
                decodes |= dict.fromkeys(_ks_of(self, graph, width, ks), graph)
            readers += [graph]
        if not decodes:
            hint = "Clone it with clone-decode, or keep the logits of the last K + 1 tokens."
            raise NotDecodable("no graph gives logits for every token it takes", hint=hint)
        readers.sort(key=lambda graph: -(graph.subject.fixed(1) or 1 << 31))
        if ks is not None and (lacking := set(ks) - decodes.keys()):
            raise UsageError("not compiled", found=f"K {sorted(lacking)}", wanted=f"of {sorted(decodes)}")
        return ({k: graph for k, graph in decodes.items() if ks is None or k in ks}, readers)


def _tokens(graph: GraphSession) -> str:
    return graph.subject.inputs(Role.TOKEN_IDS)[0].name or ""


def _writing(graph: GraphSession) -> Writing:
    holds = [h.hold for h in graph.holdings.values() if h.axis is not None]
    if Hold.SHARED in holds and all(s.layout.value == "fused" for s in graph.subject.states if s.axis is not None):
        return Writing.LENGTHS
    if Hold.SHARED in holds or Hold.SWAPPED in holds or graph.subject.written_at is not None:
        return Writing.POSITIONS
    return Writing.BEHIND


def _ks_of(decoder: Decoder, graph: GraphSession, width: int | None, ks: Sequence[int] | None) -> tuple[int, ...]:
    """The Ks that a graph can run: that of its width, or any where it takes any number of tokens."""
    if width == 1:
        return (0,)
    logits = dims_of(next(iter(graph.results.values()))) or ()
    if width is not None:
        return (width - 1,) if len(logits) > 1 and logits[1] == width else ()
    return tuple(ks or GUESSED_KS) if gives_all(decoder, graph) else (0,)


def _rows(graph: GraphSession, found: Mapping[str, np.ndarray], width: int, counts: np.ndarray) -> Rows:
    """The first result as rows of a batch."""
    values = next(iter(found.values()))
    is_choice = values.dtype.kind in "iu"
    if values.ndim == (1 if is_choice else 2):
        values = values[:, None]
    if values.ndim != (2 if is_choice else 3):
        raise NotDecodable("no logits", where=f"{graph.name}, output {next(iter(found))!r}", found=list(values.shape))
    given = values.shape[1]
    first = np.zeros(len(values), np.int64) if given == width else np.maximum(counts - given, 0)
    return Rows(values, first)
