"""A decoder whose logits are a row of a table a token, and runs of it that draw in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.ir.program.contracts.sampling import NEUTRAL
from onnx_llm_passes.passes.sample_tail import SampleTail
from onnx_llm_passes.runtime.session.session import Session

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
PLACES = 64  # positions


def markov(table: np.ndarray, rows: int | str = "rows", opset: int = 18) -> ir.Model:
    """``logits [batch, rows, V]`` of the last ``rows`` of ``input_ids [batch, tokens]``; all for ``rows``."""
    vocabulary = len(table)
    ids = ir.Value(name="input_ids", type=ir.TensorType(INT64), shape=ir.Shape(["batch", "tokens"]))
    positions = ir.Value(name="position_ids", type=ir.TensorType(INT64), shape=ir.Shape(["batch", "tokens"]))
    graph = ir.Graph([ids, positions], [], nodes=[], opset_imports={"": opset}, name="markov")

    def constant(name: str, array: np.ndarray) -> ir.Value:
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        graph.register_initializer(value)
        return value

    def op(op_type: str, inputs: list[ir.Value], name: str, **attributes: Any) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name = name
        graph.append(node)
        return node.outputs[0]

    placed = op("Max", [positions, constant("zero", np.asarray(0, np.int64))], "placed")
    said = op("Gather", [constant("table", table.astype(np.float32)), ids], "said")
    where = op("Gather", [constant("places", np.zeros((PLACES, vocabulary), np.float32)), placed], "where")
    logits = op("Add", [said, where], "whole")
    if isinstance(rows, int):
        ends = [constant(n, np.asarray([v], np.int64)) for n, v in (("from", -rows), ("to", 1 << 60), ("axis", 1))]
        logits = op("Slice", [logits, *ends], "kept")
    end = op("Identity", [logits], "logits")
    end.type, end.shape = (
        ir.TensorType(FLOAT),
        ir.Shape(["batch", rows if isinstance(rows, int) else "tokens", vocabulary]),
    )
    graph.outputs.append(end)
    return ir.Model(graph, ir_version=10)


class Device:
    """Runs a graph that draws, and carries its buffers from run to run."""

    def __init__(self, model: ir.Model, tail: SampleTail) -> None:
        tail.call(model)
        self.model, self.session = model, Session(model, "drawing")
        self.types = {value.name or "": value for value in model.graph.inputs}
        self.buffers: dict[str, np.ndarray] = {}

    def run(self, ids: np.ndarray, positions: np.ndarray, rows: int, **given: Any) -> dict[str, np.ndarray]:
        """One run; what is not given changes nothing, scalars hold for every line."""
        sizes: Mapping[str, int] = {"batch": len(ids), "tokens": ids.shape[1], "rows": rows}
        feeds: dict[str, np.ndarray] = {"input_ids": ids, "position_ids": positions}
        for name, value in self.types.items():
            if name in feeds:
                continue
            shape = [dim if isinstance(dim, int) else sizes[str(dim)] for dim in value.shape or ()]
            kind, neutral = NEUTRAL[name]
            feeds[name] = self.buffers.get(name, np.full(shape, neutral, kind))
            if name in given:
                feeds[name] = np.broadcast_to(np.asarray(given[name], kind), shape)
        found = self.session.run(feeds)
        self.buffers |= {n.removesuffix("_RetainedState"): a for n, a in found.items() if n.endswith("_RetainedState")}
        return found
