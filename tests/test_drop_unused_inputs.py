"""drop-unused-inputs: what nothing reads leaves the graph, and what is read does not."""

from __future__ import annotations

import onnx_ir as ir

from onnx_llm_passes.passes.drop_unused_inputs import DropUnusedInputs


def test_only_inputs_without_a_reader_go_those_of_branches_included() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 18]>
    g (bool c, float[N] x, float[N] inside, float[N] unread) => (float[N] y) {
       y = If (c) <then_branch = t () => (float[N] a) { a = Add (x, inside) },
                   else_branch = e () => (float[N] b) { b = Relu (x) }>
    }""")
    result = DropUnusedInputs().call(model)
    assert [value.name for value in model.graph.inputs] == ["c", "x", "inside"]
    assert result.notes == ("removed unread, which nothing read",)
