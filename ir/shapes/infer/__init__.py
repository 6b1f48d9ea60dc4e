"""Symbolic propagation: the shape of every value and the content of small integer tensors, in one sweep."""

from .engine import propagate
from .facts import Clash, Facts, IntTensor, Shape, Trust

__all__ = ["Clash", "Facts", "IntTensor", "Shape", "Trust", "propagate"]
