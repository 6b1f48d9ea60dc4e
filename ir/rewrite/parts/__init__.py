"""A decoder becomes parts one after the other, each a graph of its own, and parts become one graph again."""

from __future__ import annotations

from .boundaries import Boundaries, Stretch, find_stretches
from .cut import PartCut, cut_parts, stretch_weights
from .join import join

__all__ = ["Boundaries", "PartCut", "Stretch", "cut_parts", "find_stretches", "join", "stretch_weights"]
