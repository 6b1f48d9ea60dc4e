"""Mutations of caches: what is appended or written, in which order, and what leaves."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .mutant_edits import (
    FAR,
    FLOAT,
    Mutation,
    Op,
    did,
    given,
    new_rows,
    old_rows,
    on_logits,
    on_output,
    pasts,
    presents,
    row_axis,
    updates,
    wrap,
)


def each_update(edit: Callable[[ir.Model, ir.Node], bool], first: bool = False) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        found = updates(model)[: 1 if first else None]
        return did([edit(model, node) for node in found])

    return mutate


def swap(model: ir.Model, node: ir.Node) -> bool:
    if node.op_type != "Concat":
        return False
    (_, old), (_, new) = old_rows(node), new_rows(node)
    node.replace_input_with(0, new)
    node.replace_input_with(1, old)
    return True


def on_new(build: Callable[[Op, ir.Value, int], ir.Value]) -> Callable[[ir.Model, ir.Node], bool]:
    def edit(model: ir.Model, node: ir.Node) -> bool:
        at, value = new_rows(node)
        axis = row_axis(node)
        return wrap(model, value, lambda op, x: build(op, x, axis), lambda n, i: n is node and i == at)

    return edit


def on_old(build: Callable[[Op, ir.Value, int], ir.Value]) -> Callable[[ir.Model, ir.Node], bool]:
    def edit(model: ir.Model, node: ir.Node) -> bool:
        at, value = old_rows(node)
        axis = row_axis(node)
        return wrap(model, value, lambda op, x: build(op, x, axis), lambda n, i: n is node and i == at)

    return edit


def reverse(op: Op, x: ir.Value, axis: int) -> ir.Value:
    return op("Slice", x, [-1], [-FAR], [axis], [-1])


def scale(op: Op, x: ir.Value, axis: int) -> ir.Value:
    return op("Mul", x, 0.5)


def twice(op: Op, x: ir.Value, axis: int) -> ir.Value:
    return op("Mul", op("Add", x, x), 0.5)


def half(op: Op, x: ir.Value, axis: int) -> ir.Value:
    return op("Cast", op("Cast", x, to=int(ir.DataType.FLOAT16)), to=FLOAT)


def rolled(op: Op, x: ir.Value, axis: int) -> ir.Value:
    return op("Concat", op("Slice", x, [1], [FAR], [axis]), op("Slice", x, [0], [1], [axis]), axis=axis)


def beam(model: ir.Model) -> bool:
    """Every past goes through a Gather of rows by an input, as beam search has it."""
    picked = ir.Value(name="beam_idx", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch"]))
    names = [v for v in pasts(model) if v.shape is not None and not isinstance(v.shape[0], int)]
    if not names:
        return False
    picked.shape = ir.Shape([names[0].shape[0]])  # pyright: ignore[reportOptionalSubscript]
    model.graph.inputs.append(picked)
    return did([wrap(model, past, lambda op, x: op("Gather", x, picked, axis=0)) for past in names])


def read_before_write(model: ir.Model, node: ir.Node) -> bool:
    """Attention takes the rows from before the update; what leaves stays."""
    _, old = old_rows(node)
    uses = [(n, i) for n, i in node.outputs[0].uses() if n is not node]
    kept = {id(v) for v in presents(model)}
    uses = [(n, i) for n, i in uses if not any(id(o) in kept for o in n.outputs)]
    for user, index in uses:
        user.replace_input_with(index, old)
    return bool(uses)


def half_cache(model: ir.Model) -> bool:
    """Caches in half precision in a float graph: new rows are cast before the update, all rows after it."""
    found = updates(model)
    for past in pasts(model):
        past.type = ir.TensorType(ir.DataType.FLOAT16)
    for node in found:
        at, value = new_rows(node)
        wrap(
            model,
            value,
            lambda op, x: op("Cast", x, to=int(ir.DataType.FLOAT16)),
            lambda n, i, m=node, a=at: n is m and i == a,
        )
        wrap(model, node.outputs[0], lambda op, x: op("Cast", x, to=FLOAT), inside(model))
    for value in presents(model):
        value.type = ir.TensorType(ir.DataType.FLOAT16)
    return bool(found)


def inside(model: ir.Model) -> Callable[[ir.Node, int], bool]:
    kept = {id(v) for v in presents(model)}
    return lambda node, index: node.op_type not in ("Cast",) and not any(id(o) in kept for o in node.outputs)


def extra_state(build: Callable[[Op, ir.Value, ir.Model], ir.Value], shape: list[int]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        past = ir.Value(name="past_extra", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        model.graph.inputs.append(past)
        made: list[ir.Value] = []

        def logits(op: Op, x: ir.Value) -> ir.Value:
            made.append(build(op, past, model))
            return op("Add", x, op("Mul", op("ReduceSum", made[0], keepdims=0), 0.1))

        on_logits(model, logits)
        made[0].name, made[0].type, made[0].shape = "present_extra", past.type, past.shape
        model.graph.outputs.append(made[0])
        return True

    return mutate


def counter(op: Op, past: ir.Value, model: ir.Model) -> ir.Value:
    return op("Add", past, 1.0)


def running(op: Op, past: ir.Value, model: ir.Model) -> ir.Value:
    ids = given(model, "input_ids")
    assert ids is not None
    return op("Add", op("Mul", past, 0.5), op("ReduceMean", op("Cast", ids, to=FLOAT), keepdims=0))


def int_counter(model: ir.Model) -> bool:
    past = ir.Value(name="past_count", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    model.graph.inputs.append(past)
    made: list[ir.Value] = []

    def logits(op: Op, x: ir.Value) -> ir.Value:
        made.append(op("Add", past, [1]))
        return op("Add", x, op("Cast", made[0], to=FLOAT))

    on_logits(model, logits)
    made[0].name, made[0].type, made[0].shape = "present_count", past.type, past.shape
    model.graph.outputs.append(made[0])
    return True


def past_leaves(model: ir.Model) -> bool:
    """The past itself leaves: nothing is ever written."""
    found, first = presents(model), pasts(model)
    return bool(found) and on_output(model, found[0], lambda op, x: op("Identity", first[0]))


def lost(model: ir.Model) -> bool:
    """One present is no output any more."""
    found = presents(model)
    if len(found) < 2:
        return False
    model.graph.outputs.remove(found[-1])
    return True


def optional(model: ir.Model) -> bool:
    """A weight becomes an optional input."""
    weights = [v for v in model.graph.initializers.values() if "q_proj" in (v.name or "")]
    for value in weights[:1]:
        model.graph.inputs.append(value)
    return bool(weights)
