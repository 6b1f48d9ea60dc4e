"""A contract of a package that is not here is kept as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..contract import Contract

NOT_INSTALLED = "is of a package that is not installed"


@dataclass(frozen=True)
class UnknownContract(Contract):
    """A contract whose class is not here: kept as it was written, and nothing can be verified against it.

    Attributes:
        name: The kind that the entry has.
        content: The entry.
        why: Why there is no class.
    """

    kind: ClassVar[str] = "unknown"
    compared: ClassVar[str] = "nothing: verify refuses"
    unseen: ClassVar[str] = "all that it says"
    assumes: ClassVar[bool] = True
    knows_names: ClassVar[bool] = False

    name: str = ""
    content: Mapping[str, Any] = field(default_factory=dict[str, Any])
    why: str = field(default=NOT_INSTALLED, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The entry as it was read."""
        return dict(self.content)

    def sentence(self) -> str:
        """As people read it."""
        return f"contract {self.name} {self.why}"
