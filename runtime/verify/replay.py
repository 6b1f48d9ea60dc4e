"""Replays a text through a decoder and its clones, with wrong and missing proposals, and compares every logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError, UsageError
from ...ir.core.specialization import Specialization, SpecRole
from ...ir.interface.analysis import analysis_of
from ...ir.interface.roles import Role
from ...ir.program.clone import Clone, materialize
from ...ir.program.program import Program
from ...ir.proof.whole_run import scales_of_runs
from ...ir.symbolic.symbols import dims_of
from ..decode.host import Host
from ..decode.kv_cache import Caches
from ..decode.step import Step
from ..session.session import RunError, SessionError
from ..session.subject import Subject
from .closeness import OTHER_SUMS, sums_of
from .compare import Difference, compare
from .contract import Contract
from .observe import observing
from .outside import outside_sizes
from .replay_graphs import decoder_of, has_branches, open_clone, replays, same_layouts
from .text import Feed, Text

TEXT = 48  # tokens after the prompt, at most
BY_RUN = "scales are taken over all tokens of a run"
_TOKENS = (Role.TOKEN_IDS, Role.EMBEDDINGS)
REMAINDERS = 8  # lengths of prompts that a prefill reads beside its first one, about


@dataclass(frozen=True)
class Replayed:
    """What one comparison of a graph found: its outputs' differences, or why it was left out or failed."""

    graph: str
    case: str
    outputs: tuple[Difference, ...] = ()
    skipped: str = ""
    failed: str = ""
    claim: str = ""


def replay(
    original: Program, result: Program, seed: int, tell: Callable[[str], None], limit: Callable[[str], None]
) -> Iterator[Replayed]:
    """Plays a random text through the original, one token a run, and through every clone; yields what they differ by.

    Each decode starts from the prefill's caches and sees full, partial, wrong and missing proposals, after which caches
    are rewound. Where states kept their layout, the original also runs on the very inputs of each clone, and every
    output must be bit-equal. ``tell`` receives notes, ``limit`` what no run exercised. Raises KernelMissing where the
    original cannot be run.
    """
    specs: list[Specialization] = []
    base = decoder_of(original)
    players: dict[str, Host] = {}
    for spec in replays(result):
        try:
            players[spec.graph + spec.name] = open_clone(result, spec)
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
    context.packed = any(has_branches(model) for model in result.graphs.values())
    if why := context.unplayable():
        tell(f"{base}: {why}: the clones are compared with the original on their own inputs only")
        limit(f"{base}: the past was full in every run; rows of it that hold no token were not tried")
    if context.by_run:
        limit(f"{base}: {BY_RUN}: logits depend on how a text is cut into runs, by up to {context.text.sums:.2g}")
    prompt = context.text.empty()
    for spec in sorted(specs, key=lambda spec: spec.role is SpecRole.DECODE):
        player = players[spec.graph + spec.name]
        try:
            if spec.role is SpecRole.PREFILL:
                prompt = context.prefill(player)
            else:
                context.decode(player, prompt.copy(), spec.k or 0)
            yield from context.drain_results(spec, player)
        except _BothReject as both:
            yield Replayed(spec.graph, _title(spec), skipped=f"the original rejects the same inputs: {both.what}")
        except (RunError, UsageError) as error:
            yield Replayed(spec.graph, _title(spec), failed=error.what)


def _title(spec: Specialization) -> str:
    return spec.role.value if spec.k is None else f"{spec.role.value} K={spec.k}"


class _BothReject(OnnxPassesError):
    """The runtime takes these sizes in neither graph."""


