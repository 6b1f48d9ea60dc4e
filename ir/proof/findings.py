"""Findings are what stands against rejected tokens being rolled back, and what a host should know of it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """Why a step of K proposals cannot be taken back: the place, the reason, and what would help."""

    where: str
    reason: str
    help: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass
class Findings:
    """What was found for the largest K; safe where there is no problem."""

    problems: list[Problem] = field(default_factory=list[Problem])
    warnings: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    states: int = 0

    def problem(self, where: str, reason: str, remedy: str) -> None:
        """Adds one, each reason once for all states that share it."""
        self.problems.append(Problem(where, reason, remedy))

    @property
    def reasons(self) -> dict[str, list[Problem]]:
        """The problems by reason, in order."""
        found: dict[str, list[Problem]] = {}
        for problem in self.problems:
            found.setdefault(problem.reason, []).append(problem)
        return found
