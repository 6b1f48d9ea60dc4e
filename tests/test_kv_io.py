"""kv-io: caches become integers in every layout, on the grid that tie-states chose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization.carried import put_table, table_of
from onnx_llm_passes.ir.quantization.qdq import quantized
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.kv_io import KvIo
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.tie_states import TieStates
from onnx_llm_passes.runtime.calibrate.calibrate import calibrate
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.session import Session

from .builders import BUILDERS
from .qdq_tools import HELD_OUT, IDIOMS, RANDOM, calibrated, logits, quantize, sqnr
from .quantized_graphs import delta_decoder, fused_decoder


@pytest.mark.parametrize("build", [delta_decoder, fused_decoder])
def test_delta_and_fused_caches_become_integers_too(build: Callable[[], ir.Model]) -> None:
    exact = logits(build(), HELD_OUT)
    program = quantize(calibrated(build()))
    KvIo().run(program)
    model = program.graphs["model"]
    for state in find_states(model):
        assert (state.input.dtype, state.output.dtype) == (ir.DataType.INT8, ir.DataType.INT8)
    applied = table_of(program).encodings
    for state in find_states(build()):
        assert applied[state.input.name] == applied[state.output.name]
    assert sqnr(exact, logits(model, HELD_OUT)) > 25
    assert sqnr(exact, logits(model, HELD_OUT, 16)) > 25


@pytest.mark.parametrize("name", IDIOMS)
def test_a_graph_with_an_integer_cache_runs_and_is_close(name: str) -> None:
    exact = logits(BUILDERS[name](), HELD_OUT)
    program = quantize(calibrated(BUILDERS[name]()))
    KvIo().run(program)
    model = program.graphs["model"]
    for state in find_states(model):
        assert (state.input.dtype, state.output.dtype) == (ir.DataType.INT8, ir.DataType.INT8)
    assert sqnr(exact, logits(model, HELD_OUT)) > 25


def test_a_sixteen_bit_cache() -> None:
    program = calibrated(append_decoder())
    exact = logits(program.graphs["model"], HELD_OUT)
    TieStates(bits=16).run(program)
    InsertQdq().run(program)
    with pytest.raises(PassRefused, match="another width"):
        KvIo(bits=8).run(program)
    KvIo(bits=16).run(program)
    caches = [value for value in program.graphs["model"].graph.inputs if value.name.startswith("past")]
    assert {value.dtype for value in caches} == {ir.DataType.INT16}
    assert sqnr(exact, logits(program.graphs["model"], HELD_OUT)) > 25


def test_zero_filled_rows_of_a_cache_come_back_as_zero() -> None:
    program = quantize(calibrated(scatter_decoder()))
    KvIo().run(program)
    applied = table_of(program).encodings
    for state in find_states(program.graphs["model"]):
        assert applied[state.input.name].zero_point == (0,)
        assert quantized(np.zeros(3, np.float32), applied[state.input.name]).tolist() == [0, 0, 0]


def test_a_present_without_a_past_becomes_integers_as_the_decode_graph_expects() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (int64[B,S] input_ids) => (float[B,2,S,8] y, float[B,2,S,8] present_key, float[B,2,S,8] present_value)
    <float[32,16] table = {TABLE}, int64[4] heads = {0, 0, 2, 8}> {
       x = Gather (table, input_ids)
       split = Reshape (x, heads)
       present_key = Transpose <perm = [0, 2, 1, 3]> (split)
       present_value = Neg (present_key)
       turned = Transpose <perm = [0, 1, 3, 2]> (present_key)
       scores = MatMul (present_key, turned)
       weights = Softmax (scores)
       y = MatMul (weights, present_value)
    }""".replace("TABLE", ", ".join(f"{number:.3f}" for number in RANDOM.standard_normal(512)))
    program = Program(graphs={"g": ir.from_onnx_text(text)})
    put_table(program, calibrate(program, [np.arange(20)]))
    quantize(program)
    assert KvIo().run(program).counts["states"] == 2
    outputs = {value.name: value.dtype for value in program.graphs["g"].graph.outputs}
    assert outputs == {
        "y": ir.DataType.FLOAT,
        "present_key": ir.DataType.INT8,
        "present_value": ir.DataType.INT8,
    }
    results = Session(program.graphs["g"]).run({"input_ids": np.arange(20)[None, :]})
    assert {results[name].dtype for name in ("present_key", "present_value")} == {np.dtype(np.int8)}


def test_a_second_run_leaves_integers_alone() -> None:
    program = quantize(calibrated(append_decoder()))
    assert KvIo().run(program).counts == {"states": 4}
    once = ir.to_proto(program.graphs["model"]).SerializeToString()
    report = KvIo().run(program)
    assert (report.modified, report.counts) == (False, {})
    assert ir.to_proto(program.graphs["model"]).SerializeToString() == once


def test_what_was_written_of_a_caches_precision_is_taken_back() -> None:
    """An integer has no precision to choose: the list, its file and the arguments that name it follow."""
    program = quantize(calibrated(append_decoder()))
    PassManager(parse_pipeline("specialize{prefill=8 ctx=32},custom-io{kv=mxint8},emit-manifest{target=qnn}")).run(
        program
    )
    assert "custom_io.yaml" in program.artifacts
    KvIo().run(program)
    assert program.custom_io == {}
    assert "custom_io.yaml" not in program.artifacts
    assert "custom-IO" not in program.artifacts["compile_args.json"]


def test_float_states_are_refused_by_name_and_stay() -> None:
    model = append_decoder()
    with pytest.raises(PassRefused, match=r"stands at state .*Run tie-states and insert-qdq first"):
        KvIo().run(Program(graphs={"g": model}))
    assert {state.input.dtype for state in find_states(model)} == {ir.DataType.FLOAT}
