"""States are found by structure: an input, an output, and how the graph updates one into the other."""

from .base import Branch, Pairing, State
from .find import find_states
from .layouts import TRAITS, Layout, Traits

__all__ = ["TRAITS", "Branch", "Layout", "Pairing", "State", "Traits", "find_states"]
