"""Replays a text through a decoder and its clones, with wrong and missing proposals, and compares every logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError
from ...ir.core.specialization import Specialization, SpecRole, read_specialization
from ...ir.interface.dimensions import analyze_dimensions
from ...ir.program.clone import Clone, materialize
from ...ir.program.program import Program
from ...ir.rewrite.pack.body import DOMAIN
from ...ir.rewrite.simplify import simplify_round
from ...ir.states import Layout, Pairing, State, find_states
from ..decode.player import Caches, Chunk, Player, Tail
from ..session.session import Optimization, RunError, Session, SessionError
from ..session.subject import Subject
from .closeness import OTHER_SUMS, compare_rows, sums_of
from .compare import Difference, compare
from .contract import Contract
from .outside import outside_sizes

MAX_ROUNDS = 8
TEXT = 48  # tokens after the prompt, at most
Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Replayed:
    """What one comparison of a graph found: its outputs' differences, or why it was left out or failed."""

    graph: str
    case: str
    outputs: tuple[Difference, ...] = ()
    skipped: str = ""
    failed: str = ""


def replays(result: Program) -> list[Specialization]:
    """The prefills and decodes of a program that a replay can run; none where it is no such program."""
    found = [read_specialization(item, index) for index, item in enumerate(result.specializations)]
    names = set(result.names)
    kept = [s for s in found if s.role in (SpecRole.PREFILL, SpecRole.DECODE) and s.graph in names]
    return kept if any(spec.role is SpecRole.DECODE for spec in kept) else []


def replay(original: Program, result: Program, seed: int, tell: Callable[[str], None]) -> Iterator[Replayed]:
    """Plays a random text through the original, one token a run, and through every clone; yields what they differ by.

    Each decode starts from the prefill's caches and sees full, partial, wrong and missing proposals, after which caches
    are rewound. Where states kept their layout, the original also runs on the very inputs of each clone, and every
    output must be bit-equal. ``tell`` receives notes. Raises KernelMissing where the original cannot be run.
    """
    specs: list[Specialization] = []
    base = _decoder_of(original)
    players: dict[str, Player] = {}
    for spec in replays(result):
        try:
            players[spec.graph + spec.name] = _player(result, spec)
            specs.append(spec)
        except SessionError as error:
            yield Replayed(spec.graph, _title(spec), failed=error.what)
    if not specs:
        return
    try:
        context = _Context.of(original, base, result, list(players.values()), seed)
    except RunError as error:
        yield from (Replayed(s.graph, _title(s), skipped=f"the original cannot be run: {error.what}") for s in specs)
        return
    context.packed = any(_branches(model) for model in result.graphs.values())
    if why := context.unplayable():
        tell(f"{base}: {why}: the clones are compared with the original on their own inputs only")
    prompt = _Caches()
    for spec in sorted(specs, key=lambda spec: spec.role is SpecRole.DECODE):
        player = players[spec.graph + spec.name]
        try:
            if spec.role is SpecRole.PREFILL:
                prompt = context.prefill(player)
                yield from context.told(spec)
            else:
                context.decode(player, prompt.copy(), spec.k or 0)
                yield from context.told(spec)
        except _BothReject as both:
            yield Replayed(spec.graph, _title(spec), skipped=f"the original rejects the same inputs: {both.what}")
        except RunError as error:
            yield Replayed(spec.graph, _title(spec), failed=error.what)


def _title(spec: Specialization) -> str:
    return spec.role.value if spec.k is None else f"{spec.role.value} K={spec.k}"


def _decoder_of(program: Program) -> str:
    """The graph of the original that carries states from run to run."""
    for name, model in program.graphs.items():
        if any(s.pairing is Pairing.BOTH and s.traits.changes for s in find_states(model)):
            return name
    raise OnnxPassesError("no graph of the original carries a state", found=", ".join(program.graphs))


def _player(result: Program, spec: Specialization) -> Player:
    """The clone's session, and its sizes: bound in the graph itself, or by the specialization."""
    model = result.graph(spec.graph)
    bound = _decided(materialize(model, Clone(spec.graph, spec.binding), spec.graph))
    player = Player.of(model, spec.graph, 0, bound)
    Session(model, spec.graph, Optimization.BASIC)  # as a user would open it
    player.ctx = player.room
    return player


def _branches(model: ir.Model) -> bool:
    return any(node.op_type == "If" for node in model.graph)


