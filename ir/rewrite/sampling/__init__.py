"""Tokens are drawn behind the logits: penalties for what was said, bounds, one random number a row."""

from .draw import Bounds, Draw
from .penalties import Penalties, Said

__all__ = ["Bounds", "Draw", "Penalties", "Said"]
