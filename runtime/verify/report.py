"""What a verification found: case by case, in one verdict, and as plain data."""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from ...ir.core.errors import NotEqualError
from .compare import Difference


class Verdict(enum.Enum):
    """What a verification found."""

    EQUAL = "equal"
    DIFFERENT = "different"
    STRUCTURE_ONLY = "structure only"  # no kernel to run it with; the structural checks passed
    NOT_RUN = "not run"  # nothing could be compared


@dataclass(frozen=True)
class CaseReport:
    """One case of one pair of graphs: compared, skipped (with the reason), or failed in the result only."""

    graph: str
    case: str
    outputs: tuple[Difference, ...] = ()
    skipped: str = ""
    failed: str = ""

    @property
    def equal(self) -> bool:
        """True for a skipped case too: it says nothing against the result."""
        return not self.failed and all(output.equal for output in self.outputs)


@dataclass
class VerifyReport:
    """What was run, how far the outputs are apart, what was left out and why."""

    tolerance: float = 0.0
    ulp: bool = False
    seed: int = 0
    cases: list[CaseReport] = field(default_factory=list[CaseReport])
    notes: list[str] = field(default_factory=list[str])
    structure: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])  # kernels, as the runtime names them

    def blank(self) -> VerifyReport:
        """An empty report under the same rules."""
        return VerifyReport(self.tolerance, self.ulp, self.seed)

    def lacks(self, kernel: str, place: str = "") -> None:
        """Notes that a kernel is missing, so that graphs are compared by structure only."""
        self.missing.append(kernel)
        self.notes.append(f"{place}{kernel}: compared by structure only")

    def take(self, other: VerifyReport) -> None:
        """Adds what another report found."""
        self.tolerance = max(self.tolerance, other.tolerance)
        own = (self.cases, self.notes, self.structure, self.missing)
        for mine, found in zip(own, (other.cases, other.notes, other.structure, other.missing), strict=True):
            mine.extend(found)  # pyright: ignore[reportArgumentType]

    @property
    def runs(self) -> int:
        """How many cases both graphs ran."""
        return sum(not case.skipped and not case.failed for case in self.cases)

    @property
    def verdict(self) -> Verdict:
        """Equal only if something ran, everything that ran is equal, and no graph was left to its structure."""
        if not all(case.equal for case in self.cases):
            return Verdict.DIFFERENT
        if self.structure:
            return Verdict.STRUCTURE_ONLY
        return Verdict.EQUAL if self.runs else Verdict.NOT_RUN

    @property
    def equal(self) -> bool:
        """True where both ran and nothing differed."""
        return self.verdict is Verdict.EQUAL

    @property
    def max_abs(self) -> float:
        """The largest difference of any output."""
        return max((output.max_abs for case in self.cases for output in case.outputs), default=0.0)

    @property
    def max_rel(self) -> float:
        """The largest difference of any output, over that output's largest value."""
        return max((output.max_rel for case in self.cases for output in case.outputs), default=0.0)

    @property
    def first_difference(self) -> str:
        """The first output that differs, or the first failure, as one sentence; empty where there is none."""
        for case in self.cases:
            if case.failed:
                return f"{case.graph}: {case.case}: only the result rejects it: {case.failed}"
            for output in case.outputs:
                if not output.equal:
                    at = f" first at {list(output.first)}" if output.first is not None else ""
                    return f"{case.graph}: {case.case}: {output.output}: {output.why}{at}, max abs {output.max_abs:.3g}"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        totals = {"verdict": self.verdict.value, "equal": self.equal, "runs": self.runs, "max_abs": self.max_abs}
        more = {"max_rel": self.max_rel, "first_difference": self.first_difference}
        cases = [asdict(case) | {"equal": case.equal} for case in self.cases]
        rest = {name: value for name, value in vars(self).items() if name not in ("cases", "missing")}
        return _plain({**totals, **more, **rest, "cases": cases})

    def raise_if_different(self) -> None:
        """Raises NotEqualError with the first difference, or because nothing ran; structure alone is no difference."""
        if self.verdict is Verdict.DIFFERENT:
            raise NotEqualError(self.first_difference)
        if self.verdict is Verdict.NOT_RUN:
            raise NotEqualError("nothing could be run, so nothing is proved", found="; ".join(self.notes) or None)


def _plain(data: Any) -> Any:
    """JSON has no infinity: a shape that differs by more than any number is null."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in cast("dict[str, Any]", data).items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in cast("list[Any]", data)]
    return None if isinstance(data, float) and not math.isfinite(data) else data
