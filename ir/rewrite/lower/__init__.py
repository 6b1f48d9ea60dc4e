"""Fused operators in standard ones: a table row an operator, and the run over a graph."""

from .emitter import Layout
from .run import Lowered, lower_graph
from .table import ROWS, Row

__all__ = ["ROWS", "Layout", "Lowered", "Row", "lower_graph"]
