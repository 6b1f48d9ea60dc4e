"""What was asked for and is not what comes out is told: widths, files of other exports, scales over a run, names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime.quantization
import pytest

from onnx_llm_passes import PassManager, PassRefused, Program, parse_pipeline
from onnx_llm_passes import verify as verify_programs
from onnx_llm_passes.ir.core.encoding import Calibration
from onnx_llm_passes.ir.proof.whole_run import scales_of_runs
from onnx_llm_passes.ir.quantization import (
    EncodingsInvalid,
    EncodingTable,
    Evidence,
    parse_encodings,
    print_encodings,
    read_encodings,
)
from onnx_llm_passes.ir.quantization.carried import table_of
from onnx_llm_passes.ir.quantization.clip import resolve
from onnx_llm_passes.passes.pipeline import expand_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Method, Plan, calibrate
from onnx_llm_passes.runtime.calibrate.grids import grids_of
from onnx_llm_passes.runtime.compare.programs import compare_programs
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.report import Verdict

from .cli_tools import process

TEXTS = [np.random.default_rng(5).integers(0, 60, 12) for _ in range(2)]
EIGHT = "insert-qdq{activations=a8}"


def warned(program: Program, name: str) -> str:
    return " ".join(text for record in program.history if record.text.startswith(name) for text in record.warnings)


def noted(program: Program, name: str) -> str:
    return " ".join(text for record in program.history if record.text.startswith(name) for text in record.notes)


def run(pipeline: str, program: Program) -> Program:
    return PassManager(parse_pipeline(pipeline)).run(program)


def written(folder: Path, plan: Plan | None = None, form: str = "native") -> Path:
    """Encodings of the append decoder as `calibrate` writes them."""
    program = Program(graphs={"model": append_decoder()})
    table = calibrate(program, TEXTS, plan or Plan())
    grids = table if form == "native" else grids_of(program, table, form, 16, 8)[0]
    (folder / "e.json").write_text(print_encodings(grids, form))
    return folder / "e.json"


def test_a_file_of_wider_grids_is_told(tmp_path: Path) -> None:
    load = f"load-encodings{{file={written(tmp_path, form='aimet-1.0.0')}}},tie-states,"
    found = warned(run(load + EIGHT, Program(graphs={"model": append_decoder()})), "insert-qdq")
    assert "activations=a8 was asked" in found
    assert "a16 " in found
    assert "--bits 8" in found
    assert not warned(run(load + "insert-qdq", Program(graphs={"model": append_decoder()})), "insert-qdq")


def test_ranges_leave_the_width_open(tmp_path: Path) -> None:
    load = f"load-encodings{{file={written(tmp_path)}}},tie-states,"
    assert not warned(run(load + EIGHT, Program(graphs={"model": append_decoder()})), "insert-qdq")


def test_mse_chooses_for_the_bits_in_force(tmp_path: Path) -> None:
    """One file of histograms; each width has its own range, and neither is written into the file."""
    file = written(tmp_path, Plan(method=Method.MSE))
    table = read_encodings(file)
    tails = {name: seen for name, seen in table.ranges.items() if seen.histogram is not None}
    spans = {bits: {name: resolve(seen, bits) for name, seen in tails.items()} for bits in (4, 8, 16)}
    assert all(width(spans[4][name]) <= width(spans[8][name]) <= width(spans[16][name]) for name in tails)
    assert sum(width(spans[4][name]) < 0.99 * width(spans[16][name]) for name in tails) > len(tails) // 3
    made = {}
    for bits in (8, 16):
        pipeline = f"load-encodings{{file={file}}},tie-states,insert-qdq{{activations=a{bits}}}"
        program = run(pipeline, Program(graphs={"model": append_decoder()}))
        assert not [name for name, known in program.encodings.items() if known.range and known.range.histogram]
        made[bits] = program.encodings["logits"].encoding
        assert made[bits].scale[0] == pytest.approx(width(resolve(table.ranges["logits"], bits)) / (2**bits - 1))


def test_an_old_file_says_for_how_many_bits_its_ranges_are(tmp_path: Path) -> None:
    table = EncodingTable(ranges={"logits": Evidence(0.0, 1.0)}, calibration=Calibration(method="mse", bits=16))
    (tmp_path / "e.json").write_text(print_encodings(table))
    load = f"load-encodings{{file={tmp_path / 'e.json'}}}"
    assert "chosen by mse for 16 bits" in noted(run(load, Program(graphs={"model": append_decoder()})), "load")
    load = f"load-encodings{{file={written(tmp_path)}}}"
    assert not noted(run(load, Program(graphs={"model": append_decoder()})), "load")


def width(seen: Evidence) -> float:
    return max(seen.high, 0.0) - min(seen.low, 0.0)


@pytest.mark.parametrize("counts", ["", "!!", "eJwDAAAAAAE=", "eJxjYEAFAAAQAAE="])
def test_counts_that_are_none_are_refused_by_name(tmp_path: Path, counts: str) -> None:
    entry = {"range": [0, 1], "method": "mse", "histogram": {"edges": [0, 1], "bins": 3, "counts": counts}}
    document = {"format": "onnx-llm-passes/encodings", "schema_version": 1, "tensors": {"logits": entry}}
    with pytest.raises(EncodingsInvalid, match=r"'logits', histogram: holds no counts"):
        parse_encodings(json.dumps(document))


def test_calibration_tells_progress_from_0_on() -> None:
    told: list[tuple[str, int, int]] = []
    program = Program(graphs={"model": append_decoder()})
    calibrate(program, TEXTS, Plan(method=Method.MSE), on_progress=lambda *what: told.append(what))
    assert told[0] == ("calibrating, pass 1 of 2", 0, 2)
    assert ("calibrating, pass 2 of 2", 0, 2) in told
    assert all(done <= total for _, done, total in told)


def foreign(folder: Path) -> Path:
    """A file whose inner tensors have another exporter's names; a few are right."""
    table = table_of(run(f"load-encodings{{file={written(folder)}}}", Program(graphs={"model": append_decoder()})))
    renamed = {name if at < 5 else f"model_{at}": seen for at, (name, seen) in enumerate(table.ranges.items())}
    (folder / "foreign.json").write_text(print_encodings(EncodingTable(ranges=renamed), "native"))
    return folder / "foreign.json"


