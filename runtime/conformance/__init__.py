"""Cases of manifests as another tool answers them, run against our own functions."""

from .cases import Outcome, Result
from .run import Conformance, run_cases
from .sections import SECTIONS

__all__ = ["SECTIONS", "Conformance", "Outcome", "Result", "run_cases"]
