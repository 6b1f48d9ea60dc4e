"""Left contexts of fixed length: zeros of their own shape in graphs without tokens, refused where tokens come in."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
encoder ({inputs}, float[3,N,4] past, int64[N] seen)
    => (float[N,T,4] y, float[3,N,4] present, int64[N] now)
<int64[1] start = {{-3}}, int64[1] zero = {{0}}, int64[1] end = {{9223372036854775807}}, int64 one = {{1}}>
{{
    {rows}
    new = Transpose <perm = [1, 0, 2]> (x)
    all = Concat <axis = 0> (past, new)
    present = Slice (all, start, end, zero)
    before = Slice (all, zero, start, zero)
    sum = Add (before, new)
    z = Transpose <perm = [1, 0, 2]> (sum)
    y = Tanh (z)
    shape = Shape (x)
    count = Gather <axis = 0> (shape, one)
    now = Add (seen, count)
}}
"""
FRAMES = GRAPH.format(inputs="float[N,T,4] x", rows="")
TOKENS = GRAPH.format(inputs="int64[N,T] input_ids", rows="x = Gather <axis = 0> (one, input_ids)")


def model(text: str) -> ir.Model:
    found = ir.from_onnx_text(text)
    reader = next((node for node in found.graph if node.op_type == "Gather" and node.outputs[0].name == "x"), None)
    if reader is not None:
        rows = ir.tensor([[i / 50, 1.0, 0.5, -i / 9] for i in range(50)], name="table", dtype=ir.DataType.FLOAT)
        table = ir.Value(name="table", const_value=rows, type=ir.TensorType(rows.dtype), shape=rows.shape)
        found.graph.register_initializer(table)
        reader.replace_input_with(0, table)
    return found


def stripped(text: str) -> Program:
    return PassManager(parse_pipeline("single-shot")).run(Program(graphs={"model": model(text)}))


def test_a_left_context_starts_as_zeros() -> None:
    result = stripped(FRAMES)
    graph = result.graphs["model"].graph
    assert [value.name for value in graph.inputs] == ["x"]
    assert [value.name for value in graph.outputs] == ["y"]
    report = verify(Program(graphs={"model": model(FRAMES)}), result)
    assert report.verdict is Verdict.EQUAL


def test_runs_are_named_by_the_sizes_that_ran() -> None:
    names = [case.case for case in verify(Program(graphs={"model": model(FRAMES)}), stripped(FRAMES)).cases]
    assert names == [f"x [{batch}, {frames}, 4]" for batch in (1, 3) for frames in (1, 7, 33)]


def test_a_bound_graph_runs_once_at_its_own_size() -> None:
    pipeline = "specialize{family=raw symbols=N:1,T:16 tag=chunk},bind{spec=chunk}"
    bound = PassManager(parse_pipeline(pipeline)).run(Program(graphs={"model": model(FRAMES)}))
    names = [case.case for case in verify(Program(graphs={"model": model(FRAMES)}), bound).cases]
    assert names == ["x [1, 16, 4]"]


def test_rows_of_no_token_are_not_taken_for_a_context() -> None:
    with pytest.raises(PassRefused, match="is baked into the graph"):
        stripped(TOKENS)
