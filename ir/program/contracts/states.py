"""Contracts on carried states say that they were taken out, have another layout, or a fixed length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...states.start import Start
from ..contract import Array, Arrays, Contract, ContractBroken, Side, port


@dataclass(frozen=True)
class StatesRemoved(Contract):
    """Carried states are gone: the result is a first run of the graph before, from states that hold ``start``.

    Attributes:
        inputs: The inputs that went.
        outputs: The outputs that went.
        start: What a first run starts from.
        starts: By input what other states start from.
    """

    kind: ClassVar[str] = "states-removed"
    compared: ClassVar[str] = "the original runs once from empty states"
    unseen: ClassVar[str] = "runs that continue: the result has none"

    inputs: tuple[str, ...] = port(Side.BEFORE)
    outputs: tuple[str, ...] = port(Side.BEFORE, default=())
    start: float = 0.0
    starts: Mapping[str, Start] = field(default_factory=dict[str, Start])

    def constrained(self, feeds: Arrays) -> dict[str, Array]:
        """Every state as a first run has it."""
        return {name: self._first(name, array) if name in self.inputs else array for name, array in feeds.items()}

    def holds(self, feeds: Arrays) -> None:
        """Raises ContractBroken for a state that holds anything else."""
        for name in self.inputs:
            if name in feeds and (feeds[name] != self._first(name, feeds[name])).any():
                raise ContractBroken(
                    "the result has the values that the state starts from"
                    if name in self.starts
                    else "the result starts from an empty state",
                    where=f"input {name!r}",
                    found="other values" if name in self.starts else "values",
                    hint="Leave it out, and an empty one is used."
                    if name not in self.starts
                    else "Leave it out, and they are used.",
                )

    def _first(self, name: str, array: Array) -> Array:
        return self.starts[name].like(array) if name in self.starts else np.full_like(array, self.start)

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """Without the states."""
        return {name: array for name, array in feeds.items() if name not in self.inputs}

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """Without the states."""
        return {name: array for name, array in outputs.items() if name not in self.outputs}

    def sentence(self) -> str:
        """As people read it."""
        told = [
            f"{name} from {start.values[0]:g}" if len(start.values) == 1 else f"{name} from values of its own"
            for name, start in self.starts.items()
        ]
        return ", but ".join([f"states removed: {len(self.inputs)}, each starts from {self.start:g}", *told[:4]])


@dataclass(frozen=True)
class LayoutChanged(Contract):
    """Carried states are updated in another way: the host that carries them must carry the new form.

    Attributes:
        inputs: The states' inputs.
        outputs: The states' outputs, in the same order.
        before: Their layout before.
        after: Their layout now.
    """

    kind: ClassVar[str] = "layout-changed"
    compared: ClassVar[str] = (
        "texts go through both graphs chunk by chunk, each with caches of its own form, and logits are compared"
    )
    unseen: ClassVar[str] = "the bytes of the caches themselves, whose shapes differ"

    inputs: tuple[str, ...] = port()
    outputs: tuple[str, ...] = port()
    before: str = ""
    after: str = ""

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """Without the states: their shapes are others now, and the host that runs the result starts its own."""
        return {name: array for name, array in feeds.items() if name not in self.inputs}

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """Without the states: their shapes are others now."""
        return {name: array for name, array in outputs.items() if name not in self.outputs}

    def sentence(self) -> str:
        """As people read it."""
        return f"layout changed: {len(self.inputs)} states, {self.before} to {self.after}"


@dataclass(frozen=True)
class StaticPast(Contract):
    """Caches that grow have a fixed length, and the attention mask hides the rows that hold no token.

    Attributes:
        inputs: The caches' inputs.
    """

    kind: ClassVar[str] = "static-past"
    compared: ClassVar[str] = "a text begins with every cache row hidden, where a mask and positions are inputs"
    unseen: ClassVar[str] = "rows that hold no token, where nothing can hide them: reported as `not exercised`"
    assumes: ClassVar[bool] = True

    inputs: tuple[str, ...] = port(default=())

    def sentence(self) -> str:
        """As people read it."""
        return "growing caches have a fixed length: rows that hold no token are hidden by the attention mask"
