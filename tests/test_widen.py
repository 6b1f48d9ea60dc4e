"""Half precision: a float32 copy of a graph, and verdicts that rounding or missing kernels would leave open."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.scopes import scopes
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.samples.writer import Writer
from onnx_llm_passes.runtime.session import widen
from onnx_llm_passes.runtime.session.widen import widened
from onnx_llm_passes.runtime.verify.report import Verdict, VerifyReport
from onnx_llm_passes.runtime.verify.verify import verify

HALF, BRAIN, FLOAT = ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT


def narrowed(model: ir.Model, dtype: ir.DataType) -> ir.Model:
    """The graph in half precision, as an exporter writes it: types, weights, constants, casts."""
    model.graph.opset_imports[""] = 22  # from which on every operator takes bfloat16
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    low = float(np.finfo(np.float16).min)
    for value in values:
        if value.dtype is FLOAT:
            value.type = ir.TensorType(dtype)
        if value.const_value is not None and value.const_value.dtype is FLOAT:
            value.const_value = ir.tensor(value.const_value.numpy().astype(dtype.numpy()), name=value.name)
    for node in model.graph:
        found = node.attributes.get("value")
        if found is not None and found.as_tensor().dtype is FLOAT:
            array = np.maximum(found.as_tensor().numpy(), low).astype(dtype.numpy())
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array))
        if node.op_type == "Cast" and node.attributes["to"].as_int() == FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(dtype))
    return model


def stripped(model: ir.Model) -> Program:
    return PassManager(parse_pipeline("single-shot")).run(Program({"model": model}))


def compared(dtype: ir.DataType, text: str, damage: float = 0.0) -> VerifyReport:
    original = Program({"model": narrowed(append_decoder(), dtype)})
    result = PassManager(parse_pipeline(text)).run(Program({"model": narrowed(append_decoder(), dtype)}))
    head = next(model for model in result.graphs.values()).graph.initializers["lm_head.weight"]
    assert head.const_value is not None
    head.const_value = ir.tensor((head.const_value.numpy() * (1 + damage)).astype(dtype.numpy()), name=head.name)
    return verify(original, result)


@pytest.mark.parametrize("text", ["single-shot", "convert-states,clone-decode{ctx=32 k=0,2 prefill=8}"])
def test_what_the_runtime_has_no_kernels_for_is_run_in_float32(text: str) -> None:
    report = compared(BRAIN, text)
    assert report.equal, report.first_difference
    assert any("no CPU kernel" in note and "float32 throughout" in note for note in report.notes)
    assert compared(BRAIN, text, damage=0.25).verdict is Verdict.DIFFERENT


def test_a_small_difference_that_float32_has_too_is_one() -> None:
    assert compared(HALF, "single-shot").equal
    assert compared(HALF, "single-shot", damage=0.004).verdict is Verdict.DIFFERENT


def rounded(*, between: bool) -> Program:
    """A product and a sum; in the middle of it a rounding to half precision that no runtime leaves out, or none."""
    w = Writer()
    x = w.input("x", HALF, ["n", 4])
    factor, term = (w.initializer(n, np.array([1.2345, 0.777, 3.1, 0.1], np.float32)) for n in ("factor", "term"))
    y = w.op("Mul", w.op("Cast", x, to=FLOAT), factor)
    if between:
        y = w.op("Cast", w.op("Transpose", w.op("Cast", y, to=HALF), perm=[0, 1]), to=FLOAT)
    w.output("y", w.op("Cast", w.op("Add", y, term), to=HALF), ["n", 4], HALF)
    return Program({"model": w.model()})


def test_rounding_alone_is_no_difference_and_is_told() -> None:
    report = verify(rounded(between=True), rounded(between=False))
    assert report.equal, report.first_difference
    assert any("rounding differs by" in note for note in report.notes)


def test_the_copy_has_no_half_precision_and_the_graph_keeps_its_own() -> None:
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        g (float16[n] x, bool c) => (float16[n] y) <float16[1] h = {15872}> {
           a = If (c) <then_branch = t () => (float16[n] p) { p = Cast <to = 10> (x) },
                       else_branch = e () => (float16[n] q) { q = Add (x, h) }>
           y = local.twice (a)
        }
        <domain: "local", opset_import: ["" : 18]> twice (x) => (y) {
           two = Constant <value = float16 {16384}> ()
           y = Mul (x, two)
        }
    """)
    before = ir.to_proto(model).SerializeToString()
    wide = widened(model)
    assert wide is not None and ir.to_proto(model).SerializeToString() == before
    assert "FLOAT16" not in str(wide) and widened(wide) is None
    assert float(wide.graph.initializers["h"].const_value.numpy()[0]) == 1.5  # type: ignore[union-attr]
    casts = [node for scope in scopes(wide) for node in scope if node.op_type == "Cast"]
    assert [node.attributes["to"].as_int() for node in casts] == [FLOAT]


def test_more_weights_than_memory_should_hold_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widen, "MAX_BYTES", 1)
    report = compared(BRAIN, "single-shot")
    assert report.verdict is Verdict.STRUCTURE_ONLY
