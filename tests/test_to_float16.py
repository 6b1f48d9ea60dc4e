"""Half precision: no number becomes infinite, everything that stays in float32 says why, and rounding is seen."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes import PassManager, PassRefused, Program, parse_pipeline, verify
from onnx_llm_passes.ir.core.errors import UnknownNameError
from onnx_llm_passes.ir.quantization import EncodingTable, Evidence, print_encodings
from onnx_llm_passes.runtime.calibrate.calibrate import calibrate
from onnx_llm_passes.runtime.compare.programs import compare_programs
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.rounded import rounded_copy
from onnx_llm_passes.runtime.session.session import Session
from onnx_llm_passes.runtime.verify.report import Verdict

from .quantized_graphs import fused_decoder

TEXTS = [np.random.default_rng(5).integers(0, 60, 24) for _ in range(2)]


def loud_decoder(fill: float = float(np.finfo(np.float32).min)) -> ir.Model:
    """The growing sample with products of the MLP near 6e4, hidden rows of some thousands, and the given mask fill."""
    model = append_decoder()
    for name, value in model.graph.initializers.items():
        factor = 3000.0 if "up_proj" in name else 1.0
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)
    for node in model.graph:
        held = node.attributes.get("value")
        if held is not None and held.as_tensor().size == 1 and held.as_tensor().numpy().item() < -1e30:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.float32(fill)))
    return model


def converted(build: object, options: str = "", *, texts: object = TEXTS) -> Program:
    program = Program(graphs={"model": build()})  # type: ignore[operator]
    from onnx_llm_passes.ir.quantization.carried import put_table

    put_table(program, calibrate(program, texts))  # type: ignore[arg-type]
    return PassManager(parse_pipeline(f"to-float16{options}")).run(program)


def notes(program: Program) -> str:
    return " | ".join(program.history[-1].notes)


def halves(program: Program) -> int:
    return program.history[-1].counts.get("half", 0)


@pytest.mark.parametrize("fill", [float(np.finfo(np.float32).min), -np.inf, -65504.0])
def test_nothing_becomes_infinite_that_was_not(fill: float) -> None:
    """On ±6e4 activations and huge masks, each result rounded as a device rounds it."""
    build = lambda: loud_decoder(fill)  # noqa: E731
    original, result = Program(graphs={"model": build()}), converted(build)
    largest = max(abs(s.low) + abs(s.high) for s in calibrate(original, TEXTS).ranges.values() if s.usable)
    assert largest > 6e4
    found = compare_programs(original, result, TEXTS)
    assert found.rounded
    logits, other = found.logits  # type: ignore[misc]
    assert np.isfinite(other).all()
    assert np.abs(logits - other).max() <= 2e-3 * np.abs(logits).max()
    assert re.search(r"its range passes 65504 / 2", notes(result))
    assert halves(result) > 100


def test_the_evaluation_shows_what_the_cpu_hides() -> None:
    """With ranges that are a lie, products overflow: seen result by result, not by running the graph."""
    original = Program(graphs={"model": loud_decoder()})
    program = Program(graphs={"model": loud_decoder()})
    from onnx_llm_passes.ir.quantization.carried import put_table

    table = calibrate(program, TEXTS)
    put_table(program, EncodingTable(ranges={name: Evidence(-1.0, 1.0) for name in table.ranges}))
    result = PassManager(parse_pipeline("to-float16")).run(program)
    logits, other = compare_programs(original, result, TEXTS).logits  # type: ignore[misc]
    # an infinite product makes the norm behind it 0 or NaN
    assert not np.isfinite(other).all() or np.abs(logits - other).max() > 0.1 * np.abs(logits).max()


@pytest.mark.parametrize("build", [append_decoder, scatter_decoder])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_verify_within_what_their_contract_says(build: object, dtype: str) -> None:
    result = converted(build, f"{{dtype={dtype}}}")
    report = verify(Program(graphs={"model": build()}), result)  # type: ignore[operator]
    assert report.verdict is Verdict.EQUAL, report.notes
    assert 0 < max(output.max_rel for case in report.cases for output in case.outputs) < 2e-2
    assert "half-precision" in {contract.kind for contract in result.contracts}


def test_every_reason_is_told() -> None:
    text = notes(converted(append_decoder, "{keep=/model/layers.1/mlp/*}"))
    for reason in (
        "a norm",
        "a sum over an axis",
        "positions and masks alone",
        "beyond 65504, as masks",
        "asked by keep",
    ):
        assert reason in text, reason
    text = notes(converted(scatter_decoder))
    assert "a local function computes as its body says" in text
    assert "an attention: nothing watched the scores inside" in notes(converted(fused_decoder))


def test_no_mask_is_a_half() -> None:
    program = converted(append_decoder)
    for node in program.graphs["model"].graph:
        for value in node.outputs:
            tensor = value.const_value
            if value.dtype is ir.DataType.FLOAT16 and tensor is not None:
                assert np.isfinite(tensor.numpy().astype(np.float32)).all()
    kinds = {node.op_type: node.outputs[0].dtype for node in program.graphs["model"].graph}
    assert kinds["Softmax"] in (None, ir.DataType.FLOAT)


def test_graph_inputs_and_outputs_keep_their_types() -> None:
    program = converted(append_decoder)
    ports = (*program.graphs["model"].graph.inputs, *program.graphs["model"].graph.outputs)
    assert {port.dtype for port in ports} == {ir.DataType.FLOAT, ir.DataType.INT64}


def test_weights_become_halves_on_disk(tmp_path: Path) -> None:
    program = converted(append_decoder)
    program.save(tmp_path / "half")
    Program(graphs={"model": append_decoder()}).save(tmp_path / "whole")
    sizes = {name: sum(f.stat().st_size for f in (tmp_path / name).glob("*.data")) for name in ("half", "whole")}
    assert sizes["half"] < 0.75 * sizes["whole"], "the table of words is float32 where a norm alone reads it"
    report = verify(tmp_path / "whole", tmp_path / "half")
    assert report.verdict is Verdict.EQUAL


def scaled(weight: float, seen: float = 1.0) -> Program:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[2,4] features) => (float[2,4] y) <float c = {1.0}> { m = Mul (features, c)  y = Relu (m) }"""
    program = Program(graphs={"model": ir.from_onnx_text(text.replace("{1.0}", f"{{{weight!r}}}"))})
    program.graphs["model"].graph.inputs[0].name = "inputs_embeds"
    from onnx_llm_passes.ir.quantization.carried import put_table

    put_table(program, EncodingTable(ranges={n: Evidence(-seen, seen) for n in ("inputs_embeds", "m", "y")}))
    return program


