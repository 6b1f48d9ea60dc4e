"""One table says what the passes know of each operator; a new operator is one row, in one of these files."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .base import ALL, MS, Addressing, Grids, Key, Lookup, Operator, Port, Product, SkipNorm
from .caches import CACHES
from .control import CONTROL
from .numeric import NUMERIC
from .products import PRODUCTS
from .views import VIEWS

__all__ = [
    "ALL",
    "MS",
    "OPERATORS",
    "Addressing",
    "Grids",
    "Key",
    "Lookup",
    "Operator",
    "Port",
    "Product",
    "SkipNorm",
    "key_of",
    "keys",
    "names",
    "of",
    "where",
]

OPERATORS: dict[Key, Operator] = {**NUMERIC, **PRODUCTS, **VIEWS, **CONTROL, **CACHES}
"""Each operator by domain (``""`` for the standard) and type."""

_UNKNOWN = Operator()


def key_of(node: ir.Node) -> Key:
    """Domain and type; ``ai.onnx`` is the standard's other spelling."""
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def of(node: ir.Node) -> Operator:
    """The row of a node's operator; an empty one where there is none."""
    return OPERATORS.get(key_of(node), _UNKNOWN)


def where(holds: Callable[[Operator], object]) -> dict[Key, Operator]:
    """The rows of which ``holds`` is true."""
    return {key: row for key, row in OPERATORS.items() if holds(row)}


def keys(holds: Callable[[Operator], object]) -> frozenset[Key]:
    """The operators, of any domain, of which ``holds`` is true."""
    return frozenset(where(holds))


def names(holds: Callable[[Operator], object], domain: str | None = "") -> frozenset[str]:
    """The types of the operators of a domain (None: of any) of which ``holds`` is true."""
    return frozenset(name for home, name in where(holds) if domain is None or home == domain)
