"""Mutations of masks, of read indices and of positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from .mutant_edits import (
    POSITIONS,
    Mutation,
    Op,
    did,
    given,
    masks,
    ranges,
    reads,
    softmaxes,
    updates,
    wrap,
)


def compares(ops: dict[str, str]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        found = [node for node in masks(model) if node.op_type in ops]
        for node in found[:1]:
            node.op_type = ops[node.op_type]
        return bool(found)

    return mutate


FLIPPED = {"Less": "Greater", "LessOrEqual": "GreaterOrEqual", "Greater": "Less", "GreaterOrEqual": "LessOrEqual"}
STRICT = {"Less": "LessOrEqual", "LessOrEqual": "Less", "Greater": "GreaterOrEqual", "GreaterOrEqual": "Greater"}


def on_compare(side: int, build: Callable[[Op, ir.Value], ir.Value], *, every: bool = True) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        done = False
        for node in masks(model)[: None if every else 1]:
            value = node.inputs[side]
            if value is not None:
                done |= wrap(model, value, build, lambda n, i, m=node: n is m and i == side)
        return done

    return mutate


def on_mask(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        return did([wrap(model, node.outputs[0], build) for node in masks(model)[:1]])

    return mutate


def on_ranges(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        return did([wrap(model, node.outputs[0], build) for node in ranges(model)])

    return mutate


def bounds(model: ir.Model) -> bool:
    """Range(0, n) becomes Range(1, n + 1)."""
    found = ranges(model)
    for node in found:
        for at in (0, 1):
            value = node.inputs[at]
            assert value is not None
            wrap(model, value, lambda op, x: op("Add", x, 1), lambda n, i, m=node, a=at: n is m and i == a)
    return bool(found)


def on_scores(build: Callable[[Op, ir.Value], ir.Value], *, first: bool = False) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        found = softmaxes(model)[: 1 if first else None]
        return did([wrap(model, v, build, lambda u, i, m=n: u is m) for n in found for v in n.inputs if v is not None])

    return mutate


def unmasked(model: ir.Model) -> bool:
    """The scores of the first layer reach the softmax without their mask."""
    node = softmaxes(model)[0] if softmaxes(model) else None
    last = node.inputs[0].producer() if node is not None and node.inputs[0] is not None else None
    if node is None or last is None or last.op_type not in ("Add", "Where"):
        return False
    scores = last.inputs[2] if last.op_type == "Where" else last.inputs[0]
    node.replace_input_with(0, scores)
    return True


def soft(model: ir.Model) -> bool:
    """What hides a key is -1, and not the smallest number: hidden rows have weights."""
    done = False
    for node in list(model.graph):
        attribute = node.attributes.get("value") if node.op_type in ("Constant", "ConstantOfShape") else None
        if attribute is None or attribute.as_tensor().dtype is not ir.DataType.FLOAT:
            continue
        array: Any = attribute.as_tensor().numpy()
        if array.size == 1 and array.reshape(-1)[0] < -1e9:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.full(array.shape, -1.0, np.float32)))
            done = True
    return done


def wrong_axis(model: ir.Model) -> bool:
    found = softmaxes(model)
    for node in found:
        node.attributes["axis"] = ir.AttrInt64("axis", -2)
    return bool(found)


def reading(ops: dict[str, str]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        found = reads(model)
        for node in found:
            node.op_type = ops[node.op_type]
        return bool(found)

    return mutate


def read_at(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        found = [n for n in model.graph if n.op_type.startswith("CtxGather")]
        return did([wrap(model, v, build, lambda u, i, m=n: u is m) for n in found for v in n.inputs[-2:-1] if v])

    return mutate


def written_at(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        done = False
        for node in updates(model):
            at = POSITIONS.get(node.op_type)
            value = node.inputs[at] if at is not None else None
            if value is not None:
                done |= wrap(model, value, build, lambda n, i, m=node, a=at: n is m and i == a)
        return done

    return mutate


def positions(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        value = given(model, "position_ids")
        return value is not None and wrap(model, value, build)

    return mutate


def turned(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    """Positions of the rotary embedding alone."""

    def mutate(model: ir.Model) -> bool:
        value = given(model, "position_ids")
        turning = {"Gather", "Unsqueeze"}
        return value is not None and wrap(
            model, value, build, lambda n, i: n.op_type in turning and "rotary" in (n.name or "") + "rotary" * (i == 1)
        )

    return mutate
