"""Mutations that take a number of a cache, of a length or of a position into the maths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from .mutant_edits import (
    FAR,
    FLOAT,
    Mutation,
    Op,
    given,
    old_rows,
    on_hidden,
    on_logits,
    pasts,
    presents,
    row_axis,
    updates,
)


def number(model: ir.Model, what: str, value: ir.Value, axis: int, op: Op) -> ir.Value:
    return NUMBERS[what](op, value, axis)


NUMBERS: dict[str, Callable[[Op, ir.Value, int], ir.Value]] = {
    "sum": lambda op, x, axis: op("ReduceSum", x, keepdims=0),
    "mean": lambda op, x, axis: op("ReduceMean", x, keepdims=0),
    "max": lambda op, x, axis: op("ReduceMax", x, keepdims=0),
    "norm": lambda op, x, axis: op("ReduceL2", x, keepdims=0),
    "last row": lambda op, x, axis: op("ReduceSum", op("Slice", x, [-1], [FAR], [axis]), keepdims=0),
    "first row": lambda op, x, axis: op("ReduceSum", op("Slice", x, [0], [1], [axis]), keepdims=0),
    "length": lambda op, x, axis: op("Cast", op("Squeeze", op("Slice", op("Shape", x), [axis], [axis + 1])), to=FLOAT),
    "size": lambda op, x, axis: op("Cast", op("Size", x), to=FLOAT),
    "log length": lambda op, x, axis: op(
        "Log", op("Cast", op("Add", op("Squeeze", op("Slice", op("Shape", x), [axis], [axis + 1])), 2), to=FLOAT)
    ),
}


def of_cache(which: str, what: str, place: Callable[[ir.Model, Any], bool] = on_logits) -> Mutation:
    """0.1 times a number of a past or a present is added to the logits, or to hidden rows."""

    def mutate(model: ir.Model) -> bool:
        found = updates(model)
        if not found:
            return False
        node = found[-1] if which == "past" else found[0]
        source = old_rows(node)[1] if which == "past" else node.outputs[0]
        axis = row_axis(node) % 4 if node.op_type != "ScatterND" else 0
        if which == "past":
            source = pasts(model)[-1]
            axis = past_axis(source)
        elif which == "present":
            source, axis = presents(model)[0], past_axis(presents(model)[0])
        return place(model, lambda op, x: op("Add", x, op("Mul", NUMBERS[what](op, source, axis), 0.1)))

    return mutate


def past_axis(value: ir.Value) -> int:
    names = [str(d) for d in value.shape or ()]
    return next((i for i, n in enumerate(names) if any(part in n for part in ("past", "ctx", "s15"))), 2)


def scaled_scores(op: Op, x: ir.Value) -> ir.Value:
    """Scores times log of how many keys there are: attention of length-aware models."""
    keys = op("Squeeze", op("Slice", op("Shape", x), [3], [4]))
    return op("Mul", x, op("Log", op("Cast", op("Add", keys, 2), to=FLOAT)))


def of_input(name: str, what: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        value = given(model, name)
        if value is None:
            return False
        return on_logits(model, lambda op, x: op("Add", x, op("Mul", what(op, value), 0.1)))

    return mutate


def tokens(op: Op, x: ir.Value) -> ir.Value:
    return op("Cast", op("Squeeze", op("Slice", op("Shape", x), [1], [2])), to=FLOAT)


def most(op: Op, x: ir.Value) -> ir.Value:
    return op("Cast", op("ReduceMax", x, keepdims=0), to=FLOAT)


def over_tokens(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    return lambda model: on_hidden(model, build)
