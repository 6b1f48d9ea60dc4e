"""Adapters for tests, written as PEFT does by numpy alone, and what they do to weights, computed by numpy alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
Widths = Mapping[str, tuple[int, int]]
DTYPES = {"float32": "F32", "float16": "F16", "int32": "I32"}
PREFIX = "base_model.model."


def matrices(modules: Widths, rank: int = 4, seed: int = 0, size: float = 0.125) -> Tensors:
    """Tensors under PEFT's names: ``lora_A [rank, in]`` and ``lora_B [out, rank]``."""
    rng, found = np.random.default_rng(seed), Tensors()
    for module, (width, columns) in modules.items():
        down, up = rng.standard_normal((rank, width)) / np.sqrt(width), rng.standard_normal((columns, rank)) * size
        found[f"{PREFIX}{module}.lora_A.weight"] = down.astype(np.float32)
        found[f"{PREFIX}{module}.lora_B.weight"] = up.astype(np.float32)
    return found


def write_peft(folder: Path, tensors: Tensors, rank: int = 4, alpha: float = 8, **config: Any) -> Path:
    """A folder with ``adapter_config.json`` and ``adapter_model.safetensors``."""
    folder.mkdir(parents=True)
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "use_rslora": False, **config}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def write_safetensors(path: Path, tensors: Tensors, change: Callable[[dict[str, Any]], object] = len) -> None:
    """A safetensors file; ``change`` may spoil its header."""
    header: dict[str, Any] = {}
    at = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": DTYPES[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))


def added(tensors: Tensors, module: str, scale: float) -> np.ndarray:
    """FLOAT64 ``[in, out]``: scale · (B A)ᵀ, what the adapter adds to the weight of ``rows @ weight``."""
    down, up = (tensors[f"{PREFIX}{module}.lora_{half}.weight"].astype(np.float64) for half in "AB")
    return scale * (up @ down).T
