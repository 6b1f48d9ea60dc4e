"""Low-rank adapters are read from PEFT's folders and onnxruntime's files: a scaled pair of matrices a module."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ..core.errors import InputError
from .onnx_adapter_file import read_onnx_adapter
from .safetensors_file import read_safetensors
from .strict import StrictReader

CONFIG, WEIGHTS, SUFFIX = "adapter_config.json", "adapter_model.safetensors", ".onnx_adapter"
READER = StrictReader("a configuration of PEFT", InputError, max_bytes=1 << 20)
ROOT = "base_model.model."  # what PEFT 0.21 puts before the names of the modules it wraps
HALVES = (".lora_A", ".lora_B")
_CHANGES = {  # what adapter_config.json may ask for beside two matrices: key -> what it is called
    "use_dora": "DoRA (a magnitude a column)",
    "use_qalora": "QALoRA (pooled rows)",
    "lora_bias": "a bias behind the second matrix",
    "alora_invocation_tokens": "aLoRA (only behind certain tokens)",
    "modules_to_save": "whole modules trained beside the adapter",
    "layer_replication": "layers that stand several times",
    "trainable_token_indices": "trained embeddings",
    "target_parameters": "parameters that are no module's weight",
    "arrow_config": "a mixture of adapters",
}


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one module: ``rows @ down @ up``, in float32, the scale in ``up``.

    Attributes:
        module: The module's name, PEFT's prefix left out.
        first: The stored first matrix.
        second: The stored second one.
        turned: Whether they are stored as PEFT does: ``[rank, in]`` and ``[out, rank]``.
        scale: What PEFT multiplies the product by.
        file: Where they lie, for messages.
    """

    module: str
    first: ir.ExternalTensor
    second: ir.ExternalTensor
    turned: bool
    scale: float
    file: str

    @property
    def rank(self) -> int:
        """The rank."""
        return _size(self.first, 0 if self.turned else 1)

    @property
    def width(self) -> int:
        """How many columns the module's rows have."""
        return _size(self.first, 1 if self.turned else 0)

    @property
    def columns(self) -> int:
        """How many columns the module gives."""
        return _size(self.second, 0 if self.turned else 1)

    def down(self) -> np.ndarray:
        """FLOAT ``[width, rank]``; InputError for what is no number."""
        return self._read(self.first)

    def up(self) -> np.ndarray:
        """FLOAT ``[rank, columns]``, the scale in it; InputError for what is no number."""
        return self._read(self.second) * np.float32(self.scale)

    def hold_finite(self) -> None:
        """Reads both; InputError for what is no number."""
        for tensor in (self.first, self.second):
            self._read(tensor)

    def _read(self, tensor: ir.ExternalTensor) -> np.ndarray:
        array = tensor.numpy().astype(np.float32)
        if not np.isfinite(array).all():
            place = [int(axis[0]) for axis in np.nonzero(~np.isfinite(array))]
            where = f"{self.file}, tensor {tensor.name!r}"
            raise InputError("is not finite", where=where, found=f"{array[tuple(place)]} at {place}", wanted="numbers")
        return np.ascontiguousarray(array.T if self.turned else array)


@dataclass(frozen=True)
class Adapter:
    """One adapter: its name, where it was read from, the sha256 of its weights, and a pair a module."""

    name: str
    path: Path
    sha256: str
    pairs: tuple[LowRank, ...]


def read_adapter(path: Path) -> Adapter:
    """The adapter of a PEFT folder, or of an ``.onnx_adapter`` file; InputError says what is wrong with it."""
    weights = path if path.suffix == SUFFIX else path / WEIGHTS
    if path.suffix == SUFFIX:
        pairs = _pairs(read_onnx_adapter(path), weights, _unscaled, turned=False)
    else:
        config = _config(path / CONFIG)
        pairs = _pairs(read_safetensors(weights), weights, config.scale, turned=True)
        _hold_ranks(pairs, config, weights)
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Adapter(path.resolve().stem if path.suffix == SUFFIX else path.resolve().name, path, digest, pairs)


def _size(tensor: ir.ExternalTensor, axis: int) -> int:
    return int(tensor.shape.numpy()[axis])


def _unscaled(module: str, rank: int) -> float:
    return 1.0  # onnxruntime's files have the scale in the second matrix


