"""Numbers of 2, 4 or 8 bits are taken out of the bytes that hold several of them."""

from __future__ import annotations

from typing import Any

import numpy as np

WIDTHS = (2, 4, 8)


def unpack_bytes(content: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """``[…, bytes]`` uint8 to the unsigned numbers in them ``[…, bytes * 8 / bits]``, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (content[..., None] >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(*content.shape[:-1], -1)
