"""Quantized graphs: pairs, integer caches, shared weights, transfer, accuracy, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.interface.roles import Role, find_roles
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization.carried import table_of
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.passes.kv_io import KvIo
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .builders import BUILDERS
from .qdq_tools import FOUR, HELD_OUT, IDIOMS, TEXTS, calibrated, divergence, logits, quantize, sqnr
from .quantized_graphs import delta_decoder, fused_decoder
from .renaming import rename_everything


@pytest.mark.parametrize("build", [delta_decoder, fused_decoder])
def test_delta_and_fused_graphs_are_calibrated_alike_in_chunks_and_steps(build: Callable[[], ir.Model]) -> None:
    tables = [calibrate(Program(graphs={"g": build()}), TEXTS, Plan(chunk=chunk)) for chunk in (16, 1)]
    for name, seen in tables[0].ranges.items():
        if seen.usable:
            span = max(seen.high, 0) - min(seen.low, 0)
            other = tables[1].ranges[name]
            assert abs(min(seen.low, 0) - min(other.low, 0)) <= 1e-5 * span
            assert abs(max(seen.high, 0) - max(other.high, 0)) <= 1e-5 * span


def told(model: ir.Model) -> tuple[dict[str, Role], list[tuple[object, ...]]]:
    """What is known of a graph's inputs and states."""
    states = find_states(model)
    places = [(s.input.name, s.output.name, s.layout, s.axis, s.kind, s.layer) for s in states]
    return find_roles(model, states), places


@pytest.mark.parametrize("name", IDIOMS)
def test_a_renamed_graph_is_still_understood_when_it_is_quantized(name: str) -> None:
    """No name helps here: masks, positions, keys and values are told through the pairs."""
    model = BUILDERS[name]()
    rename_everything(model, random.Random(5))
    before = told(model)
    program = quantize(calibrated(model))
    assert told(model) == before
    KvIo().run(program)
    assert told(model) == before
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = "com.microsoft"
    assert told(model) == before


def test_prefill_calibration_is_as_good_as_step_by_step() -> None:
    exact = logits(append_decoder(FOUR), HELD_OUT)
    found = {}
    for chunk in (48, 1):
        program = quantize(calibrated(append_decoder(FOUR), chunk))
        found[chunk] = logits(program.graphs["model"], HELD_OUT)
    assert abs(sqnr(exact, found[48]) - sqnr(exact, found[1])) <= 0.3
    by_chunk, by_step = (divergence(exact, found[chunk]) for chunk in (48, 1))
    assert abs(by_chunk - by_step) <= 0.05 * by_step


def test_decode_and_prefill_of_a_quantized_graph_agree() -> None:
    model = quantize(calibrated(append_decoder())).graphs["model"]
    step, chunk = logits(model, HELD_OUT), logits(model, HELD_OUT, 16)
    assert sqnr(step, chunk) > 35


def test_the_preset_does_it_all(tmp_path: Path) -> None:
    from onnx_llm_passes.ir.quantization import print_encodings

    program = Program(graphs={"model": append_decoder()})
    file = tmp_path / "encodings.json"
    file.write_text(print_encodings(calibrate(program, TEXTS)), encoding="utf-8")
    PassManager(parse_pipeline(f'quantize{{file="{file}"}}')).run(program)
    assert find_states(program.graphs["model"])[0].input.dtype is ir.DataType.INT8
    program.save(tmp_path / "out")
    assert (tmp_path / "out" / "encodings.json").is_file()
    again = Program.load(tmp_path / "out")
    assert table_of(again).encodings == table_of(program).encodings
    exact = logits(append_decoder(), HELD_OUT)
    assert sqnr(exact, logits(again.graphs["model"], HELD_OUT)) > 25


def test_a_graph_without_a_past_is_given_whole_texts() -> None:
    """A prefill graph that only gives its cache is calibrated in one run a text, whatever the chunk."""
    from .append_graphs import half_paired, no_states

    program = Program(graphs={"g": no_states()})
    first, second = (calibrate(program, TEXTS, Plan(chunk=chunk)) for chunk in (4, 64))
    assert first.ranges == second.ranges
    with pytest.raises(PassRefused, match="cannot be carried"):
        calibrate(Program(graphs={"g": half_paired("input")}), TEXTS)


def test_the_delta_sample_is_one() -> None:
    assert {state.layout for state in find_states(delta_decoder())} == {Layout.DELTA}
    assert {state.layout for state in find_states(fused_decoder())} == {Layout.FUSED}
