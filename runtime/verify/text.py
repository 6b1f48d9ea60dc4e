"""A text is read by an original once; whatever a result answers for tokens of it is held against that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.interface.roles import Role
from ...ir.states import Layout
from ..decode.host import Host
from ..decode.kv_cache import Caches
from ..decode.step import TOLD, Step
from .adapted import of_contract
from .closeness import compare_rows
from .compare import Difference, compare, ulp_tolerance
from .contract import Contract

Feed = dict[str, np.ndarray]
Pairs = list[tuple[np.ndarray, np.ndarray]]


def untold(host: Host, built: Mapping[str, np.ndarray]) -> Feed:
    """Of a first run's inputs those that no step tells: what comes from outside, and states that are only read."""
    fixed = {state.name for state in host.subject.states if not state.traits.changes}
    roles = host.subject.roles
    free = [name for name in host.inputs if roles[name] not in (*TOLD, Role.STATE) or name in fixed]
    return {name: built[name] for name in free if name in built}


def line_of(arrays: Mapping[str, np.ndarray], row: int, rows: int) -> Feed:
    """What one of several texts is fed of arrays with a line for each, and all of any other."""
    return {n: a[row : row + 1] if rows > 1 and a.ndim and len(a) == rows else a for n, a in arrays.items()}


@dataclass(eq=False)
class Text:
    """Texts of a batch, and what the original says of them.

    Attributes:
        tokens: INT64 ``[batch, length]``.
        sums: How far another order of sums may carry.
        expected: Output of the original -> what follows each token, ``[batch, …]``; of the answer, and of values inside
            that contracts observe.
        pairs: Output of a result -> what was expected and found since the last report, a token of a row each.
    """

    original: Host
    tokens: np.ndarray
    contract: Contract
    sums: float
    expected: dict[str, list[np.ndarray | None]] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[str, Pairs] = field(default_factory=lambda: defaultdict(list))

    def __len__(self) -> int:
        """How many tokens the original has read."""
        return len(self.expected[self.original.answer])

    @property
    def whole(self) -> bool:
        """Whether the original answered every token that it read."""
        return all(row is not None for row in self.expected[self.original.answer])

    def empty(self) -> Caches:
        """Caches of these texts, without a token."""
        return Caches(len(self.tokens))

    def lines(self, host: Host) -> list[Text]:
        """The texts as a graph takes them: together, or each alone, the pairs in common.

        Fused ones of onnxruntime 1.32: "batch_size must be 1 when sequence_length > 1 and past context is given".
        """
        if host.batch is not None or all(state.inside is not Layout.FUSED for state in host.changing):
            return [self]
        parts = [Text(self.original, line[None], self.contract, self.sums, pairs=self.pairs) for line in self.tokens]
        for row, part in enumerate(parts):
            for name, known in self.expected.items():
                part.expected[name] = [None if array is None else array[row : row + 1] for array in known]
        return parts

    def read_apart(self, widths: Sequence[int]) -> None:
        """As `read`, each text alone where the original takes no others beside it."""
        given, parts = untold(self.original, self.original.first(len(self.tokens), 1)), self.lines(self.original)
        for row, part in enumerate(parts):
            part.read(widths, line_of(given, row, len(parts)))
        if len(parts) > 1:
            for name in parts[0].expected:
                rows = zip(*(part.expected[name] for part in parts), strict=True)
                self.expected[name] = [None if row[0] is None else np.concatenate(row) for row in rows]

    def read(self, widths: Iterable[int], others: Mapping[str, np.ndarray] | None = None) -> None:
        """The original reads on from the beginning, so many tokens a run. Raises RunError where it rejects them."""
        caches, start, host = self.empty(), 0, self.original
        rows = tuple(range(len(self.tokens))) if host.chooses_rows else None
        inner = {value.name for value in self.contract.chain.observed} - {host.answer}
        for width in widths:
            step = host.step(self.tokens[:, start : start + width], start, width, rows)
            outputs = host.run(caches, step, others=others)
            answers, start = host.rows(outputs, step), start + width
            first = [None] * int(answers.first[0])
            self.expected[host.answer] += [*first, *answers.values.swapaxes(0, 1)]
            for name in inner & outputs.keys():
                if outputs[name].ndim > 2:
                    self.expected[name] += list(outputs[name].swapaxes(0, 1))

    def adapted(self, player: Host, feed: Feed, step: Step) -> Feed:
        """A result's feeds, its tokens and adapters as the contracts turn those of the original."""
        after = self.contract.on(player.name).adapt_inputs(self.told(step))
        return feed | of_contract(player.subject, after, feed)

    def told(self, step: Step) -> Feed:
        """The original's inputs in a step, from an empty past: what a contract makes the result's tokens of.

        Without its optional ones: they are left out, and a result that was fed them would compute something else.
        """
        host, rows = self.original, len(step.ids)
        adapters = [value.name or "" for value in host.subject.inputs(Role.ADAPTER)]  # the same in runs of any length
        lasting = {name: host.first(rows, 1)[name] for name in adapters}
        fed = host.first(rows, step.width) | lasting | host.bind(len(self.tokens))[1].feeds(step)
        return {name: array for name, array in fed.items() if name in host.inputs}

    def hold(self, player: Host, outputs: Mapping[str, np.ndarray], step: Step, keep: Iterable[int]) -> None:
        """Holds a run's outputs against what is expected: of each row's tokens the first ``keep`` are the text's."""
        answers = player.rows(outputs, step)
        found = {player.answer: (self.original.answer, answers.values, answers.first)}
        for name, array in outputs.items():
            old = self.contract.old_output(name)
            if old in self.expected and name != player.answer and array.ndim > 2 and array.shape[1] == step.width:
                found[name] = old, array, np.zeros(len(array), np.int64)
        for name, (old, array, first) in found.items():
            known = self.expected[old]
            for row, (begin, count, start) in enumerate(zip(first, keep, step.past, strict=True)):
                for token in range(begin, min(count, len(known) - start, begin + array.shape[1])):
                    if (expected := known[start + token]) is not None:
                        self.pairs[name].append((expected[step.rows[row]], array[row, token - begin]))

    def differences(self, player: Host) -> tuple[Difference, ...]:
        """What was found since the last call: of the answer its numbers and its tokens."""
        found: list[Difference] = []
        for name, pairs in self.pairs.items():
            expected, given = (np.stack([pair[side] for pair in pairs])[:, None] for side in (0, 1))
            if name == player.answer:
                expected = self.contract.answered(player.name, name, expected, given)
                found += compare_rows(expected, given, self.sums)
            else:
                found.append(compare(name, expected, given, max(self.sums, 4 * ulp_tolerance(expected))))
        self.pairs.clear()
        return tuple(found)
