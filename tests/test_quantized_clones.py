"""Calibrated once, quantized in every clone: in any order, what is written of precisions, and how it compares."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.cli.app import run
from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError, UsageError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import EncodingTable, Evidence, NoEvidence, encoding_groups, print_encodings
from onnx_llm_passes.ir.quantization.carried import table_of
from onnx_llm_passes.ir.quantization.choose import encoding_for
from onnx_llm_passes.ir.quantization.decide import Choice
from onnx_llm_passes.ir.quantization.qdq import read_qdq
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.compare.programs import Comparison, compare_programs
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .quantized_graphs import fused_decoder

TEXTS = [np.random.default_rng(6).integers(0, 128, length) for length in (40, 24)]
HEAD = "convert-states,keep-last-logits{symbol=num_logits_to_keep}"
CLONES = "clone-decode{k=0,2 prefill=8 ctx=48},custom-io,emit-manifest{target=qnn},check"
CLONED = f"{HEAD},check-speculation-safe{{k=0,2}},{CLONES}"
BUILDS = {"append": append_decoder, "scatter": scatter_decoder, "fused": fused_decoder}


def one(build: object = append_decoder) -> Program:
    return Program(graphs={"model": build()})


def passed(program: Program, pipeline: str) -> Program:
    PassManager(parse_pipeline(pipeline)).run(program)
    return program


@pytest.fixture(scope="module", params=BUILDS)
def build(request: pytest.FixtureRequest) -> object:
    return BUILDS[request.param]


@pytest.fixture(scope="module")
def quantize(build: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The preset with the ranges of the one graph that everything else is made of."""
    file = tmp_path_factory.mktemp("encodings") / "encodings.json"
    file.write_text(print_encodings(calibrate(one(build), TEXTS, Plan(chunk=16))), encoding="utf-8")
    return f'quantize{{file="{file}"}}'


