"""Half precision is recorded: how far outputs may lie from the original's, and what a CPU cannot show of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..contract import Contract


@dataclass(frozen=True)
class HalfPrecision(Contract):
    """Operators compute in half precision where their numbers were proved to fit.

    Attributes:
        dtype: float16 or bfloat16.
        close: How far outputs may lie from the original's, over each output's largest value.
    """

    kind: ClassVar[str] = "half-precision"
    compared: ClassVar[str] = "outputs lie within 2e-3 (bfloat16: 2e-2) of each output's largest value"
    unseen: ClassVar[str] = (
        "overflow, for onnxruntime's CPU computes chains of halves in float32; `compare` rounds every result"
    )

    dtype: str = "float16"
    close: float = 2e-3

    @property
    def closeness(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]  a field of this contract
        """What rounding leaves."""
        return self.close

    def tolerance(self, name: str, found: object) -> float:
        """The same for every output."""
        return self.close

    def sentence(self) -> str:
        """As people read it."""
        return f"operators compute in {self.dtype}: outputs lie within {self.close:g} of the largest value"
