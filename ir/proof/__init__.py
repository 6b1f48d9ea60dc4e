"""The proof that specializations fit a graph: every rule of every floor, and failures that say how to mend them."""

from ..program.contracts import Claims
from .case import Case, Failure, Proof, Verdict, View
from .prove import prove, prove_program

__all__ = ["Case", "Claims", "Failure", "Proof", "Verdict", "View", "prove", "prove_program"]
