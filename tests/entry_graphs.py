"""Small graphs whose past is reordered or cut on its way to the update."""

from __future__ import annotations

import onnx_ir as ir

from .append_graphs import append_plain

FAR = 2**63 - 1


def reordered(model: ir.Model) -> ir.Model:
    """The graph with the lines of every past chosen by ``beam_idx [batch]``, as stateful exporters write it."""
    index = ir.Value(name="beam_idx", shape=ir.Shape(["batch"]), type=ir.TensorType(ir.DataType.INT32))
    for past in [value for value in model.graph.inputs if len(value.shape or ()) == 4]:
        _before_all(model, past, ir.node("Gather", [past, index], {"axis": 0}))
    model.graph.inputs.append(index)
    return model


def cut_before_and_after(window: int = 4) -> ir.Model:
    """A sliding window as transformers 5 exports it: the last ``window - 1`` rows, before the append and after it."""
    model = append_plain(window=window)
    for past in [value for value in model.graph.inputs if len(value.shape or ()) == 4]:
        _before_all(model, past, ir.node("Slice", [past, *_bounds(model, window - 1)]))
    for at, grown in enumerate(model.graph.outputs[1:], 1):
        cut = ir.node("Slice", [grown, *_bounds(model, window - 1)])
        name, shape = grown.name, list(grown.shape or ())
        grown.name, cut.outputs[0].name, cut.outputs[0].type = f"{name}/whole", name, grown.type
        shape[2] = f"Max(0, past + seq - Max(0, past + seq - {window - 1}))"
        cut.outputs[0].shape = ir.Shape(shape)
        model.graph.append(cut)
        model.graph.outputs[at] = cut.outputs[0]
    return model


def _before_all(model: ir.Model, past: ir.Value, node: ir.Node) -> None:
    """Every user of ``past`` takes what ``node`` makes of it."""
    made = node.outputs[0]
    made.name, made.type, made.shape = f"{past.name}/entered", past.type, past.shape
    users = [(use.node, use.idx) for use in past.uses() if use.node is not node]
    for user, at in users:
        user.replace_input_with(at, made)
    model.graph.insert_before(model.graph[0], node)


def _bounds(model: ir.Model, rows: int) -> list[ir.Value]:
    """Starts, ends and axes of the Slice that keeps the last ``rows`` on axis 2."""
    found: list[ir.Value] = []
    for number in (-rows, FAR, 2):
        name = f"bound_{number}"
        value = ir.Value(name=name, const_value=ir.tensor([number], name=name))
        value.dtype, value.shape = ir.DataType.INT64, ir.Shape([1])
        found.append(model.graph.initializers.setdefault(name, value))
    return found