@dataclass
class _Context:
    """A text as the original reads it, of which ``length`` tokens are replayed, and what was compared since then."""

    text: Text
    length: int
    same_layout: bool
    static_past: bool
    twins: dict[str, Difference] = field(default_factory=dict[str, Difference])
    packed: bool = False
    runs: int = 0
    by_run: bool = False

    @classmethod
    def of(cls, program: Program, name: str, result: Program, players: list[Host], seed: int) -> _Context:
        contract = Contract.of(program, result)
        longest = max(player.length or 1 for player in players)
        room = min(player.ctx for player in players)
        model = observing(program.graphs[name], contract.chain.observed)
        outside = outside_sizes(Subject.of(model, name), [player.subject for player in players], contract.old_input)
        known = materialize(model, Clone(name, analysis_of(model).dimensions().complete(outside)), name)
        original = Host.of(model, f"{name} (original)", room, known)
        prompt = max((player.length or 1) for player in players)
        length = max(min(room - longest, prompt + TEXT), 1)
        ids = next(iter(original.subject.tables.values()), 64)
        batch = max(player.batch or 1 for player in players)
        tokens = np.random.default_rng([seed, length]).integers(0, ids, (batch, room + longest))
        same, fixed = same_layouts(original, players, contract.old_input), any(player.fixed_past for player in players)
        context = cls(Text(original, tokens, contract, max(sums_of(model), contract.closeness)), length, same, fixed)
        context.by_run = bool(scales_of_runs(model))
        if not context.unplayable():
            width = original.length or 1
            context.text.read([width] * -(-length // width), context._switched())
            context.length = len(context.text)
            if not context.text.whole:
                raise OnnxPassesError("the original gives no logits of some tokens", where=original.name)
        return context

    @property
    def original(self) -> Host:
        """The original as it is played."""
        return self.text.original

    @property
    def contract(self) -> Contract:
        """What leads from it to the clones."""
        return self.text.contract

    @property
    def batch(self) -> int:
        """How many texts are played."""
        return len(self.text.tokens)

    def unplayable(self) -> str:
        """Why clones cannot continue a text of their own: a fixed past without anything that hides its empty rows."""
        if not self.static_past:
            return ""
        given = [bool(self.original.subject.inputs(role)) for role in (Role.ATTENTION_MASK, Role.POSITIONS)]
        return "" if all(given) else "a growing cache of fixed length needs a mask and positions among the inputs"

    def prefill(self, player: Host) -> Caches:
        """Runs a prompt in one run, padded where the graph tells padding, and leaves its caches.

        A graph that cannot tell takes whole chunks only. Where it can, prompts of other lengths are read too, from
        nothing and behind a whole chunk.
        """
        length = player.length or 1
        if self.takes_whole(player):
            count = length if length <= player.ctx else 1
        else:
            room = min(self.length, player.ctx - length)
            count = max(1, min(length - length // 4, room))
            self._remainders(player, count)
        caches = self.text.empty()
        self._read(player, caches, 0, count)
        return caches

    def takes_whole(self, player: Host) -> bool:
        """Whether a prefill may not be padded: nothing tells padding, or the row that it answers does not heed it."""
        length = player.length or 1
        if player.whole or not player.pads or length == 1 or self.unplayable():
            return player.whole or not player.pads
        answers: list[np.ndarray] = []
        for padding in (0, 1):
            tokens = self.text.tokens[:, :length].copy()
            tokens[:, 1:] = padding
            rows = (0,) * len(tokens) if player.chooses_rows else None
            step = player.step(tokens[: player.batch or len(tokens)], 0, 1, rows[: player.batch] if rows else None)
            found = player.rows(player.run(self.text.empty(), step), step).values
            if found.shape[1] == length:
                return False  # every row is answered: that of the last token is known
            answers.append(found)
        return not np.array_equal(*answers, equal_nan=answers[0].dtype.kind == "f")

    def _remainders(self, player: Host, done: int) -> None:
        """Prompts of every other length up to the prefill's, or of some of them where they are many."""
        length, limit = player.length or 1, min(self.length, player.ctx)
        lengths = [count for count in range(1, length + 1) if count != done]
        whole: Caches | None = None
        for at, count in enumerate(lengths[:: max(1, len(lengths) // REMAINDERS)]):
            if at % 2 and 2 * length <= limit:
                if whole is None:
                    whole = self.text.empty()
                    self._read(player, whole, 0, length, alone=True)
                self._read(player, whole.copy(), length, count, alone=True)
            elif count <= limit:
                self._read(player, self.text.empty(), 0, count, alone=True)

    def _read(self, player: Host, caches: Caches, start: int, count: int, *, alone: bool = False) -> None:
        """One chunk of the text into every row, row by row where the graph takes fewer than there are."""
        every = tuple(range(self.batch))
        groups = [every] if player.batch in (None, self.batch) else [(row,) for row in every]
        for rows in groups if player.chooses_rows else [None]:
            tokens = self.text.tokens[list(rows or every)]
            width = player.length or count
            step = player.step(tokens[:, start : start + width], start, count, rows)
            self._run(player, caches, step, count, alone=alone)

    def decode(self, player: Host, caches: Caches, k: int) -> None:
        """Continues the text with proposals of K tokens, fewer and none, of which all, some or none are right."""
        length, number = player.length or k + 1, 0
        rows = tuple(range(self.batch)) if player.chooses_rows else None
        limit = min(self.length, player.ctx)
        if caches.held + length > limit:
            caches = self.text.empty()  # the prefill leaves no room behind it: the text begins anew
        while (start := caches.held) + length <= limit:
            made, right = proposals(k, number) if player.rewinds else (k, k)
            made = k if not player.pads and not player.rewinds else made
            tokens = self.text.tokens[:, start : start + length].copy()
            other = max(int(self.text.tokens.max()), 2)
            tokens[:, right + 1 : made + 1] = (tokens[:, right + 1 : made + 1] + 1) % other
            self._run(player, caches, player.step(tokens, start, made + 1, rows), right + 1)
            number += 1

    def _switched(self) -> Feed:
        """Switches that the result has set for good, as the original's inputs."""
        types = {value.name or "": value for value in self.original.subject.model.graph.inputs}
        named = {name: value for name, value in self.contract.fixed.items() if name in types}
        return {
            name: np.full([dim if isinstance(dim, int) else 1 for dim in dims_of(types[name]) or ()], value)
            for name, value in named.items()
        }

    def _run(self, player: Host, caches: Caches, step: Step, keep: int, *, alone: bool = False) -> None:
        """One run of a clone: its logits against those expected, its outputs against the original's on its inputs.

        ``alone``: not on its inputs.
        """
        self.runs += 1
        feed = self.text.adapted(player, player.feeds(caches, step), step)
        theirs = self._of_original(player, feed, step) if self.same_layout and not alone else {}
        outputs = player.session.run(feed)
        player.take(caches, step, outputs, keep)
        self._twin(player, theirs, outputs, feed, step)
        self.text.hold(player, outputs, step, [keep] * len(step.ids))

    def _of_original(self, player: Host, feed: Feed, step: Step) -> Feed:
        """What a clone must give on its inputs by what the original gives; _BothReject where it does not take them."""
        known = {value.name or "": value.dtype for value in self.original.subject.model.graph.inputs}
        given, roles = self.contract.chain.restored(feed), self.original.subject.roles
        for name, array in self.text.told(step).items():  # what folding left unread of a clone, its original takes
            if roles[name] in _TOKENS or (name not in given and roles[name] is not Role.STATE):
                given[name] = array
        given = {name: _typed(array, known[name]) for name, array in given.items() if name in known}
        try:
            outputs = self.original.session.run(given)
        except RunError as error:
            raise _BothReject(error.what) from error
        return self.contract.on(player.subject.name).expected(outputs, given)

    def _twin(self, player: Host, theirs: Feed, outputs: Mapping[str, np.ndarray], feed: Feed, step: Step) -> None:
        """Holds a clone's outputs against the original's: those of the same shape must be the same bit for bit.

        In a branch the runtime does not pack weights beforehand, and takes another kernel for it.
        """
        allowed = max(OTHER_SUMS if self.packed else 0.0, self.contract.closeness)
        for name, array in outputs.items():
            other = theirs.get(name)
            best = self.packed and name == player.answer and array.dtype.kind in "iu"  # of logits that sums changed
            if other is None or other.shape != array.shape or best:
                continue
            found = compare(name, other, array, allowed)
            if (
                not found.equal
                and (again := self._of_original(player, feed, step).get(name)) is not None
                and not compare(name, other, again).equal
            ):
                continue  # the original's own answer changes from run to run: rows that it never wrote
            kept = self.twins.get(name)
            self.twins[name] = found if kept is None or kept.equal or not found.equal else kept

    def drain_results(self, spec: Specialization, player: Host) -> Iterator[Replayed]:
        """What was compared since the last call."""
        title, claim = f"{_title(spec)}, {self.runs} runs", spec.name or spec.graph
        twins, rows = self.twins, self.text.differences(player)
        self.twins, self.runs = {}, 0
        if self.by_run and spec.k:
            yield Replayed(spec.graph, title, skipped=f"{BY_RUN}: a run with proposals is not plain decoding")
            return
        if twins:
            yield Replayed(spec.graph, f"{title}, the original on the same inputs", tuple(twins.values()), claim=claim)
        if rows:
            yield Replayed(spec.graph, f"{title}, the original token by token", rows, claim=claim)
        if not twins and not rows:
            yield Replayed(spec.graph, title, skipped="no run gave an output to compare")


def _typed(array: np.ndarray, dtype: ir.DataType | None) -> np.ndarray:
    """An array in the element type that the original takes: ids and masks may be narrower in its clones."""
    wanted = array.dtype if dtype is None else dtype.numpy()
    return array if array.dtype == wanted else array.astype(wanted)


def proposals(k: int, step: int) -> tuple[int, int]:
    """How many tokens a step proposes and how many of them are right: long, partial, long, none …"""
    made = (k, max(k - 1, 0), k, 0, k, k // 2)[step % 6]
    right = (made, made // 2, 0, 0, max(made - 1, 0), made)[step % 6]
    return made, right
