"""Padding at position -1 stays away from operators that want indices into their tables."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.verifier import check_structure
from onnx_llm_passes.passes.clamp_positions import ClampPositions
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.session.session import RunError, Session

from .convert_tools import CLOSE, compare, convert

ROWS, HALF = 64, 2


def rotating(model: ir.Model) -> ir.Model:
    """The decoder with its embeddings rotated by com.microsoft RotaryEmbedding."""
    graph = model.graph
    tokens = next(value for value in graph.inputs if value.name == "input_ids")
    positions = next(value for value in graph.inputs if value.name == "position_ids")
    gather = next(use.node for use in tokens.uses() if use.node.op_type == "Gather")
    angles = np.arange(ROWS)[:, None] * np.array([1.0, 0.1])[None]
    tables = [ir.Value(name=n, const_value=ir.tensor(a.astype(np.float32), name=n)) for n, a in
              (("cos_table", np.cos(angles)), ("sin_table", np.sin(angles)))]  # fmt: skip
    for table in tables:
        graph.register_initializer(table)
    rows = gather.outputs[0]
    assert rows.shape is not None or rows.name
    width = next(value for value in gather.inputs if value is not tokens)
    assert width is not None and width.shape is not None
    heads = int(width.shape.numpy()[1]) // (2 * HALF)
    node = ir.node("RotaryEmbedding", [rows, positions, *tables], {"num_heads": heads}, domain="com.microsoft")
    node.outputs[0].name, node.name = "rotated", "rotate"
    rows.replace_all_uses_with(node.outputs[0])
    node.replace_input_with(0, rows)
    graph.insert_after(gather, node)
    model.opset_imports["com.microsoft"] = 1
    check_structure(model)
    return model


def test_a_converted_graph_takes_padding() -> None:
    model = rotating(append_decoder())
    assert compare(model, convert(model)) <= CLOSE


def test_the_kernel_refuses_what_is_clamped() -> None:
    """Else the pass would be there for nothing."""
    model = rotating(append_decoder())
    copy = model.clone()
    assert ClampPositions().call(copy).counts == {"operators": 1}
    assert not ClampPositions().call(copy).modified
    sizes = {"input_ids": (1, 2), "position_ids": (1, 2), "attention_mask": (1, 2)}
    feeds = {name: np.zeros(size, np.int64) for name, size in sizes.items()} | {"position_ids": np.array([[0, -1]])}
    for value in model.graph.inputs:
        if value.name not in sizes:
            assert value.shape is not None
            dims = [dim if isinstance(dim, int) else 0 if at == 2 else 1 for at, dim in enumerate(value.shape)]
            feeds[value.name or ""] = np.zeros(dims, np.float32)
    feeds["attention_mask"] = np.array([[1, 0]])
    with pytest.raises(RunError, match="position"):
        Session(model).run(feeds)
    assert np.isfinite(Session(copy).run(feeds)["logits"][0, 0]).all()
