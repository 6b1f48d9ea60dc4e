"""Hidden rows that leave a clone are held against what the original computes for the same tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..decode.step import Step
from .compare import Difference, compare, ulp_tolerance
from .contract import Contract

Rows = list[np.ndarray]


@dataclass(eq=False)
class TappedRows:
    """``inner`` are the original's values that leave the result; ``expected`` their rows, one token after another."""

    contract: Contract
    inner: Collection[str]
    expected: dict[str, Rows] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, contract: Contract) -> TappedRows:
        """For what the contracts observe."""
        return cls(contract, {value.name for value in contract.chain.observed})

    def expect(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Takes the rows of the original's next tokens, ``[batch, tokens, width]``."""
        for name in self.inner:
            if name in outputs and outputs[name].ndim > 2:
                self.expected[name] += list(outputs[name].swapaxes(0, 1))

    def found(self, outputs: Mapping[str, np.ndarray], step: Step, keep: int) -> None:
        """Takes a run of a clone, of which the first ``keep`` tokens belong to the text."""
        start = int(step.past[0])
        for name, array in outputs.items():
            rows = self.expected.get(self.contract.old_output(name), [])
            if rows and array.ndim > 2 and array.shape[1] == step.width:
                for row in range(min(keep, step.width, len(rows) - start)):
                    self.pairs[name].append((rows[start + row][step.rows], array[:, row]))

    def differences(self, sums: float) -> tuple[Difference, ...]:
        """What was found since the last call, within what another order of sums changes."""
        found: list[Difference] = []
        for name, pairs in self.pairs.items():
            ours, theirs = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
            found.append(compare(name, ours, theirs, max(sums, 4 * ulp_tolerance(ours))))
        self.pairs.clear()
        return tuple(found)
