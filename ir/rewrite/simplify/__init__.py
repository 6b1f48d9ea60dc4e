"""The simplify pass stands on one round of folding over all scopes of a graph."""

from .round import simplify_round

__all__ = ["simplify_round"]