def test_a_file_of_another_export_is_told_with_counts(tmp_path: Path) -> None:
    file = foreign(tmp_path)
    found = warned(run(f"load-encodings{{file={file}}}", Program(graphs={"model": append_decoder()})), "load")
    assert re.match(r"(\d\d+) of (\d\d+) encodings", found)
    assert " encodings of foreign.json name no tensor" in found
    assert "transfer-encodings" in found


def test_warnings_are_shown_when_a_later_pass_fails(tmp_path: Path) -> None:
    file = foreign(tmp_path)
    ir.save(append_decoder(), tmp_path / "model.onnx")
    done = process(["run", f"quantize{{file={file}}}", tmp_path / "model.onnx", "-o", tmp_path / "out"])
    told = done.stderr
    assert done.returncode == 1
    assert "encodings of foreign.json name no tensor of this graph" in told
    assert "error: pass '" in told


def dynamic(folder: Path) -> Program:
    """The decoder as onnxruntime's `quantize_dynamic` leaves it: a scale from all tokens of a run."""
    ir.save(append_decoder(), folder / "float.onnx")
    onnxruntime.quantization.quantize_dynamic(
        folder / "float.onnx", folder / "dynamic.onnx", weight_type=onnxruntime.quantization.QuantType.QUInt8
    )
    return Program.load(folder / "dynamic.onnx")


SPECULATIVE = "speculative{k=0,2 prefill=8 ctx=32%s}"


def test_scales_over_a_run_are_not_safe_for_proposals(tmp_path: Path) -> None:
    program = dynamic(tmp_path)
    assert scales_of_runs(program.graphs["dynamic"])
    with pytest.raises(PassRefused, match=r"takes one scale from all tokens of a run.*dynamic_scales=accept"):
        run(SPECULATIVE % "", program)
    run("check-speculation-safe{k=0}", dynamic(tmp_path))


def test_accepted_scales_are_recorded_and_never_called_equal(tmp_path: Path) -> None:
    result = run(SPECULATIVE % " dynamic_scales=accept", dynamic(tmp_path))
    assert any("tokens with K > 0 are not those of plain decoding" in text for text in result.assumptions)
    report = verify_programs(Program.load(tmp_path / "dynamic.onnx"), result)
    assert report.verdict is Verdict.NOT_VERIFIED
    assert report.not_verified == ["dynamic: Decode_1"]
    assert any("logits depend on how a text is cut into runs" in limit for limit in report.limits)


def test_static_scales_are_no_scales_of_a_run() -> None:
    assert not scales_of_runs(append_decoder())


def test_retained_states_have_names_that_pair() -> None:
    sizes = "keep-last-logits{symbol=num_logits_to_keep},specialize{prefill=8 ctx=32 k=0},emit-manifest{target=%s}"
    with pytest.raises(PassRefused, match=r"caches grow.*convert-states\{names=retained\}"):
        run(sizes % "qaic", Program(graphs={"model": append_decoder()}))
    with pytest.raises(PassRefused, match=r"X -> X_RetainedState.*convert-states\{names=retained\}"):
        run("convert-states," + sizes % "qaic", Program(graphs={"model": append_decoder()}))
    assert not warned(run(sizes % "qnn", Program(graphs={"model": append_decoder()})), "emit-manifest")
    written = run("convert-states{names=retained}," + sizes % "qaic", Program(graphs={"model": append_decoder()}))
    assert not warned(written, "emit-manifest")


@pytest.mark.parametrize("preset", ["speculative", "prefill-decode"])
def test_presets_name_states_as_their_target_pairs_them(preset: str) -> None:
    assert "names=retained" in expand_pipeline(preset)
    assert "names=retained" in expand_pipeline(f"{preset}{{target=qaic-flat}}")
    assert "names" not in expand_pipeline(f"{preset}{{target=qnn}}")
    assert "names" not in expand_pipeline(f"{preset}{{names=keep}}")  # the default of the pass


def clones(sizes: str) -> Program:
    return run(f"clone-decode{{{sizes}}}", Program(graphs={"model": append_decoder()}))


@pytest.mark.parametrize(("length", "graph"), [(12, None), (40, None), (20, "decode_k4")])
def test_clones_with_a_fixed_past_are_compared_from_an_empty_one(length: int, graph: str | None) -> None:
    """A past of fixed length starts empty behind its mask; a text shorter than the prefill goes through a decode."""
    texts = [np.random.default_rng(length).integers(0, 60, length)]
    original = Program(graphs={"model": append_decoder()})
    found = compare_programs(original, clones("k=0,4 prefill=16 ctx=64"), texts, graph=graph)
    assert found.tokens == length // (5 if length < 16 or graph else 16) * (5 if length < 16 or graph else 16)
    assert {row.what for row in found.rows} >= {"logits"}
    for row in found.rows:
        assert row.measures["max_abs"] < 1e-4, row.label


def test_a_fixed_past_is_not_calibrated() -> None:
    """Where values are watched, what the mask hides would be seen."""
    with pytest.raises(PassRefused, match="fixed length, so that it cannot start empty"):
        calibrate(clones("k=0 prefill=16 ctx=64"), TEXTS, Plan())