def test_clones_can_be_quantized_and_a_quantized_graph_cloned(build: object, quantize: str, tmp_path: Path) -> None:
    passed(one(build), f"{CLONED},{quantize}").save(tmp_path / "after")
    passed(one(build), f"{HEAD},{quantize},{CLONES}").save(tmp_path / "before")
    names = sorted(path.name for path in (tmp_path / "after").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "before").iterdir())
    for name in ("prefill.onnx", "decode_k0.onnx", "decode_k2.onnx", "compile_args.json", "weights.data"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


def test_states_have_one_grid_in_every_clone(build: object, quantize: str, tmp_path: Path) -> None:
    passed(one(build), f"{CLONED},{quantize}").save(tmp_path / "out")
    program = Program.load(tmp_path / "out")
    applied = table_of(program)
    grids: dict[str, set[object]] = {}
    for model in program.graphs.values():
        read = read_qdq(model)
        for state in find_states(model):
            assert (state.input.dtype, state.output.dtype) == (ir.DataType.INT8, ir.DataType.INT8)
            held = [read.encodings[name] for name in (state.input.name, state.output.name) if name in read.encodings]
            grids.setdefault(state.name, set()).update((e.scale, e.zero_point) for e in held)
            assert applied.encodings[state.input.name] == applied.encodings[state.output.name]
    assert len(grids) == len(find_states(build()))
    assert all(len(found) == 1 for found in grids.values())


def test_what_was_said_of_float_caches_is_taken_back(build: object, quantize: str) -> None:
    program = passed(one(build), CLONED)
    assert "decode_k0.custom_io.yaml" in program.artifacts
    assert "custom_io" in program.artifacts["compile_args.json"]
    passed(program, quantize)
    assert program.custom_io == {}
    assert not [name for name in program.artifacts if name.endswith("custom_io.yaml")]
    commands = json.loads(program.artifacts["compile_args.json"])["commands"]
    assert list(dict.fromkeys(command["graph"] for command in commands)) == ["prefill", "decode_k0", "decode_k2"]
    assert "custom-IO" not in program.artifacts["compile_args.json"]
    passed(program, "check")


def test_the_precision_of_other_inputs_stays(build: object, quantize: str) -> None:
    program = passed(one(build), "custom-io")
    program.custom_io["logits"] = "float16"
    passed(program, quantize)
    assert program.custom_io == {"logits": "float16"}
    assert program.artifacts["custom_io.yaml"].split() == ["-", "IOName:", "logits", "Precision:", "float16"]


def test_encodings_reach_a_graph_whose_caches_were_converted(quantize: str, build: object, tmp_path: Path) -> None:
    """The state is the same, whatever operators keep it."""
    load, rest = quantize[quantize.index('"') : -1], "tie-states,insert-qdq,kv-io"
    passed(one(build), f"load-encodings{{file={load}}}").save(tmp_path / "calibrated")
    transfer = f'transfer-encodings{{from="{tmp_path / "calibrated"}"}}'
    carried, loaded = (passed(one(build), f"{CLONED},{way}") for way in (f"{transfer},{rest}", quantize))
    assert table_of(carried).encodings == table_of(loaded).encodings


def measured(first: Program, second: Program, graph: str | None = None) -> Comparison:
    return compare_programs(first, second, TEXTS, graph=graph)


def test_every_clone_is_as_near_to_the_original_as_one_graph_is(build: object, quantize: str, tmp_path: Path) -> None:
    passed(one(build), f"{CLONED},{quantize}").save(tmp_path / "out")
    clones, single = Program.load(tmp_path / "out"), passed(one(build), quantize)
    wanted = measured(one(build), single).row("logits").measures["sqnr"]
    for graph, tokens in ((None, 64), ("decode_k0", 64), ("decode_k2", 63)):
        found = measured(one(build), clones, graph)
        assert found.tokens == tokens  # whole runs of 8, 1 and 3 tokens
        assert found.row("logits").measures["sqnr"] == pytest.approx(wanted, abs=3)
        assert {row.what for row in found.rows} == {"logits", "hidden", "new_key", "new_value"}


def test_float_clones_are_the_original(build: object) -> None:
    program = passed(one(build), CLONED)
    program.unshare()
    for graph in ("prefill", "decode_k0", "decode_k2"):
        found = measured(one(build), program, graph)
        assert all(row.measures["sqnr"] > 120 for row in found.rows)


def test_keys_that_are_handed_out_the_other_way_round_are_compared_row_by_row() -> None:
    turned = passed(one(), "convert-states{to=delta transpose_keys=true}")
    found = measured(one(), turned)
    assert len(found.rows) == 6
    assert all(row.measures["sqnr"] > 120 for row in found.rows)


def test_a_comparison_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    program = passed(one(), CLONED)
    program.unshare()
    with pytest.raises(UnknownNameError, match="decode_k2"):
        measured(one(), program, "decode_k3")
    with pytest.raises(UsageError, match="8 in 'prefill' and 1 in 'decode_k0'"):
        measured(program, Program(graphs={"decode_k0": program.graphs["decode_k0"]}))
    with pytest.raises(UsageError, match="no text is long enough"):
        compare_programs(one(), Program(graphs={"prefill": program.graphs["prefill"]}), [np.arange(5)])


def test_calibration_takes_the_prefill_of_several_graphs(build: object, tmp_path: Path) -> None:
    program = passed(one(build), CLONED)
    program.unshare()
    by_chunk = calibrate(program, TEXTS)
    by_step = calibrate(program, TEXTS, graph="decode_k0")
    assert by_chunk.calibration.graph == "prefill"
    assert by_chunk.calibration.chunk == 8
    for state in find_states(program.graphs["prefill"]):
        seen, other = by_chunk.ranges[state.output.name], by_step.ranges[state.output.name]
        assert (seen.low, seen.high) == pytest.approx((other.low, other.high), rel=1e-5)
    same = Program(graphs={"a": append_decoder(), "b": append_decoder()})
    with pytest.raises(PassRefused, match=r"a, b.*--graph"):
        calibrate(same, TEXTS)


def test_the_commands_take_a_folder_of_clones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "t.npz", input_ids=np.stack([text[:24] for text in TEXTS]))
    one().save(tmp_path / "float")
    passed(one(), CLONED).save(tmp_path / "clones")
    tokens = ["--tokens", str(tmp_path / "t.npz")]
    out = ["-o", str(tmp_path / "e.json")]
    assert run(["calibrate", str(tmp_path / "clones"), *tokens, *out, "--json", "--engine", "local:2"]) == 0
    assert json.loads(capsys.readouterr().out)["graph"] == "prefill"
    pipeline = f'quantize{{file="{tmp_path / "e.json"}"}}'
    assert run(["run", pipeline, str(tmp_path / "clones"), "-o", str(tmp_path / "q")]) == 0
    assert f"next: onnx-passes compare {tmp_path / 'clones'} {tmp_path / 'q'}" in capsys.readouterr().out
    common = ["compare", str(tmp_path / "float"), str(tmp_path / "q"), *tokens]
    assert run([*common, "--json", "--graph", "decode_k2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["tokens"], found["tensors"][0]["tensor"]) == (48, "logits")
    assert 20 < found["tensors"][0]["sqnr"] < 80
    assert run([*common, "--graph", "decode_k3"]) == 2
    assert run(["calibrate", str(tmp_path / "clones"), *tokens, *out, "--graph", "decode"]) == 2


TEXT = """<ir_version: 10, opset_import: ["" : 18]>
g (float[N,4] x, int64[M] rows, bool[M,4] which) => (float[M,4] y)
<int64[4] perm = {3, 2, 1, 0}> {
   a = Relu (x)
   b = Gather <axis = 0> (a, rows)
   c = Identity (b)
   d = Relu (c)
   y = Where (which, c, d)
}"""


def test_a_tensor_that_only_moves_numbers_of_a_known_one_is_on_its_grid() -> None:
    values = {value.name: value for node in ir.from_onnx_text(TEXT).graph for value in node.outputs}
    known, choice = EncodingTable(ranges={"a": Evidence(0.0, 2.0)}), Choice(8, symmetric=False)
    assert encoding_for(known, values["c"], choice) == encoding_for(known, values["a"], choice)
    for name in ("d", "y"):  # computed, and chosen from two
        with pytest.raises(NoEvidence, match=name):
            encoding_for(known, values[name], choice)
    unseen = EncodingTable(ranges={"a": Evidence(0.0, 2.0), "c": Evidence(math.inf, -math.inf)})
    with pytest.raises(NoEvidence, match="'c'"):  # watched, and nothing was seen: another's range would be a guess
        encoding_for(unseen, values["c"], choice)


def test_rows_that_a_where_chooses_between_belong_to_the_state() -> None:
    model = passed(one(), "convert-states").graphs["model"]
    for group in encoding_groups(model):
        rows = next(value for value in group.members if value.name.endswith("/rows"))
        assert rows.producer().op_type == "Where"
        assert {value.name for value in rows.producer().inputs[1:]} <= set(group.names())


def test_a_buffer_inside_one_operator_is_filled_from_its_first_row() -> None:
    build = BUILDS["fused"]
    program = passed(one(build), "clone-decode{k=0,2 prefill=8 ctx=48}")
    program.unshare()
    for graph in ("prefill", "decode_k0", "decode_k2"):
        found = measured(one(build), program, graph)
        assert [row.what for row in found.rows] == ["logits", "hidden", "new_key", "new_value"]
        assert all(row.measures["sqnr"] > 120 for row in found.rows)
    whole, cloned = calibrate(one(build), TEXTS), calibrate(program, TEXTS)
    for name, seen in whole.ranges.items():
        if seen.usable:  # rows that are not written yet are zeros
            assert max(cloned.ranges[name].high, 0.0) == pytest.approx(max(seen.high, 0.0), rel=1e-4)


SUBFUNCTION = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
g (int64[B,S] input_ids, float[B,P,8] past) => (float[B,S,8] y, float[B,T,8] present) {
   x = Gather (table, input_ids)
   y, present = own.Layer (x, past)
}
<domain: "own", opset_import: ["" : 21]>
Layer (rows, before) => (answer, after) {
   after = Concat <axis = 1> (before, rows)
   turned = Transpose <perm = [0, 2, 1]> (after)
   scores = MatMul (rows, turned)
   weights = Softmax (scores)
   answer = MatMul (weights, after)
}"""


def layer_in_a_function() -> ir.Model:
    model = ir.from_onnx_text(SUBFUNCTION.replace("past) =>", "past, float[128,8] table) =>"))
    value = model.graph.inputs.pop(2)
    array = np.random.default_rng(2).standard_normal((128, 8)).astype(np.float32)
    value.const_value = ir.tensor(array, name=value.name)
    model.graph.register_initializer(value)
    return model


def test_a_layer_in_a_function_is_quantized_as_the_refusal_says(tmp_path: Path) -> None:
    """Inline first, then calibrate and quantize the inlined graph."""
    file = tmp_path / "encodings.json"
    whole, inlined = one(layer_in_a_function), passed(one(layer_in_a_function), "ir-inline")
    assert not inlined.graphs["model"].functions
    for program, refused in ((whole, True), (inlined, False)):
        file.write_text(print_encodings(calibrate(program, TEXTS, Plan(chunk=8))), encoding="utf-8")
        if refused:
            with pytest.raises(PassRefused, match=r"local function.*ir-inline"):
                passed(program, f'quantize{{file="{file}"}}')
        else:
            passed(program, f'quantize{{file="{file}"}}')
    assert find_states(inlined.graphs["model"])[0].input.dtype is ir.DataType.INT8
    found = measured(one(layer_in_a_function), inlined)
    assert found.row("logits").measures["sqnr"] > 25


GRIDS = "tie-states,insert-qdq"


@pytest.mark.parametrize("name", ["append", "scatter"])
def test_clones_with_integer_caches_are_verified_through_their_grids(name: str, tmp_path: Path) -> None:
    ranges = tmp_path / "encodings.json"
    ranges.write_text(print_encodings(calibrate(one(BUILDS[name]), TEXTS, Plan(chunk=16))), encoding="utf-8")
    head = "keep-last-logits{symbol=num_logits_to_keep}"
    passed(one(BUILDS[name]), f'{head},load-encodings{{file="{ranges}"}},{GRIDS}').save(tmp_path / "floats")
    clones = "clone-decode{k=0,2 prefill=8 ctx=48}"
    passed(Program.load(tmp_path / "floats"), f"kv-io,{clones}").save(tmp_path / "integers")
    report = verify(Program.load(tmp_path / "floats"), Program.load(tmp_path / "integers"))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert {case.graph for case in report.cases if case.ran} == {"prefill", "decode_k0", "decode_k2"}
    names = {output.output for case in report.cases for output in case.outputs}
    assert any("RetainedState" in name or "present" in name for name in names)  # the integers themselves are compared


def test_a_quantized_program_is_run_against_its_float_one_and_told_from_it(tmp_path: Path) -> None:
    one().save(tmp_path / "floats")
    ranges = tmp_path / "encodings.json"
    ranges.write_text(print_encodings(calibrate(one(), TEXTS, Plan(chunk=16))), encoding="utf-8")
    pipeline = f'quantize{{file="{ranges}"}},clone-decode{{k=0,2 prefill=8 ctx=48}}'
    passed(Program.load(tmp_path / "floats"), pipeline).save(tmp_path / "small")
    report = verify(Program.load(tmp_path / "floats"), Program.load(tmp_path / "small"))
    assert report.verdict is Verdict.DIFFERENT
    assert not [case for case in report.cases if case.skipped]
    assert any("`onnx-passes compare` measures" in note for note in report.notes)
    found = compare_programs(Program.load(tmp_path / "floats"), Program.load(tmp_path / "small"), TEXTS)
    assert found.tokens > 0 and found.rows[0].measures["sqnr"] > 20
