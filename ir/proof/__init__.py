"""Specializations are proved to fit a graph: every rule is a file, and a failure says how to mend it."""

from ..program.contracts.sizes import Claims
from .case import Case, Failure, Proof, Verdict, View
from .prove import prove, prove_program

__all__ = ["Case", "Claims", "Failure", "Proof", "Verdict", "View", "prove", "prove_program"]
