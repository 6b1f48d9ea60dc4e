"""Heads that answer a task in the graph are made here: vectors of hidden rows, scores of chosen words."""

from .hidden import Hidden, find_hidden
from .idle import drop_outputs
from .pooling import Pooler, PoolKind
from .vocabulary import Vocabulary

__all__ = ["Hidden", "PoolKind", "Pooler", "Vocabulary", "drop_outputs", "find_hidden"]
