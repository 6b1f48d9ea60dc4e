"""tie-states: past, present and what is appended share one grid, and nothing is quantized without it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UsageError
from onnx_llm_passes.ir.quantization import (
    Encoding,
    encoding_groups,
)
from onnx_llm_passes.ir.quantization.carried import put_table, table_of
from onnx_llm_passes.ir.quantization.qdq import read_qdq
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.tie_states import TieStates
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .builders import BUILDERS
from .qdq_tools import HELD_OUT, IDIOMS, calibrated, logits, quantize, sqnr


@pytest.mark.parametrize("name", IDIOMS)
def test_no_rounding_again_on_the_cache_path(name: str) -> None:
    program = quantize(calibrated(BUILDERS[name]()))
    model = program.graphs["model"]
    applied = read_qdq(model)
    for group in encoding_groups(BUILDERS[name]()):
        grids = {(e.scale, e.zero_point, e.bits) for n, e in applied.encodings.items() if n in group.names()}
        assert len(grids) == 1
        assert {group.states[0].input.name, group.leader.name} <= set(applied.encodings)


def test_an_untied_past_is_an_error_not_a_default_scale() -> None:
    program = calibrated(append_decoder())
    table = table_of(program)
    TieStates().run(program)
    tied = table_of(program)
    past = find_states(program.graphs["model"])[0].input.name
    tied.encodings[past] = Encoding((1.0,), (0,), 8, signed=True)  # what a quantizer writes for an empty past
    put_table(program, tied)
    before = program.graphs["model"].graph.num_nodes()
    with pytest.raises(PassRefused, match=r"not tied.*tie-states"):
        InsertQdq().run(program)
    put_table(program, table)
    with pytest.raises(PassRefused, match="not tied"):
        InsertQdq().run(program)
    assert program.graphs["model"].graph.num_nodes() == before


def test_the_silent_failure_would_have_been_terrible() -> None:
    """What the refusal saves from: the same graph with scale 1.0 on its past."""
    exact = logits(append_decoder(), HELD_OUT)
    good = sqnr(exact, logits(quantize(calibrated(append_decoder())).graphs["model"], HELD_OUT))
    bad = quantize(calibrated(append_decoder())).graphs["model"]
    for state in find_states(bad):
        node = next(n for n, _ in state.input.uses() if n.op_type == "QuantizeLinear")
        scale = node.inputs[1]
        scale.const_value = ir.tensor(np.float32(1.0), name=scale.name)
    assert sqnr(exact, logits(bad, HELD_OUT)) < good - 10


@pytest.mark.parametrize("bits", [8, 16])
def test_the_grid_is_symmetric_and_of_the_width_asked_for(bits: int) -> None:
    program = calibrated(append_decoder())
    report = TieStates(bits=bits).run(program)
    found = table_of(program).encodings
    groups = encoding_groups(program.graphs["model"])
    assert report.counts["groups"] == len(groups) == 4
    for group in groups:
        members = [found[name] for name in group.names()]
        assert {(grid.bits, grid.signed, grid.zero_point) for grid in members} == {(bits, True, (0,))}
        assert len({grid.scale for grid in members}) == 1
    assert not TieStates(bits=bits).run(program).modified


def test_graphs_of_one_program_share_the_grid_that_holds_all_of_them() -> None:
    program = calibrated(append_decoder())
    alone = calibrated(append_decoder())
    program.graphs["decode"] = append_decoder()
    TieStates().run(program)
    TieStates().run(alone)
    for group in encoding_groups(append_decoder()):
        for name in group.names():
            assert table_of(program).encodings[name] == table_of(alone).encodings[name]


def test_a_width_that_no_cache_has_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="bits"):
        parse_pipeline("tie-states{bits=4}")
