"""A proposer follows one text token by token and guesses what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class Proposer(Protocol):
    """Guesses the continuation of one text."""

    def extend(self, tokens: Iterable[int]) -> None:
        """Takes in what the text went on with."""
        ...

    def propose(self, k: int) -> list[int]:
        """At most ``k`` tokens that may come next; none where it has no guess."""
        ...

    def finish(self) -> None:
        """The text is complete; what it taught may stay for others."""
        ...


Source = Callable[[], Proposer]
"""Opens a proposer for a new text."""


class Nothing:
    """Never proposes: plain decoding."""

    def extend(self, tokens: Iterable[int]) -> None:
        """Needs nothing."""

    def propose(self, k: int) -> list[int]:
        """Nothing."""
        return []

    def finish(self) -> None:
        """Keeps nothing."""
