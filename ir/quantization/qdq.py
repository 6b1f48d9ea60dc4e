"""QuantizeLinear and DequantizeLinear pairs are put onto values, and read back as a table."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.encoding import Encoding, EncodingsInvalid, EncodingTable, Kind, check_encoding
from ..core.errors import PassRefused
from ..core.operators import names
from ..rewrite.builder import Builder

WIDE_OPSET = 21  # from which the standard operators know 4 and 16 bits, and blocks
HALF_OPSET = 19  # from which they know floats of 16 bits
AXIS_OPSET = 13  # from which they know channels
CONTRIB = "com.microsoft"
MARK = "state"  # the metadata key that names the carried state whose input or output a pair stands at
PAIR = names(lambda row: row.quantizes or row.dequantizes)
_DTYPES: dict[tuple[int, bool], ir.DataType] = {
    (4, True): ir.DataType.INT4,
    (4, False): ir.DataType.UINT4,
    (8, True): ir.DataType.INT8,
    (8, False): ir.DataType.UINT8,
    (16, True): ir.DataType.INT16,
    (16, False): ir.DataType.UINT16,
}
_GRIDS = {dtype: grid for grid, dtype in _DTYPES.items()}
_SUFFIXES = ("_DequantizeLinear_Output", "_quantized", "/quantized")  # what quantizers append to a weight's name


def grid_type(name: str, encoding: Encoding) -> ir.DataType:
    """The element type of the integers; EncodingsInvalid, naming the tensor, where no type has this width."""
    found = _DTYPES.get((encoding.bits, encoding.signed))
    if found is None or not encoding.scale:
        what = f"{encoding.bits} bits" if found is None else "a float"
        raise EncodingsInvalid(f"tensor {name!r} cannot be put on this grid", found=what, wanted="4, 8 or 16 bits")
    return found


def check_grid(
    name: str, encoding: Encoding, dtype: ir.DataType, shape: Sequence[int | None] | None, opset: int
) -> None:
    """Refuses, naming the tensor, a grid that no type, no operator of this opset, or this tensor's shape allows.

    ``dtype`` is the tensor's float type, which holds the scales. EncodingsInvalid or PassRefused.
    """
    grid_type(name, encoding)
    _domain(name, encoding, dtype, opset)
    _check_fits(name, encoding, shape)
    outside = next((zero for zero in encoding.zero_point if not encoding.smallest <= zero <= encoding.largest), None)
    if outside is not None:
        wanted = f"{encoding.smallest} to {encoding.largest}"
        raise EncodingsInvalid(
            f"tensor {name!r} has a zero point that is not on its grid", found=outside, wanted=wanted
        )
    with np.errstate(over="ignore"):
        held = np.array(encoding.scale, np.float64).astype(dtype.numpy()).astype(np.float64)
    turned = encoding.kind is Kind.PARAM  # a weight's grid may run the other way
    if not (np.isfinite(held) & ((held > 0) | (turned & (held < 0)))).all():
        raise EncodingsInvalid(f"tensor {name!r} has a scale that {dtype.name} cannot hold", found=min(encoding.scale))


def _check_fits(name: str, encoding: Encoding, shape: Sequence[int | None] | None) -> None:
    """Refuses a grid of other channels or blocks than a tensor of that shape has."""
    if not encoding.shape or shape is None:
        return
    axis, wanted = encoding.axis, list[int | None]()
    if axis is not None and 0 <= axis < len(shape):
        size = shape[axis]
        wanted = [size]
        if encoding.block is not None:
            blocks = -(-size // encoding.block) if size is not None else None
            wanted = [*shape[:axis], blocks, *shape[axis + 1 :]]
    fits = [want is None or want == found for want, found in zip(wanted, encoding.shape, strict=False)]
    if len(wanted) != len(encoding.shape) or not all(fits):
        found = f"scales {list(encoding.shape)}, axis {axis}, block {encoding.block}"
        raise EncodingsInvalid(
            f"tensor {name!r} has other channels than its encoding", found=found, wanted=f"those of {list(shape)}"
        )


def pair(builder: Builder, value: ir.Value, encoding: Encoding, dtype: ir.DataType) -> tuple[ir.Value, ir.Value]:
    """The results of two new nodes: ``value`` (of float type ``dtype``) on a grid, and taken off it again."""
    name = value.name or ""
    scale, zero = parameters(builder, name, encoding, dtype)
    integers = _node(builder, "QuantizeLinear", [value, scale, zero], f"{name}/quantize", encoding, dtype)
    integers.type = ir.TensorType(grid_type(name, encoding))
    back = _node(builder, "DequantizeLinear", [integers, scale, zero], f"{name}/dequantize", encoding, dtype)
    integers.shape = back.shape = value.shape
    return integers, back


def weight(builder: Builder, value: ir.Value, encoding: Encoding, integers: ir.TensorProtocol) -> ir.Value:
    """Records the node that takes the integers of a weight off their grid; its result."""
    name = value.name or ""
    dtype = value.const_value.dtype if value.const_value is not None else ir.DataType.FLOAT
    scale, zero = parameters(builder, name, encoding, dtype)
    held = builder.constant(integers, f"{name}/quantized")
    back = _node(builder, "DequantizeLinear", [held, scale, zero], f"{name}/dequantize", encoding, dtype)
    back.shape = value.shape
    return back


def parameters(builder: Builder, name: str, encoding: Encoding, dtype: ir.DataType) -> tuple[ir.Value, ir.Value]:
    """Scale and zero point of a tensor as initializers."""
    kind = grid_type(name, encoding)
    scale = np.array(encoding.scale, np.float64).reshape(encoding.shape).astype(dtype.numpy())
    zero = np.array(encoding.zero_point, np.int64).reshape(encoding.shape).astype(kind.numpy())
    return (
        builder.constant(ir.tensor(scale, dtype), f"{name}/scale"),
        builder.constant(ir.tensor(zero, kind), f"{name}/zero_point"),
    )


def _node(
    builder: Builder, op_type: str, inputs: Sequence[ir.Value], name: str, encoding: Encoding, dtype: ir.DataType
) -> ir.Value:
    """One node of a pair, its result of type ``dtype``."""
    domain = _domain(name, encoding, dtype, builder.graph.opset_imports.get("", 0))
    attributes = {"axis": encoding.axis} if encoding.axis is not None and encoding.shape else {}
    attributes |= {"block_size": encoding.block} if encoding.block is not None else {}
    value = builder.op(op_type, inputs, name, attributes, dtype=dtype, domain=domain)
    value.name = builder.fresh(f"{name}_output")
    return value


def _domain(name: str, encoding: Encoding, dtype: ir.DataType, opset: int) -> str:
    """Whose operators know this grid: the standard's, else onnxruntime's own; PassRefused where nobody does."""
    wanted = [HALF_OPSET if dtype in _HALVES else AXIS_OPSET, *([WIDE_OPSET] if encoding.bits != 8 else [])]
    if dtype in _FLOATS and opset >= max(wanted) and (encoding.block is None or opset >= WIDE_OPSET):
        return ""
    if dtype in _CONTRIB_FLOATS and encoding.block is None:
        return CONTRIB
    what = "scales of blocks" if encoding.block is not None else f"{encoding.bits} bits"
    raise PassRefused(
        f"no operator of opset {opset} puts tensor {name!r} on its grid",
        found=f"{what}, {dtype.name}",
        wanted=f"opset {WIDE_OPSET}" if dtype in _FLOATS else "a float of 16 or 32 bits",
        hint=f"Run fix-opset{{version={WIDE_OPSET}}} before." if dtype in _FLOATS else "",
    )


AT_ONCE = 1 << 20  # numbers of a weight that stand wide, as 64-bit integers, at once
_HALVES = frozenset((ir.DataType.FLOAT16, ir.DataType.BFLOAT16))
_FLOATS = _HALVES | {ir.DataType.FLOAT}
_CONTRIB_FLOATS = frozenset((ir.DataType.FLOAT16, ir.DataType.FLOAT))


@contextmanager
def plain_pairs(model: ir.Model) -> Generator[None]:
    """While inside, contrib operators of pairs count as the standard ones: the search for states sees through them."""
    nodes = [node for node in model.graph if node.domain == CONTRIB and node.op_type in PAIR]
    for node in nodes:
        node.domain = ""
    try:
        yield
    finally:
        for node in nodes:
            node.domain = CONTRIB


def on_grid(value: ir.Value) -> bool:
    """True for a value that stands between, before or behind a pair already."""
    node = value.producer()
    behind = node is not None and node.op_type in PAIR
    return behind or any(user.op_type == "QuantizeLinear" for user, _ in value.uses())


def quantized(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The integers of an array on a grid, rounded half to even as QuantizeLinear does, saturated; int64."""
    return quantized_as(array, encoding, np.dtype(np.int64))


