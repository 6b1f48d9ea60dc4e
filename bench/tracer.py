"""Collects nodes the way an exporter's tracer does: scoped names, counters, constants as the style writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str]


class Style(Enum):
    """How an exporter writes: constants as nodes and no shapes, or shared initializers and a shape on every value."""

    CONSTANTS = "constants"
    ANNOTATED = "annotated"


@dataclass(frozen=True)
class Size:
    """The dimensions of a decoder."""

    layers: int
    hidden: int = 64
    inner: int = 128
    heads: int = 4
    kv_heads: int = 2
    vocab: int = 512
    dtype: int = TensorProto.FLOAT

    @property
    def head_dim(self) -> int:
        """Elements of one attention head."""
        return self.hidden // self.heads

    @property
    def numpy(self) -> Any:
        """The numpy type of activations and weights."""
        return helper.tensor_dtype_to_np_dtype(self.dtype)


@dataclass(frozen=True)
class Weight:
    """A trained tensor by name, type and dims; its values are the weight file's business."""

    name: str
    dtype: int
    dims: tuple[int, ...]


@dataclass
class Tracer:
    """The graph so far. Values are their names; a scope is the path in front of a node's name."""

    style: Style
    size: Size
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    small: dict[str, onnx.TensorProto] = field(default_factory=dict[str, onnx.TensorProto])
    infos: list[onnx.ValueInfoProto] = field(default_factory=list[onnx.ValueInfoProto])
    weights: list[Weight] = field(default_factory=list[Weight])
    scope: str = ""
    counts: Counter[str] = field(default_factory=Counter[str])

    @contextmanager
    def inside(self, scope: str) -> Iterator[None]:
        """Names what is added meanwhile below ``scope``."""
        outer, self.scope = self.scope, f"{self.scope}/{scope}"
        yield
        self.scope = outer

    def fresh(self, op: str) -> str:
        """The next node name of this operator in this scope: Mul, Mul_1, Mul_2 ..."""
        stem = f"{self.scope}/{op}"
        number = self.counts[stem]
        self.counts[stem] += 1
        return f"{stem}_{number}" if number else stem

    def add(
        self, op: str, *inputs: str, out: str = "", dtype: int = 0, dims: Dims | None = None, **attributes: Any
    ) -> str:
        """Adds a node and returns its output's name; ``dims`` becomes a value info where the style writes them."""
        name = self.fresh(op)
        output = out or f"{name}_output_0"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        if self.style is Style.ANNOTATED and dims is not None and not out:
            self.infos.append(helper.make_tensor_value_info(output, dtype, list(dims)))
        return output

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        """A small constant: a node of its own, or an initializer that all its users share."""
        array = np.asarray(value, dtype)
        if self.style is Style.CONSTANTS:
            return self.add("Constant", value=numpy_helper.from_array(array))
        name = f"const_{array.dtype.name}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        self.small.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def stray_const(self, op: str, value: Any, dtype: Any = np.int64) -> str:
        """A Constant node without a scope, as a tracer leaves for what it folded: Constant_7 -> onnx::Unsqueeze_7."""
        number = len(self.nodes)
        output = f"onnx::{op}_{number}"
        tensor = numpy_helper.from_array(np.asarray(value, dtype))
        self.nodes.append(helper.make_node("Constant", [], [output], name=f"Constant_{number}", value=tensor))
        return output

    def weight(self, name: str, dtype: int, *dims: int) -> str:
        """Declares a trained tensor and returns its name."""
        self.weights.append(Weight(name, dtype, dims))
        return name

    def matmul_weight(self, dtype: int, *dims: int) -> str:
        """Declares a projection's tensor under the number a tracer gives it."""
        return self.weight(f"onnx::MatMul_{len(self.nodes)}", dtype, *dims)


def element_size(dtype: int) -> int:
    """Bytes of one element."""
    return helper.tensor_dtype_to_np_dtype(dtype).itemsize


FLOAT, FLOAT16, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL
