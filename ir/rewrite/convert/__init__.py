"""States are converted between layouts by one table from layout and target to the functions that do it."""

from __future__ import annotations

from .matrix import PATHS, convert
from .options import MaskInput, Names, Ops, Options, To
from .outcome import Outcome

__all__ = ["PATHS", "MaskInput", "Names", "Ops", "Options", "Outcome", "To", "convert"]