def lazily_quantized(tensor: ir.TensorProtocol, encoding: Encoding, kind: ir.DataType) -> ir.TensorProtocol:
    """The integers of a weight, computed each time that they are asked for, so that no copy of it stays."""

    def compute() -> ir.TensorProtocol:
        integers = quantized_as(tensor.numpy(), encoding, kind.numpy())
        if kind.bitwidth != 4:
            return ir.Tensor(integers, dtype=kind)
        return ir.PackedTensor(_packed(integers), kind, shape=integers.shape)

    return ir.LazyTensor(compute, dtype=kind, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name, cache=False)


def _packed(integers: np.ndarray) -> np.ndarray:
    """Two numbers of 4 bits a byte, the first one low, as TensorProto keeps them."""
    halves = integers.view(np.uint8).reshape(-1)
    packed = np.zeros((halves.size + 1) // 2, np.uint8)
    np.bitwise_and(halves[::2], 0x0F, out=packed)
    for start in range(0, halves.size // 2, AT_ONCE):
        high = halves[2 * start + 1 : 2 * (start + AT_ONCE) : 2]
        packed[start : start + len(high)] |= high << 4
    return packed


def quantized_as(array: np.ndarray, encoding: Encoding, dtype: np.dtype[Any]) -> np.ndarray:
    """The integers of `quantized` in a type that holds them; what is wider exists for some rows at a time."""
    held = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
    grids = np.array(encoding.scale, held), np.array(encoding.zero_point, np.int64)
    if not array.ndim:
        return quantized_as(array.reshape(1), encoding, dtype).reshape(())
    result = np.empty(array.shape, dtype)
    for start, stop in _row_blocks(array, encoding):
        part = array[start:stop]
        scale, zero = (_spread(numbers, encoding, part, start) for numbers in grids)
        integers = np.rint(part / scale).astype(np.int64)
        integers = np.clip(integers + zero, encoding.smallest, encoding.largest)
        result[start:stop] = integers
    return result


def _row_blocks(array: np.ndarray, encoding: Encoding) -> Iterator[tuple[int, int]]:
    """First and last of rows of the first axis with some numbers each, cut between blocks of a grid."""
    rows = len(array)
    block = encoding.block if encoding.block is not None and encoding.axis == 0 else 1
    step = max(AT_ONCE // max(array.size // max(rows, 1), 1) // block, 1) * block
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _spread(numbers: np.ndarray, encoding: Encoding, part: np.ndarray, start: int) -> np.ndarray:
    """Numbers of channels or blocks, shaped so that each meets the elements of rows from ``start`` that it is for."""
    if not encoding.shape or encoding.axis is None:
        return numbers.reshape([1] * part.ndim)
    if encoding.block is not None:
        grid, width = numbers.reshape(encoding.shape), encoding.block if encoding.axis == 0 else 1
        grid = grid[start // width : -(-(start + len(part)) // width)]
        blocks = np.repeat(grid, encoding.block, axis=encoding.axis)
        return blocks.take(range(part.shape[encoding.axis]), axis=encoding.axis)
    spread = numbers.reshape([-1 if axis == encoding.axis else 1 for axis in range(part.ndim)])
    return spread[start : start + len(part)] if encoding.axis == 0 and len(spread) > 1 else spread


def read_qdq(model: ir.Model, *, where: str = "") -> EncodingTable:
    """The encodings of a graph's pairs by the names that the tensors have without them; the main graph alone.

    EncodingsInvalid, naming the tensor, where a tensor is put on two different grids, and with ``where`` (the file that
    the graph was read from) where a grid is none: onnxruntime's quantizer writes infinite scales for masks of -inf.
    """
    table = EncodingTable()
    for node in model.graph:
        if node.op_type not in PAIR or len(node.inputs) < 2:
            continue
        found = _described(node)
        if found is None:
            continue
        name, encoding = found
        if where:
            check_encoding(name, encoding, where=where, turned=True)
        if table.encodings.setdefault(name, encoding) != encoding:
            raise EncodingsInvalid(f"tensor {name!r} is put on two different grids", where=node.name or node.op_type)
    return table


def _described(node: ir.Node) -> tuple[str, Encoding] | None:
    """What one node says of which tensor; None where its parameters are no constants."""
    scale, zero = constant_of(node.inputs[1]), constant_of(node.inputs[2] if len(node.inputs) > 2 else None)
    if scale is None:
        return None
    held = constant_of(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
    weight, given = held is not None, zero if zero is not None else held
    kind = given.dtype if given is not None else ir.DataType.UINT8
    if kind not in _GRIDS:
        return None
    bits, signed = _GRIDS[kind]
    numbers = scale.numpy()
    zeros = zero.numpy().astype(np.int64).reshape(-1) if zero is not None else np.zeros(numbers.size, np.int64)
    axis, block = node.attributes.get("axis"), node.attributes.get("block_size")
    cut = block is not None and block.as_int() > 0
    per_channel = cut or (numbers.ndim == 1 and numbers.size > 1)
    middle = 0 if signed else 1 << (bits - 1)
    encoding = Encoding(
        tuple(float(number) for number in numbers.reshape(-1)),
        tuple(int(number) for number in zeros),
        bits,
        signed=signed,
        symmetric=bool((zeros == middle).all()),
        shape=tuple(numbers.shape) if per_channel else (),
        axis=(axis.as_int() if axis is not None else 1) if per_channel else None,
        block=block.as_int() if block is not None and cut else None,
        kind=Kind.PARAM if weight else Kind.ACTIVATION,
    )
    return plain_name(node), encoding


def plain_name(node: ir.Node) -> str:
    """The tensor's own name: what enters the first of a pair; what leaves the second where that leaves the graph."""
    source, result = node.inputs[0], node.outputs[0]
    if node.op_type == "DequantizeLinear":
        if source is not None and constant_of(source) is not None:
            return _without_suffix(result.name or "")
        maker = source.producer() if source is not None else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            return plain_name(maker)
        return (source.name or "") if source is not None else ""
    if result.is_graph_output():
        return result.name or ""
    backs = [user for user, _ in result.uses() if user.op_type == "DequantizeLinear"]
    leaving = next((user.outputs[0].name for user in backs if user.outputs[0].is_graph_output()), None)
    return leaving or ((source.name or "") if source is not None else "")


def _without_suffix(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
