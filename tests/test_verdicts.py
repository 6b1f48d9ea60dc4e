"""What verify may call equal: two programs that are two, every graph in every role that it claims, all named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes import PassManager, Program, UsageError, check_structure, find_roles, find_states, parse_pipeline
from onnx_llm_passes import verify as verify_programs
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session import settings
from onnx_llm_passes.runtime.session.session import Optimization, Session, load_onnxruntime, optimized, session_options
from onnx_llm_passes.runtime.verify.compare import Difference
from onnx_llm_passes.runtime.verify.report import CaseReport, Verdict, VerifyReport
from onnx_llm_passes.runtime.verify.verify import verify as run_verify

from .cross_graphs import cross_decoder


def loaded(tmp_path: Path) -> Program:
    ir.save(append_decoder(), tmp_path / "model.onnx")
    return Program.load(tmp_path / "model.onnx")


def test_a_program_changed_in_place_is_compared_with_its_file(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    result = PassManager(parse_pipeline("strip-states,simplify")).run(program)
    assert result is program
    assert verify_programs(program, result).equal

    node = next(node for node in result.graph("model").graph if node.op_type == "Add")
    node.op_type = "Sub"
    assert verify_programs(program, result).verdict is Verdict.DIFFERENT


def test_a_program_without_a_file_is_not_compared_with_itself(tmp_path: Path) -> None:
    program = Program(graphs={"model": append_decoder()})
    for other in (program, Program(graphs=dict(program.graphs))):
        with pytest.raises(UsageError, match=r"compared with itself; found a program that no file holds.*model\.clone"):
            verify_programs(program, other)

    read = loaded(tmp_path)
    ir.save(scatter_decoder(), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"model\.onnx, which was changed after it was loaded"):
        verify_programs(read, read)


def test_public_functions_say_what_they_take(tmp_path: Path) -> None:
    program = loaded(tmp_path)
    proto = onnx.load(tmp_path / "model.onnx")
    wrong = [
        (
            lambda: run_verify("m.onnx", program),  # type: ignore[arg-type]
            r"verify's original takes .*; found str; wanted Program\. Program.load",
        ),
        (lambda: run_verify(program, "out"), r"verify's result takes another type; found str"),  # type: ignore[arg-type]
        (lambda: verify_programs("m.onnx", program), r"m\.onnx: no such file"),
        (lambda: find_states(program), r"find_states takes .*; found onnx_llm_passes\.Program.*program\.graph\(name\)"),
        (lambda: find_roles(proto), r"find_roles takes .*; found onnx\.ModelProto.*onnx_ir\.from_proto"),
        (lambda: check_structure(proto), r"check_structure takes"),
        (lambda: Program.load(3), r"Program\.load takes .*onnx\.ModelProto"),  # type: ignore[arg-type]
        (lambda: PassManager([]).run("model.onnx"), r"PassManager\.run takes .*Program\.load\(path\)"),
    ]
    for call, message in wrong:
        with pytest.raises(UsageError, match=message):
            call()


def test_equal_needs_every_graph_in_every_role() -> None:
    same = (Difference("logits", equal=True),)
    report = VerifyReport(claims=[("prefill", "Prefill"), ("decode_k0", "Decode"), ("vision", "")])
    assert report.verdict is Verdict.NOT_RUN
    report.cases = [CaseReport("prefill", "prefill", same, claim="Prefill"), CaseReport("vision", "batch 1", same)]
    report.cases.append(CaseReport("decode_k0", "decode K=0, 0 runs", skipped="no run gave an output to compare"))
    assert report.verdict is Verdict.NOT_VERIFIED
    assert not report.equal
    assert report.not_verified == ["decode_k0: Decode"]
    assert report.to_dict()["not_verified"] == ["decode_k0: Decode"]
    with pytest.raises(Exception, match=r"not every graph was run; found decode_k0: Decode"):
        report.raise_if_different()
    report.cases.append(CaseReport("decode_k0", "decode K=0, 3 runs", same, claim="Decode"))
    assert report.verdict is Verdict.EQUAL


def test_one_graph_in_two_roles_needs_both() -> None:
    same = (Difference("logits", equal=True),)
    report = VerifyReport(claims=[("model", "Prefill"), ("model", "Decode")])
    report.cases = [CaseReport("model", "prefill, 1 runs", same, claim="Prefill")]
    assert report.not_verified == ["model: Decode"]


def weight_only(path: Path) -> ir.Model:
    """A product whose weight is integers behind DequantizeLinear, 16 x 32, in blocks as onnxruntime fuses them."""
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1, 64] x) => (float[1, 32] y) {
        w = DequantizeLinear <axis = 0, block_size = 32> (q, s)
        y = MatMul (x, w)
    }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    weights = {"q": rng.integers(-100, 100, (64, 32)).astype(np.int8), "s": rng.random((2, 32)).astype(np.float32)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(proto, path)
    return ir.load(path)


def test_an_optimized_session_rounds_no_activation(tmp_path: Path) -> None:
    """onnxruntime 1.32 fuses the pair to MatMulNBits; the level it writes there must be 0, which keeps floats."""
    model, onnxruntime = weight_only(tmp_path / "model.onnx"), load_onnxruntime()
    options = session_options(onnxruntime, Optimization.ALL)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    nodes = [n for n in onnx.load(tmp_path / "optimized.onnx").graph.node if n.op_type == "MatMulNBits"]
    assert nodes, "nothing was fused: this test sees nothing"
    assert all(a.i == 0 for n in nodes for a in n.attribute if a.name == "accuracy_level")

    x = {"x": np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)}
    spelled = Session(model).run(x)["y"]
    with optimized(Optimization.ALL):
        found = Session(model).run(x)["y"]
    assert np.abs(found - spelled).max() <= 1e-5 * np.abs(spelled).max()


def test_one_level_for_every_session(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.runtime_record()["optimization"] == "none"
    with optimized(settings.optimization_of("all")):
        assert settings.runtime_record()["optimization"] == "all"
    assert settings.runtime_record()["optimization"] == "none"
    with pytest.raises(UsageError, match=r"unknown level of --ort-optimization 'full'.*none, basic, all"):
        settings.optimization_of("full")


def integer_product() -> Program:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 4] x, int8[4, 3] w, float s, uint8 z) => (int32[2, 3] y) {
        q = QuantizeLinear (x, s, z)
        y = MatMulInteger (q, w)
    }"""
    return Program(graphs={"g": ir.from_proto(onnx.parser.parse_model(text))})


def test_saturating_kernels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.integer_kernels_saturate() in (False, True)
    monkeypatch.setattr(settings, "integer_kernels_saturate", lambda: True)
    assert "saturate on this processor" in settings.saturation_note([integer_product()])
    assert not settings.saturation_note([Program(graphs={"g": append_decoder()})])
    monkeypatch.setattr(settings, "integer_kernels_saturate", lambda: False)
    assert not settings.saturation_note([integer_product()])


def test_a_past_that_was_full_in_every_run_is_named() -> None:
    """A decoder under an encoder whose own past nothing hides: equal on a full past, and no word of other ones."""
    result = PassManager(parse_pipeline("clone-decode{ctx=32 k=0 bind=frames:5}")).run(
        Program(graphs={"model": cross_decoder()})
    )
    report = run_verify(Program(graphs={"model": cross_decoder()}), result)
    assert report.equal, report.first_difference
    assert report.limits == ["model: the past was full in every run; rows of it that hold no token were not tried"]
    assert any("own inputs only" in note for note in report.notes)
    assert not any("token by token" in case.case for case in report.cases)
