"""The local functions CtxScatter and CtxGather write and read rows by position in operators every runtime has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...core.errors import PassRefused
from ..builder import Builder

CLOUD = "com.qualcomm.cloud"


def add_cache_functions(model: ir.Model, owner: str) -> None:
    """Adds both functions to the model; raises PassRefused where it has others of that name.

    ``CtxScatter(data[B,H,C,D], position_ids[B,S], updates[B,H,S,D])`` writes rows,
    ``CtxGather(data[B,H,C,D], ctx_indices[1|B,1,L], comp_ctx_len)`` reads them back. Sizes are taken from shapes as
    scalars, so that Range accepts them with fixed dimensions too.
    """
    opset = model.opset_imports[""]
    functions = [build(opset, owner) for build in (_scatter, _gather)]
    for function in functions:
        if function.identifier() in model.functions:
            raise PassRefused(
                f"the graph has a function {CLOUD}::{function.name} of its own",
                where=f"{owner}, graph {model.graph.name!r}",
                hint="Use ops=ai.onnx.",
            )
    for function in functions:
        model.functions[function.identifier()] = function
    model.opset_imports.setdefault(CLOUD, 1)


class _Body:
    """Writes the nodes of one function, constants as nodes."""

    def __init__(self, name: str, opset: int, owner: str, *inputs: str) -> None:
        self.inputs = [ir.Value(name=text) for text in inputs]
        graph = ir.Graph(self.inputs, [], nodes=[], name=name, opset_imports={"": opset})
        self.function = ir.Function(CLOUD, name, graph=graph, attributes={})
        self._builder = Builder(self.function, owner)

    def op(self, op_type: str, *operands: ir.Value | int | Sequence[int], **attributes: object) -> ir.Value:
        values = [v if isinstance(v, ir.Value) else self.constant(v) for v in operands]
        return self._node(op_type, values, attributes)

    def constant(self, numbers: int | Sequence[int]) -> ir.Value:
        return self._node("Constant", [], {"value": ir.tensor(np.asarray(numbers, np.int64))})

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        return self.op("Gather", self.op("Shape", value), axis, axis=0)

    def _node(self, op_type: str, values: Sequence[ir.Value], attributes: dict[str, object]) -> ir.Value:
        name = f"{self.function.name}/{op_type}_{len(self.function)}"
        value = self._builder.op(op_type, values, name, attributes, dtype=None, exact=True)
        self._builder.place_end()
        return value

    def giving(self, output: ir.Value) -> ir.Function:
        self.function.outputs.append(output)
        return self.function


def _scatter(opset: int, owner: str) -> ir.Function:
    body = _Body("CtxScatter", opset, owner, "data", "position_ids", "updates")
    data, positions, updates = body.inputs
    batch, heads = (body.op("Range", 0, body.size(data, axis), 1) for axis in (0, 1))
    sizes = [body.op("Unsqueeze", body.size(*at), [0]) for at in ((data, 0), (data, 1), (positions, 1))]
    shape = body.op("Concat", *sizes, axis=0)
    flat = [
        body.op("Unsqueeze", batch, [1, 2]),
        body.op("Unsqueeze", heads, [0, 2]),
        body.op("Unsqueeze", positions, [1]),
    ]
    columns = [body.op("Unsqueeze", body.op("Expand", column, shape), [3]) for column in flat]
    written = body.op("ScatterND", data, body.op("Concat", *columns, axis=3), updates)
    return body.giving(written)


def _gather(opset: int, owner: str) -> ir.Function:
    body = _Body("CtxGather", opset, owner, "data", "ctx_indices", "comp_ctx_len")
    data, indices, length = body.inputs
    sizes = [body.op("Unsqueeze", body.size(data, axis), [0]) for axis in (0, 1)]
    shape = body.op("Concat", *sizes, body.op("Reshape", length, [1]), axis=0)
    rows = body.op("Unsqueeze", body.op("Expand", indices, shape), [3])
    read = body.op("GatherND", data, rows, batch_dims=2)
    return body.giving(read)
