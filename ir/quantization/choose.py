"""States, activations and weights that are put on a grid are chosen here, and which grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ..core.encoding import Encoding, EncodingTable, Kind
from ..core.errors import PassRefused
from ..core.operators import of
from ..interface.roles import Role, find_roles
from ..shapes.float_values import float_values
from ..states import State
from .decide import Choice
from .grid import Symmetry, encoding_of, evidence_of, no_evidence
from .groups import Group
from .layout_ops import axes_after, is_move, is_one_to_one, moved_input
from .qdq import on_grid
from .variants import Rules

_MASKS = (Role.ATTENTION_MASK, Role.ENCODER_MASK)
_HOST_SIDE = (Role.POSITIONS, Role.BATCH_INDEX, Role.LOGITS_TO_KEEP, Role.ADAPTER, Role.SAMPLING, Role.OTHER)
HOST_SIDE = frozenset((*_MASKS, *_HOST_SIDE))
MAX_MOVES = 64  # no graph chains more operators that only move numbers


def activations_of(model: ir.Model, states: list[State], rules: Rules) -> list[ir.Value]:
    """The float values to quantize: those that depend on what is said, not on positions and masks alone.

    PassRefused where an operator among them has no rule for its quantization.
    """
    roles = find_roles(model, states)
    moving = {v for v in model.graph.inputs if roles.get(v.name or "", Role.OTHER) not in HOST_SIDE}
    floats = set(float_values(model))
    found: list[ir.Value] = [value for value in model.graph.inputs if value in moving and value in floats]
    for node in model.graph:
        if node.op_type == "Shape" or not any(value in moving for value in node.inputs if value is not None):
            continue
        moving.update(node.outputs)
        own = [value for value in node.outputs if value in floats]
        if own and not rules.keeps(node):
            rules.check(model, node)
            found += own
    return found


def inside_sum(table: EncodingTable, value: ir.Value) -> bool:
    """Whether a tensor that the table does not know is a product that only the sum with a bias reads.

    AIMET (2.42.0) has one quantizer for the two, behind the sum; QNN's FullyConnected takes the bias as an input.
    """
    maker, uses = value.producer(), list(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0][0].op_type != "Add":
        return False
    if maker is None or maker.op_type != "MatMul":
        return False
    bias = uses[0][0].inputs[1 - uses[0][1]]
    if bias is None or bias.const_value is None or len(bias.const_value.shape) != 1:
        return False
    return not any(name in table.encodings or name in table.ranges for name in moved_from(value))


def encoding_for(table: EncodingTable, value: ir.Value, choice: Choice) -> Encoding:
    """The table's encoding of an activation, else one of what was watched; NoEvidence names the tensor.

    Where the choice is strict, a grid of other bits is made anew, of what was watched or of what it covers.

    A tensor that the table does not know, but that only moves numbers of one that it does (rows chosen by a pass after
    the calibration), is on that one's grid.
    """
    name = value.name or ""
    known = next((at for at in moved_from(value) if at in table.encodings or at in table.ranges), None)
    if known is None:
        raise no_evidence(name, None)
    symmetry = Symmetry.SYMMETRIC if choice.symmetric else Symmetry.ASYMMETRIC
    found = table.encodings.get(known)
    if found is None or (choice.strict and found.bits != choice.bits and found.per_tensor and found.scale):
        seen = table.ranges.get(known)
        if seen is None or (not seen.usable and found is not None):
            assert found is not None, "one of the two is there"
            seen = evidence_of(found)
        return encoding_of(known, seen, choice.bits, symmetry, choice.method)
    if known != name and not found.per_tensor:
        raise no_evidence(name, None)  # what became of the channels is not known
    return found


def moved_from(value: ir.Value) -> Iterator[str]:
    """The tensor's name, and those of the tensors whose numbers it holds, nearest first."""
    for _ in range(MAX_MOVES):
        yield value.name or ""
        node = value.producer()
        source = node.inputs[moved_input(node)] if node is not None and is_move(node) else None
        if source is None:
            return
        value = source


def check_tied(groups: list[Group], table: EncodingTable) -> None:
    """PassRefused where members of a state's group are on different grids: nothing downstream would tell."""
    for group in groups:
        # what a pair stands at already has the pair's grid
        open_names = [value.name or "" for value in group.members if not on_grid(value)]
        known = {name: table.encodings.get(name) for name in open_names}
        leader = table.encodings.get(group.leader.name or "")
        for name, encoding in known.items():
            same = encoding is not None and leader is not None and _grid(encoding) == _grid(leader)
            if not same:
                raise PassRefused(
                    f"state {group.name!r} is not tied: {name!r} and {group.leader.name!r} are on different grids",
                    found=_short(encoding),
                    wanted=_short(leader),
                    hint="Run tie-states first.",
                )


def _grid(encoding: Encoding) -> tuple[object, ...]:
    e = encoding
    return e.scale, e.zero_point, e.bits, e.signed, e.number


def _short(e: Encoding | None) -> str:
    return "no encoding" if e is None else f"{e.bits} bits, scale {e.scale[:1]}, zero point {e.zero_point[:1]}"


def as_held(encoding: Encoding, dtype: ir.DataType, kind: Kind) -> Encoding:
    """The encoding with its scales as the graph's float type holds them; ``kind`` where its file tells none.

    Files in AIMET's version 2.0.0 do not say what their grids stand at.
    """
    with np.errstate(over="ignore"):  # check_grid refuses what became infinite
        scale = np.array(encoding.scale, np.float64).astype(dtype.numpy())
    scales = tuple(float(number) for number in scale.reshape(-1))
    return replace(encoding, scale=scales, low=None, high=None, kind=encoding.kind or kind)


def weights_of(model: ir.Model, rules: Rules) -> dict[ir.Value, int]:
    """Each float initializer that multiplies activations, and the axis of it that makes output channels."""
    found: dict[ir.Value, int] = {}
    for node in model.graph:
        product = of(node).product
        floats = product is not None and product.rows is not None and not product.integers and not product.packed
        port = product.weight if product is not None and floats else len(node.inputs)
        value = node.inputs[port] if port < len(node.inputs) else None
        if value is None or not rules.reads(node):
            continue
        traced = _initializer(value, _channel(node, value))
        if traced is not None:
            found.setdefault(*traced)
    return found


def _channel(node: ir.Node, value: ir.Value) -> int:
    rank = len(value.shape) if value.shape is not None else 2
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    return 0 if node.op_type == "Conv" else rank - 1


def _initializer(value: ir.Value, axis: int) -> tuple[ir.Value, int] | None:
    """The weight behind ``value``, through operators that only move it, and where the axis is there."""
    while value.const_value is None:
        node = value.producer()
        if node is None or not is_one_to_one(node) or node.inputs[0] is None:
            return None
        source = node.inputs[0]
        shape = tuple(d if isinstance(d, int) else None for d in source.shape or ()) or None
        axes = axes_after(node, shape, None)
        if axes is None or axis >= len(axes) or axes[axis] is None:
            return None
        value, axis = source, axes[axis] or 0
    is_weight = value.is_initializer() and len(value.const_value.shape) >= 2
    return (value, axis) if is_weight and value.const_value.dtype.is_floating_point() else None
