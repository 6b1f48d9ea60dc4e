"""A report says what a verification found: case by case, in one verdict, and as plain data."""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from ...ir.core.errors import NotEqualError
from ..session.settings import runtime_record
from .compare import Difference


class Verdict(enum.Enum):
    """What a verification found."""

    EQUAL = "equal"
    DIFFERENT = "different"
    STRUCTURE_ONLY = "structure only"  # no kernel to run it with; the structural checks passed
    NOT_RUN = "not run"  # nothing could be compared
    NOT_VERIFIED = "not verified"  # what ran is equal, but some graph of the result did not run in a role it claims


@dataclass(frozen=True)
class CaseReport:
    """One case of one pair of graphs: compared, skipped (with the reason), or failed in the result only."""

    graph: str
    case: str
    outputs: tuple[Difference, ...] = ()
    skipped: str = ""
    failed: str = ""
    claim: str = ""  # the specialization that was run, where the graph has any

    @property
    def ran(self) -> bool:
        """Whether both graphs computed something that was compared."""
        return not self.skipped and not self.failed and bool(self.outputs)

    @property
    def equal(self) -> bool:
        """True for a skipped case too: it says nothing against the result."""
        return not self.failed and all(output.equal for output in self.outputs)


@dataclass
class VerifyReport:
    """What was run, how far the outputs are apart, what was left out and why.

    Attributes:
        claims: Each graph of the result, with each specialization that names it.
        limits: What was not exercised: assumptions that every case kept by the way it was built.
        optional: Inputs with a default that were fed in some cases and left out in others.
    """

    tolerance: float = 0.0
    ulp: bool = False
    seed: int = 0
    cases: list[CaseReport] = field(default_factory=list[CaseReport])
    notes: list[str] = field(default_factory=list[str])
    structure: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])  # kernels, as the runtime names them
    claims: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    limits: list[str] = field(default_factory=list[str])
    optional: list[str] = field(default_factory=list[str])
    runtime: dict[str, Any] = field(default_factory=runtime_record)

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
        self.cases.extend(other.cases)
        self.notes.extend(other.notes)
        self.structure.extend(other.structure)
        self.missing.extend(other.missing)
        self.limits.extend(other.limits)
        self.optional.extend(name for name in other.optional if name not in self.optional)

    @property
    def runs(self) -> int:
        """How many cases both graphs ran."""
        return sum(case.ran for case in self.cases)

    @property
    def not_verified(self) -> list[str]:
        """The claims of the result that no case ran: a graph, and the specialization where it has any.

        Where a graph's specializations were run one by one, a run of the graph as a whole stands for none of them.
        """
        ran = {name for case in self.cases if case.ran for name in ((case.graph, case.claim), (case.graph, ""))}
        by_claim = {graph for graph, claim in ran if claim}
        whole = {case.graph for case in self.cases if case.ran and not case.claim and case.graph not in by_claim}
        left = [(graph, claim) for graph, claim in self.claims if graph not in whole and (graph, claim) not in ran]
        return [f"{graph}: {claim}" if claim and claim != graph else graph for graph, claim in left]

    @property
    def verdict(self) -> Verdict:
        """Equal only if every graph ran in every role it claims, and everything that ran is equal."""
        if not all(case.equal for case in self.cases):
            return Verdict.DIFFERENT
        if self.structure:
            return Verdict.STRUCTURE_ONLY
        if not self.runs:
            return Verdict.NOT_RUN
        return Verdict.NOT_VERIFIED if self.not_verified else Verdict.EQUAL

    @property
    def equal(self) -> bool:
        """True where every graph of the result ran in every role it claims and nothing differed."""
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
        more |= {"not_verified": self.not_verified}
        cases = [asdict(case) | {"equal": case.equal} for case in self.cases]
        rest = {name: value for name, value in vars(self).items() if name not in ("cases", "missing")}
        return _plain({**totals, **more, **rest, "cases": cases})

    def raise_if_different(self) -> None:
        """Raises NotEqualError with the first difference, or because nothing ran; structure alone is no difference."""
        if self.verdict is Verdict.DIFFERENT:
            raise NotEqualError(self.first_difference)
        if self.verdict is Verdict.NOT_RUN:
            raise NotEqualError("nothing could be run, so nothing is proved", found="; ".join(self.notes) or None)
        if self.verdict is Verdict.NOT_VERIFIED:
            raise NotEqualError("not every graph was run", found=", ".join(self.not_verified))


def _plain(data: Any) -> Any:
    """JSON has no infinity: a shape that differs by more than any number is null."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in cast("dict[str, Any]", data).items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in cast("list[Any]", data)]
    return None if isinstance(data, float) and not math.isfinite(data) else data
