"""States of a graph: what they are and how they are found."""

from .base import Branch, Pairing, State
from .find import find_states
from .layouts import TRAITS, Layout, Traits

__all__ = ["TRAITS", "Branch", "Layout", "Pairing", "State", "Traits", "find_states"]
