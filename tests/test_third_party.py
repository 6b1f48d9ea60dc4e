"""A stranger's package offers a pass and a contract by entry points alone, and its results are verified like ours."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import UsageError
from onnx_llm_passes.ir.program.contracts import registry as contracts
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes import registry as passes
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .third_party.scale_logits import ScaleLogits

KIND = "example-int32-ids"
MODULE = f"{__package__}.third_party.cast_inputs"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package as if it were installed, and forgotten afterwards."""
    offers = {
        passes.GROUP: ("cast-inputs", f"{MODULE}:CastInputs"),
        contracts.GROUP: (KIND, f"{MODULE}:Int32Ids"),
    }
    entries = {group: importlib.metadata.EntryPoint(name, value, group) for group, (name, value) in offers.items()}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entries[group]] if group in entries else [])
    passes._third_party.cache_clear()
    contracts._third_party.cache_clear()
    yield
    passes._third_party.cache_clear()
    contracts._third_party.cache_clear()
    contracts._KINDS.pop(KIND, None)


def saved(text: str, build: Callable[[], ir.Model], out: Path) -> Program:
    program = Program({"model": build()})
    PassManager(parse_pipeline(text)).run(program)
    program.save(out)
    return Program.load(out)


@pytest.mark.parametrize("build", [append_decoder, scatter_decoder])
@pytest.mark.parametrize(
    "text",
    [
        "cast-inputs",
        "cast-inputs,single-shot",
        "single-shot,cast-inputs",
        "cast-inputs,rename-io{map=input_ids:ids}",
        "rename-io{map=input_ids:ids},cast-inputs,argmax-tail",
    ],
)
def test_cast_inputs_verify_bit_equal(text: str, build: Callable[[], ir.Model], tmp_path: Path) -> None:
    result = saved(text, build, tmp_path / "out")
    assert any(contract.kind == KIND for contract in result.contracts)
    report = verify(Program({"model": build()}), result, tolerance=0.0)
    assert report.runs and report.equal, report.first_difference
    assert report.max_abs == 0
    assert not any(case.failed or case.skipped for case in report.cases)


KEPT = "keep-last-logits{symbol=num_logits_to_keep},"  # for a graph that gives logits of one row


@pytest.mark.parametrize(("build", "first"), [(append_decoder, ""), (scatter_decoder, KEPT)])
@pytest.mark.parametrize(
    "text",
    [
        "cast-inputs,clone-decode{k=0,2 ctx=24 prefill=8}",
        "clone-decode{k=0,2 ctx=24 prefill=8 fold=true},cast-inputs",
        "cast-inputs,clone-decode{k=0,2 ctx=24 prefill=8},rename-io{map=input_ids:ids}",
    ],
)
def test_clones_of_cast_inputs_verify_bit_equal(
    text: str, build: Callable[[], ir.Model], first: str, tmp_path: Path
) -> None:
    report = verify(Program({"model": build()}), saved(first + text, build, tmp_path / "out"))
    assert report.runs and report.equal, report.first_difference
    same = [case for case in report.cases if "the original on the same inputs" in case.case]
    assert {case.graph for case in same} == {"prefill", "decode_k0", "decode_k2"}
    assert all(output.max_abs == 0 for case in same for output in case.outputs)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("says", "verdict"), [(0.25, Verdict.EQUAL), (0.5, Verdict.DIFFERENT)])
def test_clones_are_held_to_what_a_strangers_contract_expects(first: bool, says: float, verdict: Verdict) -> None:
    clones = parse_pipeline("clone-decode{k=0,2 ctx=24 prefill=8}")
    result = Program({"model": append_decoder()})
    PassManager([ScaleLogits(says), *clones] if first else [*clones, ScaleLogits(says)]).run(result)
    report = verify(Program({"model": append_decoder()}), result)
    assert report.verdict is verdict, report.first_difference
    kinds = {case.case.rpartition(", ")[2] for case in report.cases if case.outputs}
    assert kinds == {"the original on the same inputs", "the original token by token"}


def test_a_wrong_cast_is_seen(tmp_path: Path) -> None:
    result = saved("cast-inputs", append_decoder, tmp_path / "out")
    cast = next(node for node in result.graphs["model"].graph if node.name == "cast-inputs/input_ids")
    cast.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.INT64))
    cast.op_type = "Neg"
    cast.attributes.clear()
    back = ir.node("Cast", [cast.outputs[0]], {"to": ir.DataType.INT64})
    for user, index in list(cast.outputs[0].uses()):
        if user is not back:
            user.replace_input_with(index, back.outputs[0])
    result.graphs["model"].graph.insert_after(cast, back)
    cast.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    assert verify(Program({"model": append_decoder()}), result).verdict is Verdict.DIFFERENT


def test_given_inputs_that_the_stranger_excludes_are_the_callers_mistake(tmp_path: Path) -> None:
    result = saved("cast-inputs,rename-io{map=input_ids:ids}", append_decoder, tmp_path / "out")
    given = {"input_ids": np.array([[1, 2**40]])}
    with pytest.raises(UsageError, match="input 'input_ids', row 0"):
        verify(Program({"model": append_decoder()}), result, inputs=given)


def test_without_the_package_nothing_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("cast-inputs", append_decoder, tmp_path / "out")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    contracts._third_party.cache_clear()
    contracts._KINDS.pop(KIND, None)
    report = verify(Program({"model": append_decoder()}), Program.load(tmp_path / "out"))
    assert (report.verdict, report.runs) == (Verdict.NOT_RUN, 0)
    assert report.notes == [f"not verified: contract {KIND} is of a package that is not installed"]


def test_a_package_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("cast-inputs", append_decoder, tmp_path / "out")
    broken = importlib.metadata.EntryPoint(KIND, "no_such_module:Int32Ids", contracts.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [broken] if group == contracts.GROUP else [])
    contracts._third_party.cache_clear()
    contracts._KINDS.pop(KIND, None)
    report = verify(Program({"model": append_decoder()}), Program.load(tmp_path / "out"))
    assert report.notes[0].startswith(f"not verified: contract {KIND} cannot be loaded: ModuleNotFoundError")
