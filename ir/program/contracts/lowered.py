"""Contracts of spelled-out operators say how close sums stay, where padding stands, and which caches got longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..contract import Array, Arrays, Contract, port


@dataclass(frozen=True)
class OperatorsLowered(Contract):
    """Fused operators were spelled out, so that sums come in another order.

    Attributes:
        close: How far outputs may lie from the original's, over each output's largest value.
    """

    kind: ClassVar[str] = "operators-lowered"
    compared: ClassVar[str] = "outputs lie within what the operator table states, over each output's largest value"
    unseen: ClassVar[str] = "an error smaller than that"

    close: float = 0.0

    @property
    def closeness(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]  a field of this contract
        """What the rows of the operator table state."""
        return self.close

    def sentence(self) -> str:
        """As people read it."""
        return f"operators were spelled out: outputs lie within {self.close:g} of the largest value"


@dataclass(frozen=True)
class RightPadded(Contract):
    """Tokens are counted, so that padding stands behind them.

    Attributes:
        mask: The attention mask that is summed.
    """

    kind: ClassVar[str] = "right-padded"
    compared: ClassVar[str] = "rows are full, right-padded and ragged"
    unseen: ClassVar[str] = "left padding, which the result may not be fed"
    assumes: ClassVar[bool] = True

    mask: str = port(default="")

    def sentence(self) -> str:
        """As people read it."""
        return f"{self.mask}: tokens are counted, so padding stands behind them"


@dataclass(frozen=True)
class WholePast(Contract):
    """An output holds the whole past where the original's held its last rows alone; the two are not compared.

    Attributes:
        output: The present of a cache.
    """

    kind: ClassVar[str] = "whole-past"
    compared: ClassVar[str] = "every output but this cache"
    unseen: ClassVar[str] = "the cache that is longer than the original's"
    assumes: ClassVar[bool] = True

    output: str = port(default="")

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """All but that output."""
        return {name: array for name, array in outputs.items() if name != self.output}

    def sentence(self) -> str:
        """As people read it."""
        return f"{self.output}: holds the whole past, not the last rows of it alone"


def contracts_of(
    tolerance: float, right_padded: Sequence[str] = (), whole_pasts: Sequence[str] = ()
) -> tuple[Contract, ...]:
    """What a lowering says: how close outputs stay, which inputs pad on the right, which caches hold the whole past."""
    return OperatorsLowered(tolerance), *map(RightPadded, right_padded), *map(WholePast, whole_pasts)
