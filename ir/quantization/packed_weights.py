"""Weights packed in blocks (MatMulNBits) are matched to the float weights of the products at their places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.encoding import Encoding, EncodingTable, Kind, check_encoding
from ..core.packed import unpack_bytes
from .qdq import quantized_as
from .weight_pairs import Matched

MS = "com.microsoft"
WIDTHS = (4, 8)  # of these DequantizeLinear has element types (opset 21)


@dataclass(frozen=True)
class Unread:
    """A packed weight that gives no encoding, and why."""

    weight: str
    why: str


def match_packed(
    source: ir.Model, models: Iterable[ir.Model], table: EncodingTable, where: str
) -> tuple[list[Matched], list[Unread]]:
    """Adds to ``table`` the grids of ``source``'s packed weights, by the names of the float weights ``[K, N]``.

    The same place is a MatMul of ``models`` that gives a tensor of the same name. EncodingsInvalid, naming the weight
    and the file ``where``, for a scale that is infinite, NaN, or zero where the float block is not all zeros.
    """
    products = {str(node.outputs[0].name): node for m in models for node in m.graph if _is_product(node)}
    matched, unread = list[Matched](), list[Unread]()
    for node in source.graph:
        if (node.domain, node.op_type) != (MS, "MatMulNBits"):
            continue
        name = str(node.inputs[1].name) if node.inputs[1] is not None else ""
        found = _matched(node, name, products.get(str(node.outputs[0].name)), table, where)
        if isinstance(found, Matched):
            matched.append(found)
        else:
            unread.append(Unread(name, found))
    return matched, unread


def _is_product(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == ("", "MatMul")


def _matched(node: ir.Node, name: str, product: ir.Node | None, table: EncodingTable, where: str) -> Matched | str:
    """The match, with its encoding added to the table; else why there is none."""
    weight = product.inputs[1] if product is not None else None
    if weight is None or weight.const_value is None or not weight.name:
        return f"no MatMul by a stored weight gives {node.outputs[0].name!r} here"
    width, rows = (node.attributes[key].as_int() for key in ("K", "N"))
    if tuple(weight.const_value.shape.numpy()) != (width, rows):
        return f"{weight.name!r} is no [{width}, {rows}]"
    encoding = _encoding(node, width, rows)
    if isinstance(encoding, str):
        return encoding
    encoding = _with_zero_blocks(encoding, weight.const_value)
    check_encoding(name, encoding, where=where, turned=True)
    if table.encodings.setdefault(weight.name, encoding) != encoding:
        return f"{weight.name!r} has another grid already"
    return Matched(name, weight.name, _others(node, weight.const_value, encoding), width * rows)


def _encoding(node: ir.Node, width: int, rows: int) -> Encoding | str:
    """The grid of the weight ``[K, N]``, blocks along K; a sentence where it has none of whole zero points."""
    bits, block = _number(node, "bits", 4), _number(node, "block_size", 0)
    scales, zeros = (constant_of(_input(node, port)) for port in (2, 3))
    if scales is None or (_input(node, 3) is not None and zeros is None):
        return "its scales or zero points are computed"
    if bits not in WIDTHS or _number(node, "weight_prepacked", 0) or _input(node, 4) is not None:
        return f"it has {bits} bits, or is laid out or permuted for one kernel"
    if zeros is not None and zeros.dtype is not ir.DataType.UINT8:
        return f"its zero points are {zeros.dtype.name}, between the integers"
    count, middle = -(-width // block), 1 << (bits - 1)
    points = np.full((rows, count), middle, np.uint8)
    if zeros is not None:
        points = unpack_bytes(zeros.numpy().reshape(rows, -1), bits)[:, :count]
    scale = scales.numpy().astype(np.float64).reshape(rows, count)
    return Encoding(
        tuple(scale.T.reshape(-1).tolist()),
        tuple(points.T.reshape(-1).tolist()),
        bits,
        symmetric=bool((points == middle).all()),
        shape=(count, rows),
        axis=0,
        block=block,
        kind=Kind.PARAM,
    )


def _with_zero_blocks(encoding: Encoding, weight: ir.TensorProtocol) -> Encoding:
    """The grid with scale 1 for blocks of zeros alone, to which onnxruntime 1.32's quantizer gives the scale 0."""
    if all(encoding.scale) or encoding.block is None:
        return encoding
    starts = np.arange(0, weight.shape.numpy()[0], encoding.block)
    reach = np.maximum.reduceat(np.abs(weight.numpy()), starts, axis=0)
    scale = np.array(encoding.scale).reshape(encoding.shape)
    scale[(scale == 0) & (reach == 0)] = 1.0
    return replace(encoding, scale=tuple(scale.reshape(-1).tolist()))


def _others(node: ir.Node, weight: ir.TensorProtocol, encoding: Encoding) -> int:
    """How many integers are others than the float weight rounded to nearest gives."""
    packed = constant_of(_input(node, 1))
    width, rows = weight.shape.numpy()
    if packed is None:
        return 0
    held = unpack_bytes(packed.numpy().reshape(rows, -1), encoding.bits)[:, :width]
    return int(np.count_nonzero(quantized_as(weight.numpy(), encoding, np.dtype(np.uint8)) != held.T))


def _input(node: ir.Node, port: int) -> ir.Value | None:
    return node.inputs[port] if port < len(node.inputs) else None


def _number(node: ir.Node, key: str, default: int) -> int:
    return node.attributes[key].as_int() if key in node.attributes else default
