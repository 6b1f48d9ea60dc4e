"""The registry knows the kinds of contracts: ours, those a pass registered, and third parties' by entry point."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

from ...core.errors import InputError, UsageError
from ..contract import Contract
from .adapters import AdapterInputs, AdapterSlots, WeightsFolded
from .half import HalfPrecision
from .heads import HiddenTapped, Pooled, SelectedWords
from .interface import CastIO, FixedSwitch, IntegersNarrowed, QuantizedIO, RenamedIO
from .logits import BestTokens, LastRows
from .lowered import OperatorsLowered, RightPadded, WholePast
from .padding import SpareRows, WholeChunks
from .positions import AnyPositions, CacheRowPositions, ConsecutivePositions, KeysOfRun, OrderedPositions, ZeroPosition
from .sampling import SampledTokens
from .sizes import Assumption, Claims, CloneOf, LayerCut, Packed, SizesBound, SplitInto
from .states import LayoutChanged, StatesRemoved, StaticPast
from .unknown import NOT_INSTALLED, UnknownContract

GROUP = "onnx_llm_passes.contracts"  # the entry point group of third-party contracts: kind = module:Class
MAX_KIND = 100

BUILT_IN: tuple[type[Contract], ...] = (
    AdapterInputs, AdapterSlots,
    AnyPositions, Assumption, BestTokens, CacheRowPositions, CastIO, Claims, CloneOf, ConsecutivePositions,
    FixedSwitch, HalfPrecision,
    HiddenTapped, IntegersNarrowed, KeysOfRun, LastRows, LayerCut, LayoutChanged, OperatorsLowered,
    OrderedPositions, Packed, Pooled, QuantizedIO, RenamedIO, RightPadded, SampledTokens, SelectedWords, SizesBound,
    SpareRows, SplitInto, StatesRemoved, StaticPast, WeightsFolded, WholeChunks, WholePast, ZeroPosition,
)  # fmt: skip
_KINDS: dict[str, type[Contract]] = {cls.kind: cls for cls in BUILT_IN}

C = TypeVar("C", bound=Contract)


def register_contract(cls: type[C]) -> type[C]:
    """A decorator: program.json entries of the class's kind become instances of it, as long as this process runs.

    A package that others load programs with offers its class by the entry point group ``onnx_llm_passes.contracts``
    too: ``kind = module:Class``. Raises UsageError for a class without a kind of its own.
    """
    if not _is_contract(cls) or not cls.kind:
        raise UsageError("no contract", found=repr(cls), wanted="a dataclass that extends Contract and has a kind")
    other = _KINDS.setdefault(cls.kind, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise UsageError(f"two classes have the kind {cls.kind!r}", found=f"{other.__module__}, {cls.__module__}")
    _KINDS[cls.kind] = cls
    return cls


def read_contract(entry: Mapping[str, Any]) -> Contract:
    """The contract of an entry of program.json; InputError where it is none. Only an installed package's code runs."""
    kind = entry.get("kind")
    if not isinstance(kind, str) or not 0 < len(kind) <= MAX_KIND:
        raise InputError("a contract has no kind", found=repr(kind)[:MAX_KIND])
    cls, why = _class_of(kind)
    if cls is not None:
        return cls.from_json(entry)
    known = Assumption.from_json({key: entry[key] for key in ("graphs", "step") if key in entry})
    return replace(UnknownContract(kind, dict(entry), why), graphs=known.graphs, step=known.step)


def _class_of(kind: str) -> tuple[type[Contract] | None, str]:
    """The class of a kind, or why there is none."""
    if kind in _KINDS:
        return _KINDS[kind], ""
    entry = _third_party().get(kind)
    if entry is None:
        return None, NOT_INSTALLED
    try:
        cls = entry.load()
    except Exception as error:  # a stranger's module may raise anything while it is imported
        return None, f"cannot be loaded: {type(error).__name__}: {error}"
    if not _is_contract(cls) or cls.kind != kind:
        return None, f"has an entry point that is no contract of this kind: {entry.value}"
    return _KINDS.setdefault(kind, cls), ""


def _is_contract(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, Contract) and is_dataclass(cls)


@functools.cache
def _third_party() -> dict[str, importlib.metadata.EntryPoint]:
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name in found and found[entry.name].value != entry.value:
            raise UsageError(f"two packages offer a contract of kind {entry.name!r}", hint="Uninstall one of them.")
        found[entry.name] = entry
    return found
