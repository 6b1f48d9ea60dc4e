"""One sweep propagates the symbolic shape of every value and the content of small integer tensors."""

from .engine import propagate
from .facts import Clash, Facts, IntTensor, Shape, Trust

__all__ = ["Clash", "Facts", "IntTensor", "Shape", "Trust", "propagate"]
