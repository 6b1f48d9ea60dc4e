"""What a state holds before the first run, where it is not zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Start:
    """What a state holds before the first run.

    Attributes:
        shape: Sizes, of which 1 stands for as many as the state has there.
        values: The content in row-major order.
    """

    shape: tuple[int, ...]
    values: tuple[float, ...]

    def like(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The content in the shape and type of ``array``."""
        return np.array(np.broadcast_to(np.reshape(np.asarray(self.values), self.shape), array.shape), array.dtype)