@pytest.mark.parametrize(
    ("weight", "seen", "reason"),
    [(1e-9, 1.0, "a constant that would be 0"), (7e4, 1.0, "beyond 65504"), (2.0, 4e4, "its range passes 65504 / 2")],
)
def test_constants_and_ranges_that_do_not_fit_stay(weight: float, seen: float, reason: str) -> None:
    result = PassManager(parse_pipeline("to-float16")).run(scaled(weight, seen))
    assert reason in notes(result)


def test_headroom_is_what_the_calibration_may_have_missed() -> None:
    assert halves(PassManager(parse_pipeline("to-float16{headroom=1}")).run(scaled(2.0, 4e4))) == 2


def test_what_cannot_be_proved_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    program = Program(graphs={"model": append_decoder()})
    before = ir.to_proto(program.graphs["model"]).SerializeToString()
    with pytest.raises(PassRefused, match="nothing tells which numbers fit"):
        PassManager(parse_pipeline("to-float16")).run(program)
    (tmp_path / "e.json").write_text(print_encodings(EncodingTable(ranges={"nobody": Evidence(0.0, 1.0)})))
    with pytest.raises(PassRefused, match="name no tensor of the program"):
        PassManager(parse_pipeline(f"to-float16{{ranges={tmp_path / 'e.json'}}}")).run(program)
    with pytest.raises(UnknownNameError, match="nobody"):
        PassManager(parse_pipeline("to-float16{dtype=bfloat16 keep=nobody}")).run(program)
    assert ir.to_proto(program.graphs["model"]).SerializeToString() == before


def test_clones_are_converted_alike() -> None:
    program = Program(graphs={"model": append_decoder()})
    from onnx_llm_passes.ir.quantization.carried import put_table

    put_table(program, calibrate(program, TEXTS))
    pipeline = "to-float16,clone-decode{k=0,2 prefill=8 ctx=32}"
    result = PassManager(parse_pipeline(pipeline)).run(program)
    report = verify(Program(graphs={"model": append_decoder()}), result)
    assert report.verdict is Verdict.EQUAL, report.notes


NUMBERS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("name", NUMBERS)
def test_rounding_is_that_of_the_type(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(50_000) * 10.0 ** rng.uniform(-9, 5.2, 50_000)
    if name == "bfloat16":
        x = np.concatenate([x, x[:1000] * 1e32])
    edges = [
        0,
        65504,
        65519.9,
        65520,
        -65520,
        1e30,
        3.39e38,
        3.4e38,
        np.inf,
        -np.inf,
        np.nan,
        2**-24,
        2**-25,
        1.5 * 2**-25,
    ]
    x = np.concatenate([x, edges]).astype(np.float32)
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (%s[N] y) { y = Cast <to = %d> (x) }'
    model = ir.from_onnx_text(text % (name, int(ir.DataType[name.upper()])))
    with np.errstate(over="ignore"):
        wanted = x.astype(NUMBERS[name]).astype(np.float32)
    model = rounded_copy(model)
    model.graph.outputs[0] = model.graph.outputs[0].producer().inputs[0]  # numbers, before they are halves again
    (found,) = Session(model).run({"x": x}).values()
    np.testing.assert_array_equal(found, wanted)
