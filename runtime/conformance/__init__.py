"""Cases of manifests that another tool answered are run against our own functions."""

from .cases import Outcome, Result
from .run import Conformance, run_cases
from .sections import SECTIONS

__all__ = ["SECTIONS", "Conformance", "Outcome", "Result", "run_cases"]
