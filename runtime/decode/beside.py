"""What a run is fed beside a text: adapters, and what a graph that draws its own tokens asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import InputError, UnknownNameError, UsageError
from ...ir.program.contracts.adapters import AdapterInputs, AdapterSlots
from ...ir.program.contracts.sampling import BITMASKS, NEUTRAL, RANDOM, SampledTokens
from ...ir.program.program import Program
from ...ir.serialization.adapters import read_adapter
from ...ir.symbolic.symbols import dims_of
from .sampling import Sampling, uniform
from .step import Step


@dataclass
class Beside:
    """Inputs that no step tells, by name; those that nothing here knows are zeros.

    Attributes:
        kinds: What each input of a draw is for.
        adapters: Arrays of adapters; of inputs without one, matrices of rank 0.
        ids: The input that chooses among adapters, and the number chosen.
        sampling: How tokens are drawn.
        bitmask: INT32 words: which tokens may be said, in every row.
        texts: Row -> the number of its text.
    """

    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    adapters: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    ids: tuple[str, int] = ("", 0)
    sampling: Sampling = field(default_factory=Sampling)
    bitmask: np.ndarray | None = None
    texts: dict[int, int] = field(default_factory=dict[int, int])

    @classmethod
    def of(cls, program: Program, sampling: Sampling, adapter: str = "", bitmask: np.ndarray | None = None) -> Beside:
        """For a program; UsageError for an adapter that it cannot take, or a bitmask of another width."""
        draws = [link for link in program.contracts if isinstance(link, SampledTokens)]
        kinds = {name: kind for link in draws for name, kind in zip(link.inputs, link.kinds, strict=True)}
        if bitmask is not None and not (draws and BITMASKS in kinds.values()):
            raise UsageError("no graph takes a bitmask", hint="Run sample-tail{bitmask=true} on it.")
        words = {size[2] for link in draws for k, size in zip(link.kinds, link.sizes, strict=True) if k == BITMASKS}
        if bitmask is not None and words != {bitmask.size}:
            raise UsageError("a bitmask of another width", found=f"{bitmask.size} words", wanted=f"{sorted(words)}")
        found = cls(kinds, sampling=sampling, bitmask=bitmask)
        for link in program.contracts:
            if isinstance(link, AdapterInputs):
                found.adapters = _matrices(link, Path(adapter)) if adapter else _empty(link)
            elif isinstance(link, AdapterSlots):
                found.ids = (link.ids, _number(link, adapter) if adapter else 0)
        if adapter and not found.adapters and not found.ids[0]:
            raise UsageError("the program takes no adapter", found=adapter, hint="Run lora{mode=inputs} on it.")
        return found

    @property
    def draws(self) -> bool:
        """Whether graphs draw their tokens."""
        return bool(self.kinds)

    def fed(self, values: Sequence[ir.Value], step: Step) -> dict[str, np.ndarray]:
        """An array for each of the inputs, in a run of ``step``."""
        return {value.name or "": self._array(value, step) for value in values}

    def _array(self, value: ir.Value, step: Step) -> np.ndarray:
        name, usual, dims = value.name or "", (len(step.ids), step.width), dims_of(value) or ()
        if name in self.adapters:
            return self.adapters[name]
        shape = [dim if isinstance(dim, int) else usual[at] if at < 2 else 1 for at, dim in enumerate(dims)]
        if name == self.ids[0]:
            return np.full(shape, self.ids[1], np.int64)
        if name in self.kinds:
            if len(dims) > 1 and not isinstance(dims[1], int) and self.kinds[name] in (RANDOM, BITMASKS):
                shape[1] = min(step.logits, step.width)
            return self._drawing(self.kinds[name], shape, step)
        return np.zeros(shape)

    def _drawing(self, kind: str, shape: Sequence[int], step: Step) -> np.ndarray:
        dtype, neutral = NEUTRAL[kind]
        if kind == RANDOM:
            return self._numbers(shape, step).astype(dtype)
        if kind == BITMASKS and self.bitmask is not None:
            return np.broadcast_to(self.bitmask.astype(dtype), shape)
        told = {"temperatures": self.sampling.temperature, "top_ks": self.sampling.top_k, "top_ps": self.sampling.top_p}
        return np.full(shape, (told | {"min_ps": self.sampling.min_p}).get(kind, neutral), dtype)

    def _numbers(self, shape: Sequence[int], step: Step) -> np.ndarray:
        """The host's random number for each token that a row of logits is followed by."""
        rows, found = shape[1], np.zeros(shape)
        for line, places in enumerate(step.positions):
            real = places[places >= 0]
            kept = places[:rows] if rows == step.width else real[-rows:]
            for at, place in enumerate(kept):
                found[line, at] = uniform(self.sampling.seed, self.texts.get(line, 0), int(place) + 1)
        return found


def _empty(link: AdapterInputs) -> dict[str, np.ndarray]:
    """Matrices that change nothing, of the rank that is given, else of none."""
    found = link.matrices(zero=True)
    if isinstance(link.rank, int):
        return found
    return {**{name: found[name][:, :0] for name in link.downs}, **{name: found[name][:0] for name in link.ups}}


def _matrices(link: AdapterInputs, path: Path) -> dict[str, np.ndarray]:
    pairs = {pair.module: pair for pair in read_adapter(path).pairs}
    if strange := [module for module in pairs if module not in link.modules]:
        raise UsageError("the program has no inputs for this module", where=str(path), found=strange[0])
    found = link.matrices(zero=True)
    rank = link.rank if isinstance(link.rank, int) else max(pair.rank for pair in pairs.values())
    for module, down, up, (width, columns) in zip(link.modules, link.downs, link.ups, link.widths, strict=True):
        pair, dtype = pairs.get(module), found[down].dtype
        if pair is not None and ((pair.width, pair.columns) != (width, columns) or pair.rank > rank):
            sizes = f"{pair.width} to {pair.columns} columns, rank {pair.rank}"
            wanted = f"{width} to {columns} columns, rank <= {rank}"
            raise UsageError("an adapter of other sizes", where=f"{path}, {module}", found=sizes, wanted=wanted)
        found[down], found[up] = np.zeros((width, rank), dtype), np.zeros((rank, columns), dtype)
        if pair is not None:
            found[down][:, : pair.rank], found[up][: pair.rank] = pair.down(), pair.up()
    return found


def _number(link: AdapterSlots, adapter: str) -> int:
    """The number of an adapter, given as that or by its name."""
    names = [source.name for source in link.sources]
    if adapter.isdecimal() and len(adapter) < 6 and int(adapter) <= len(names):
        return int(adapter)
    if adapter not in names:
        raise UnknownNameError("adapter", adapter, names)
    return 1 + names.index(adapter)


def read_bitmask(path: Path) -> np.ndarray:
    """INT32 ``[words]`` of a ``.npy`` file; InputError where it holds none."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError("cannot be read as .npy", where=str(path), found=str(error)[:120]) from None
    if found.dtype != np.int32 or not found.size:
        raise InputError(
            "is no bitmask", where=str(path), found=f"{found.dtype}{list(found.shape)}", wanted="int32 words"
        )
    return found.reshape(-1)
