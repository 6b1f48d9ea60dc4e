"""Heads that answer a task in the graph are made here: vectors of hidden rows, scores of chosen words."""

from .hidden import Hidden, find_hidden
from .idle import drop_outputs
from .pooling import Pooler, PoolKind

__all__ = ["Hidden", "PoolKind", "Pooler", "drop_outputs", "find_hidden"]
