"""Optional inputs, which are initializers too, are shown, keep their default's sizes, and are left out in proofs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.verify import verify

from .cli_tools import process
from .mutant_edits import wrap


def adapted() -> ir.Model:
    """The growing sample with a low-rank adapter on its first query projection: by default of rank 0."""
    model = append_decoder()
    product = next(n for n in model.graph if n.op_type == "MatMul" and "q_proj" in (n.inputs[1].name or ""))  # pyright: ignore[reportOptionalMemberAccess]
    halves: list[ir.Value] = []
    for name, shape in (("q.lora_A", (32, 0)), ("q.lora_B", (0, 32))):
        array = np.zeros(shape, np.float32)
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), const_value=ir.tensor(array, name=name))
        value.shape = ir.Shape(["lora_r" if size == 0 else size for size in shape])
        model.graph.register_initializer(value)
        model.graph.inputs.append(value)
        halves.append(value)
    hidden = product.inputs[0]
    assert hidden is not None
    wrap(
        model,
        product.outputs[0],
        lambda op, x: op("Add", x, op("MatMul", op("MatMul", hidden, halves[0]), halves[1])),
    )
    return model


SPECULATIVE = "speculative{k=0,2 prefill=8 ctx=32 bind=lora_r:SIZE}"


def test_a_size_that_the_default_has_not_is_refused() -> None:
    with pytest.raises(PassRefused, match=r"'q.lora_A' would have a default of another size.*Give bind=lora_r:0"):
        PassManager(parse_pipeline(SPECULATIVE.replace("SIZE", "2"))).run(Program(graphs={"model": adapted()}))


def test_the_default_size_is_written_and_proved_and_shown(tmp_path: Path) -> None:
    ir.save(adapted(), tmp_path / "model.onnx")
    shown = process(["inspect", tmp_path / "model.onnx"]).stdout
    assert "optional input  type" in shown
    assert "q.lora_A        FLOAT[32, lora_r]  has a default" in shown
    done = process(["run", SPECULATIVE.replace("SIZE", "0"), tmp_path / "model.onnx", "-o", tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    assert "proved by running it on tiny sizes" in done.stdout


def test_check_opens_what_a_runtime_refuses(tmp_path: Path) -> None:
    model = adapted()
    next(v for v in model.graph.inputs if v.name == "q.lora_A").shape = ir.Shape([32, 2])
    ir.save(model, tmp_path / "model.onnx")
    manifest = tmp_path / "specializations.json"
    manifest.write_text(
        '{"specializations": [{"batch_size": "1", "sequence_length": "8", "past_sequence_length": "0"}]}'
    )
    done = process(["check", tmp_path / "model.onnx", manifest])
    assert done.returncode == 1
    assert "optional input 'q.lora_A' gets the shape [32, 2], and its default has [32, 0]" in done.stdout + done.stderr


def test_required_adapters_are_the_same_numbers_in_every_run() -> None:
    """Constant over a text, and of the size that the clones fix: verify must not call right clones different."""

    def required() -> ir.Model:
        model = adapted()
        for name in ("q.lora_A", "q.lora_B"):
            value = model.graph.initializers.pop(name)
            value.const_value = None
        return model

    result = PassManager(parse_pipeline(SPECULATIVE.replace("SIZE", "2"))).run(Program(graphs={"model": required()}))
    report = verify(Program(graphs={"model": required()}), result)
    assert report.equal, report.first_difference


def test_optional_inputs_are_fed_and_left_out_in_turn(tmp_path: Path) -> None:
    ir.save(adapted(), tmp_path / "model.onnx")
    result = PassManager(parse_pipeline("single-shot")).run(Program(graphs={"model": adapted()}))
    result.save(tmp_path / "out")
    report = verify(Program.load(tmp_path / "model.onnx"), Program.load(tmp_path / "out"))
    assert report.equal, report.first_difference
    left_out = [case for case in report.cases if case.case.endswith("optional inputs left out")]
    assert left_out and 2 * len(left_out) == len(report.cases)
    shown = process(["verify", tmp_path / "model.onnx", tmp_path / "out"]).stdout
    assert "optional inputs fed and left out in turn: q.lora_A, q.lora_B" in shown


@pytest.mark.parametrize("fed", [True, False])
def test_a_default_or_an_adapter_that_is_lost_is_different(tmp_path: Path, *, fed: bool) -> None:
    """One result ignores what is fed, the other has another default: each shows in one half of the cases alone."""
    original, result = defaulted(), defaulted()
    if fed:
        value = next(value for value in result.graph.inputs if value.name == "shift")
        result.graph.inputs.remove(value)
    else:
        tensor = ir.tensor(np.full(32, 2, np.float32), name="shift")
        result.graph.initializers["shift"].const_value = tensor
    report = verify(Program(graphs={"model": original}), Program(graphs={"model": result}))
    wrong = {case.case.endswith("left out") for case in report.cases if not case.equal}
    assert wrong == {not fed}


def defaulted() -> ir.Model:
    """The growing sample whose queries are shifted by an optional input, by one where it is left out."""
    model = append_decoder()
    product = next(n for n in model.graph if n.op_type == "MatMul" and "q_proj" in (n.inputs[1].name or ""))  # pyright: ignore[reportOptionalMemberAccess]
    value = ir.Value(name="shift", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([32]))
    value.const_value = ir.tensor(np.ones(32, np.float32), name="shift")
    model.graph.register_initializer(value)
    model.graph.inputs.append(value)
    wrap(model, product.outputs[0], lambda op, x: op("Add", x, value))
    return model


def test_an_adapter_of_rank_0_is_nothing_to_feed() -> None:
    result = PassManager(parse_pipeline(SPECULATIVE.replace("SIZE", "0"))).run(Program(graphs={"model": adapted()}))
    report = verify(Program(graphs={"model": adapted()}), result)
    assert report.equal and not report.limits and not report.optional


CLONES = "speculative{k=0,2 prefill=8 ctx=32 form=FORM}"


def two_ranks() -> ir.Model:
    """The adapters of rank 2 by default, with numbers in them."""
    model, numbers = adapted(), np.random.default_rng(0)
    for name, shape in (("q.lora_A", (32, 2)), ("q.lora_B", (2, 32))):
        array = numbers.standard_normal(shape).astype(np.float32)
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return model


OPTIONAL = {"": (defaulted, ["shift"]), " bind=lora_r:2": (two_ranks, ["q.lora_A", "q.lora_B"])}


@pytest.mark.parametrize("form", ["auto", "graphs"])
@pytest.mark.parametrize("binding", OPTIONAL)
def test_clones_are_fed_optional_inputs_and_left_without_in_turn(form: str, binding: str) -> None:
    build, names = OPTIONAL[binding]
    text = CLONES.replace("FORM", form + binding)
    result = PassManager(parse_pipeline(text)).run(Program(graphs={"model": build()}))
    report = verify(Program(graphs={"model": build()}), result)
    assert report.equal, report.first_difference
    assert report.optional == names and not report.limits
    assert {case.case.rpartition(", ")[2] for case in report.cases} >= {
        "optional inputs fed",
        "optional inputs left out",
    }


@pytest.mark.parametrize("fed", [True, False])
def test_clones_that_lose_a_default_or_what_is_fed_are_different(*, fed: bool) -> None:
    result = PassManager(parse_pipeline(CLONES.replace("FORM", "graphs"))).run(Program(graphs={"model": defaulted()}))
    for model in result.graphs.values():
        value = next(value for value in model.graph.inputs if value.name == "shift")
        if fed:
            model.graph.inputs.remove(value)
        else:
            value.const_value = ir.tensor(np.full(32, 2, np.float32), name="shift")
    report = verify(Program(graphs={"model": defaulted()}), result)
    replayed = [case for case in report.cases if "token by token" in case.case]
    assert {case.case.endswith("left out") for case in replayed if not case.equal} == {not fed}