@dataclass(frozen=True)
class _Config:
    rank: int
    alpha: float
    by_root: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def scale(self, module: str, rank: int) -> float:
        """alpha / rank, or alpha / sqrt(rank) (rsLoRA); patterns name ends of modules, as in PEFT 0.21."""
        alpha = _by_end(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.by_root else rank) if rank else 0.0


def _by_end(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    # PEFT matches rf"(.*\.)?({key})$" (utils/other.py: get_pattern_key); keys that are more than names are refused
    return next((v for key, v in patterns.items() if module == key or module.endswith(f".{key}")), default)


def _config(path: Path) -> _Config:
    found: Any = READER.load_json(READER.read_text(path), where=str(path))
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if fields.get("peft_type") != "LORA":
        raise InputError(
            "is no low-rank adapter", where=str(path), found=repr(fields.get("peft_type"))[:80], wanted="LORA"
        )
    for key, what in _CHANGES.items():
        if fields.get(key):
            raise InputError(f"asks for {what}, which is not two matrices a module", where=f"{path}, {key}",
                             hint="Merge it in PEFT (merge_and_unload) and export the result.")  # fmt: skip
    if fields.get("bias", "none") != "none":
        raise InputError("trains biases too", where=f"{path}, bias", found=str(fields["bias"])[:80], wanted="none")
    rank, alpha = fields.get("r"), fields.get("lora_alpha", 8)
    if type(rank) is not int or rank < 1 or not _is_number(alpha):
        raise InputError("has no rank or alpha", where=str(path), found=f"r {rank!r}, lora_alpha {alpha!r}"[:120])
    ranks, alphas = (_patterns(path, fields, key) for key in ("rank_pattern", "alpha_pattern"))
    return _Config(rank, float(alpha), fields.get("use_rslora") is True, ranks, alphas)


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _patterns(path: Path, fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    found: Any = fields.get(key) or {}
    entries = cast("dict[str, Any]", found) if isinstance(found, dict) else {"": None}
    for name, value in entries.items():
        if not _is_number(value) or not name.replace(".", "").replace("_", "").isalnum():
            where = f"{path}, {key}"
            raise InputError("is no name of a module with a number", where=where, found=f"{name!r}: {value!r}"[:120])
    return entries


def _pairs(tensors: Mapping[str, ir.ExternalTensor], path: Path, scale: Any, *, turned: bool) -> tuple[LowRank, ...]:
    """The tensors two by two; InputError for one that is alone, of another kind, or whose ranks differ."""
    halves: dict[str, dict[str, ir.ExternalTensor]] = {}
    for name, tensor in tensors.items():
        half = next((half for half in HALVES if half in name), None)
        where = f"{path}, tensor {name[:160]!r}"
        if half is None or ".lora_magnitude" in name or not tensor.dtype.is_floating_point():
            what = "belongs to DoRA" if "magnitude" in name else "is no half of a low-rank pair"
            raise InputError(what, where=where, wanted="….lora_A.weight and ….lora_B.weight")
        if len(tensor.shape) != 2:
            raise InputError("is no matrix", where=where, found=str(tensor.shape))
        halves.setdefault(name.partition(half)[0], {})[half] = tensor
    if not halves:
        raise InputError("holds no low-rank pair", where=str(path))
    return tuple(_pair(module, both, path, scale, turned) for module, both in halves.items())


def _pair(module: str, both: Mapping[str, ir.ExternalTensor], path: Path, scale: Any, turned: bool) -> LowRank:
    if len(both) != 2:
        raise InputError(f"has {next(iter(both))} alone", where=f"{path}, module {module!r}", wanted="both halves")
    first, second = (both[half] for half in HALVES)
    ranks = (_size(first, 0), _size(second, 1)) if turned else (_size(first, 1), _size(second, 0))
    if ranks[0] != ranks[1]:
        found = f"{ranks[0]} in lora_A, {ranks[1]} in lora_B"
        raise InputError("the ranks of the two halves differ", where=f"{path}, module {module!r}", found=found)
    short = module.removeprefix(ROOT)
    return LowRank(short, first, second, turned, scale(short, ranks[0]), str(path))


def _hold_ranks(pairs: tuple[LowRank, ...], config: _Config, path: Path) -> None:
    for pair in pairs:
        wanted = _by_end(config.ranks, pair.module, config.rank)
        if pair.rank != wanted:
            where = f"{path}, module {pair.module!r}"
            raise InputError(f"the rank is not that of {CONFIG}", where=where, found=pair.rank, wanted=wanted)
