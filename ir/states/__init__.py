"""States of a graph: what they are and how they are found."""

from .base import Layout, Pairing, State
from .find import find_states

__all__ = ["Layout", "Pairing", "State", "find_states"]
