"""What half precision leaves open is compared in float32: a runtime rounds, or cannot run it, as its kernels allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...ir.core.errors import OnnxPassesError
from .report import Verdict, VerifyReport

NOISE = 0.05  # of the largest value: more than this is no rounding

Found = TypeVar("Found")
Run = Callable[[VerifyReport], Found]


def settle(report: VerifyReport, name: str, run: Run[Found], wide: Callable[[], Run[Found] | None]) -> Found:
    """Runs ``run``, and where rounding may be all that differs, or kernels are missing, what ``wide`` gives.

    ``wide`` gives the same comparison of graphs without half precision, None where there are none. onnxruntime computes
    some operators of such a graph in float32, which ones depends on their neighbours: two graphs that are the same
    computation then differ in the last places. In float32 they must be equal by the same rule as others.
    """
    first = report.blank()
    value = run(first)
    again = wide() if _is_open(first) else None
    if again is None:
        report.take(first)
        return value
    second = report.blank()
    try:
        other = again(second)
    except OnnxPassesError:
        report.take(first)
        return value
    decided = second.equal or (bool(first.structure) and second.verdict is Verdict.DIFFERENT)
    if decided:
        second.notes.append(f"{name}: {_why(first)}: both were run in float32 throughout")
    report.take(second if decided else first)
    return other if decided else value


def _is_open(found: VerifyReport) -> bool:
    """True where nothing was run for want of a kernel, or where all that differs is as small as rounding."""
    if found.verdict is not Verdict.DIFFERENT:
        return bool(found.structure)
    outputs = [output for case in found.cases for output in case.outputs if not output.equal]
    failed = any(case.failed for case in found.cases)
    # token ids that are chosen in the graph: what was rounded shows in which is the largest, not in how large
    return not failed and all(o.integers or (o.max_rel <= NOISE and not o.nans) for o in outputs)


def _why(found: VerifyReport) -> str:
    if found.structure:
        return next(iter(found.missing), "a kernel is missing")
    floats = [o.max_rel for case in found.cases for o in case.outputs if not o.equal and not o.integers]
    what = f"differs by {max(floats):.2g} of the largest value" if floats else "decides which token is the likeliest"
    return f"in half precision the runtime's rounding {what}"
