"""How much memory is free, and whether a packed copy of a graph's weights has room in it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

MEMINFO = Path("/proc/meminfo")
ROOM = 0.5  # of free memory: caches, results and a second session take the rest


def free_bytes() -> int | None:
    """What programs can still take without swapping; None where the system does not tell."""
    try:
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError, IndexError):
        return None


def outgrows(model: ir.Model) -> bool:
    """Whether a copy of the weights in data files takes more than half of the free memory."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    held = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, ir.ExternalTensor))
    free = free_bytes() if held else None
    return free is not None and held > ROOM * free
