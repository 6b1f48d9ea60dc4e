"""The contracts that our passes record, the registry of kinds, and the chain of them between two programs."""

from .chain import Chain, claims_in, renamed
from .heads import HiddenTapped, Pooled, SelectedWords
from .interface import CastIO, FixedSwitch, Grid, QuantizedIO, RenamedIO
from .logits import BestTokens, LastRows
from .lowered import OperatorsLowered, RightPadded, WholePast
from .positions import (
    AnyPositions,
    CacheRowPositions,
    ConsecutivePositions,
    KeysOfRun,
    OrderedPositions,
    PositionRows,
    ZeroPosition,
)
from .registry import UnknownContract, read_contract, register_contract
from .sizes import Assumption, Claims, CloneOf, LayerCut, Packed, SizesBound
from .states import LayoutChanged, StatesRemoved, StaticPast

__all__ = [
    "AnyPositions",
    "Assumption",
    "BestTokens",
    "CacheRowPositions",
    "CastIO",
    "Chain",
    "Claims",
    "CloneOf",
    "ConsecutivePositions",
    "FixedSwitch",
    "Grid",
    "HiddenTapped",
    "KeysOfRun",
    "LastRows",
    "LayerCut",
    "LayoutChanged",
    "OperatorsLowered",
    "OrderedPositions",
    "Packed",
    "Pooled",
    "PositionRows",
    "QuantizedIO",
    "RenamedIO",
    "RightPadded",
    "SelectedWords",
    "SizesBound",
    "StatesRemoved",
    "StaticPast",
    "UnknownContract",
    "WholePast",
    "ZeroPosition",
    "claims_in",
    "read_contract",
    "register_contract",
    "renamed",
]
