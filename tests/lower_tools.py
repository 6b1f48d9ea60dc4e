"""Graphs of one operator, lowered and run beside onnxruntime's own kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from onnx_llm_passes.ir.rewrite.lower import ROWS, Layout, lower_graph
from onnx_llm_passes.runtime.session.session import Session

MS = "com.microsoft"
Arrays = Mapping[str, np.ndarray]


def one_node(
    op_type: str,
    inputs: Mapping[str, np.ndarray | None],
    outputs: Sequence[str],
    attributes: Mapping[str, object],
    *,
    domain: str = MS,
    opset: int = 22,
    constants: Sequence[str] = (),
    symbolic: Sequence[str] = (),
) -> ir.Model:
    """A graph of one node whose inputs have the arrays' types; ``constants`` are initializers, ``symbolic`` unsized."""
    names = [name if array is not None else "" for name, array in inputs.items()]
    node = helper.make_node(op_type, names, list(outputs), domain=domain, name="node", **attributes)
    given = {name: array for name, array in inputs.items() if array is not None}
    values = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [f"{name}_{i}" if name in symbolic else n for i, n in enumerate(array.shape)],
        )
        for name, array in given.items()
        if name not in constants
    ]
    held = [onnx.numpy_helper.from_array(given[name], name) for name in constants]
    results = [onnx.ValueInfoProto(name=name) for name in outputs if name]
    graph = helper.make_graph([node], "graph", values, results, held)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10 if opset < 23 else 11)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def lowered(model: ir.Model, layout: Layout = Layout.AUTO) -> ir.Model:
    """A copy with every node of a row replaced."""
    copy = model.clone()
    lower_graph(copy, lambda node: (node.domain, node.op_type) not in ROWS, owner="lower", layout=layout)
    assert not any((node.domain, node.op_type) in ROWS for node in copy.graph.all_nodes())
    onnx.checker.check_model(ir.to_proto(copy))
    return copy


def both(
    model: ir.Model, feeds: Arrays, layout: Layout = Layout.AUTO
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the kernel gives, and what the lowered graph gives."""
    names = {value.name for value in model.graph.inputs}
    given = {name: array for name, array in feeds.items() if name in names}
    kernel = Session(model, "kernel").run(given)
    for value in model.graph.outputs:
        array = kernel[value.name or ""]
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value.shape = ir.Shape([f"{value.name}_{axis}" for axis in range(array.ndim)])
    return kernel, Session(lowered(model, layout), "lowered").run(given)


def assert_close(a: np.ndarray, b: np.ndarray, tolerance: float = 2e-6, what: str = "") -> None:
    """Equal within ``tolerance`` of the largest value."""
    assert a.shape == b.shape, (what, a.shape, b.shape)
    wide, other = a.astype(np.float64), b.astype(np.float64)
    gap = np.abs(wide - other).max(initial=0.0)
    assert np.isfinite(other).all(), what
    assert gap <= tolerance * max(np.abs(wide).max(initial=0.0), 1e-3), (what, gap, np.abs(wide).max(initial=0.0))