def _decided(model: ir.Model) -> ir.Model:
    """The one branch that a graph's sizes choose, where branches pick a clone by them; else the graph itself."""
    if not _branches(model):
        return model
    from onnx_ir.passes.common import InlinePass

    if any(key[0] == DOMAIN for key in model.functions):
        InlinePass(criteria=lambda function: function.domain == DOMAIN)(model)
    for _ in range(MAX_ROUNDS):
        if not simplify_round(model):
            break
    return model


class _BothReject(OnnxPassesError):
    """The runtime takes these sizes in neither graph."""


@dataclass
class _Caches:
    """What a prefill leaves: caches, and how much of the text they hold."""

    caches: Caches = field(default_factory=Caches)

    def copy(self) -> Caches:
        return Caches(dict(self.caches.arrays), self.caches.held)


@dataclass
class _Context:
    """One text, what the original says of it token by token, and what was compared since the last report."""

    original: Player
    text: np.ndarray
    contract: Contract
    same_layout: bool
    static_past: bool
    expected: list[np.ndarray] = field(default_factory=list[np.ndarray])
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list[tuple[np.ndarray, np.ndarray]])
    twins: dict[str, Difference] = field(default_factory=dict[str, Difference])
    packed: bool = False
    sums: float = OTHER_SUMS
    runs: int = 0

    @classmethod
    def of(cls, program: Program, name: str, result: Program, players: list[Player], seed: int) -> _Context:
        contract = Contract.of(program, result)
        longest = max(player.length or 1 for player in players)
        room = min(player.ctx for player in players)
        model = program.graphs[name]
        outside = outside_sizes(Subject.of(model, name), [player.subject for player in players], contract.old_input)
        known = materialize(model, Clone(name, analyze_dimensions(model).complete(outside)), name)
        original = Player.of(model, f"{name} (original)", room, known)
        original.switches = contract.fixed
        prompt = max((player.length or 1) for player in players)
        length = max(min(room - longest, prompt + TEXT), 1)
        ids = next(iter(original.subject.tables.values()), 64)
        batch = max(player.batch or 1 for player in players)
        text = np.random.default_rng([seed, length]).integers(0, ids, (batch, room + longest))
        context = cls(original, text, contract, _same(original, players, contract), _static_past(players))
        context.sums = sums_of(model)
        if not context.unplayable():
            context.expected = context._one_by_one(length)
        else:
            context.expected = [np.zeros(0)] * length
        return context

    def unplayable(self) -> str:
        """Why clones cannot continue a text of their own: a fixed past without anything that hides its empty rows."""
        from ...ir.interface.roles import Role

        if not self.static_past:
            return ""
        told = [bool(self.original.subject.inputs(role)) for role in (Role.ATTENTION_MASK, Role.POSITIONS)]
        return "" if all(told) else "a growing cache of fixed length needs a mask and positions among the inputs"

    def _one_by_one(self, length: int) -> list[np.ndarray]:
        """The original's logits of every token, from runs of one token (or as many as it takes)."""
        caches, step = Caches(), self.original.length or 1
        rows = tuple(range(len(self.text))) if self.original.chooses_rows else None
        expected: list[np.ndarray] = []
        for start in range(0, length, step):
            chunk = Chunk(self.text[:, start : start + step], start, step, rows=rows)
            first, array = self.original.logits(self.original.run(caches, chunk), chunk)
            if first:
                raise OnnxPassesError("the original gives no logits of some tokens", where=self.original.subject.name)
            expected += [array[:, row] for row in range(array.shape[1])]
        return expected

    def prefill(self, player: Player) -> _Caches:
        """Runs the prompt in one run, padded where the graph tells padding; returns the caches it leaves."""
        length = player.length or 1
        room = min(len(self.expected), player.ctx - length)
        whole = not (player.pads or player.rewinds)
        count = length if whole and length <= player.ctx else max(1, min(length - length // 4, room))
        caches = Caches()
        rows: list[tuple[int, ...] | None] = (
            [(row,) for row in range(len(self.text))] if player.chooses_rows else [None]
        )
        for chosen in rows:
            tokens = self.text if chosen is None or player.batch == len(self.text) else self.text[list(chosen)]
            picked = tuple(range(len(self.text))) if chosen is not None and len(tokens) == len(self.text) else chosen
            chunk = self._chunk(player, tokens, count, count, picked)
            caches.held = 0
            self._run(player, caches, chunk, count)
            if len(tokens) == len(self.text):
                break
        return _Caches(caches)

    def decode(self, player: Player, caches: Caches, k: int) -> None:
        """Continues the text with proposals of K tokens, fewer and none, of which all, some or none are right."""
        length, step = player.length or k + 1, 0
        rows = tuple(range(len(self.text))) if player.chooses_rows else None
        while (start := caches.held) + length <= min(len(self.expected), player.ctx):
            made, right = proposals(k, step) if player.rewinds else (k, k)
            made = k if not player.pads and not player.rewinds else made
            tokens = self.text[:, start : start + length].copy()
            tokens[:, right + 1 : made + 1] = (tokens[:, right + 1 : made + 1] + 1) % max(int(self.text.max()), 2)
            chunk = self._chunk(player, tokens, made + 1, start, rows, start)
            self._run(player, caches, chunk, right + 1)
            step += 1

    def _chunk(
        self, player: Player, tokens: np.ndarray, count: int, end: int, rows: tuple[int, ...] | None, start: int = 0
    ) -> Chunk:
        length = player.length or count
        taken = tokens[:, start : start + length] if tokens.shape[1] > length else tokens
        tail = Tail.PADDING if player.pads else Tail.REJECTED
        return Chunk(taken, start, count, tail, rows)

    def _run(self, player: Player, caches: Caches, chunk: Chunk, keep: int) -> None:
        """One run of a clone: its logits against those expected, its outputs against the original's on its inputs."""
        self.runs += 1
        feed = player.inputs(caches, chunk) if self.same_layout else {}
        theirs = self._of_original(feed) if self.same_layout else {}
        outputs = player.run(caches, chunk, keep)
        self._twin(theirs, outputs, feed)
        if self.unplayable():
            return
        first, array = player.logits(outputs, chunk)
        chosen = list(chunk.rows) if chunk.rows is not None else list(range(len(self.text)))
        for row in range(array.shape[1]):
            if first + row < keep and chunk.start + first + row < len(self.expected):
                self.pairs.append((self.expected[chunk.start + first + row][chosen], array[:, row]))

    def _of_original(self, feed: Feed) -> Feed:
        """What the original says on a clone's inputs; _BothReject where it takes them no more than the clone may."""
        known = {value.name or "" for value in self.original.subject.model.graph.inputs}
        given = {self.contract.old_input(name): array for name, array in feed.items()}
        try:
            return self.original.session.run({name: array for name, array in given.items() if name in known})
        except RunError as error:
            raise _BothReject(error.what) from error

    def _twin(self, theirs: Feed, outputs: Mapping[str, np.ndarray], feed: Feed) -> None:
        """Holds a clone's outputs against the original's: those of the same shape must be the same bit for bit.

        In a branch the runtime does not pack weights beforehand, and takes another kernel for it.
        """
        allowed = OTHER_SUMS if self.packed else 0.0
        for name, array in outputs.items():
            other = theirs.get(self.contract.old_output(name))
            if other is None or other.shape != array.shape:
                continue
            found = compare(name, other, array, allowed)
            if (
                not found.equal
                and not compare(name, other, self._of_original(feed)[self.contract.old_output(name)]).equal
            ):
                continue  # the original's own answer changes from run to run: rows that it never wrote
            kept = self.twins.get(name)
            self.twins[name] = found if kept is None or kept.equal or not found.equal else kept

    def told(self, spec: Specialization) -> Iterator[Replayed]:
        """What was compared since the last call."""
        title = f"{_title(spec)}, {self.runs} runs"
        twins, pairs, self.twins, self.pairs, self.runs = self.twins, self.pairs, {}, [], 0
        if twins:
            yield Replayed(spec.graph, f"{title}, the original on the same inputs", tuple(twins.values()))
        if pairs:
            expected, found = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
            rows = compare_rows(expected, found, self.sums)
            yield Replayed(spec.graph, f"{title}, the original token by token", rows)
        if not twins and not pairs:
            yield Replayed(spec.graph, title, skipped="no run gave an output to compare")


def proposals(k: int, step: int) -> tuple[int, int]:
    """How many tokens a step proposes and how many of them are right: long, partial, long, none …"""
    made = (k, max(k - 1, 0), k, 0, k, k // 2)[step % 6]
    right = (made, made // 2, 0, 0, max(made - 1, 0), made)[step % 6]
    return made, right


def _same(original: Player, players: list[Player], contract: Contract) -> bool:
    """Whether every state kept its name and layout, so that the original takes what a clone takes."""
    before = _layouts(original.subject.states, lambda name: name)
    return all(_layouts(player.subject.states, contract.old_input) == before for player in players)


def _layouts(states: list[State], old: Callable[[str], str]) -> set[tuple[str, Layout]]:
    return {(old(s.input.name or ""), s.layout) for s in states if s.input is not None}


def _static_past(players: list[Player]) -> bool:
    return any(player.fixed_past for player in players)
