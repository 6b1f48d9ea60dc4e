"""A past that is reordered or cut before its update is found with its present, and goes whole."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.interface.roles import Role, find_roles
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.strip_states import StripStates
from onnx_llm_passes.runtime.verify.verify import verify

from .append_graphs import append_plain
from .builders import BUILDERS
from .entry_graphs import cut_before_and_after, reordered


@pytest.mark.parametrize("name", ["append beam", "scatter beam"])
def test_an_index_that_reorders_the_past_belongs_to_the_state(name: str) -> None:
    model = BUILDERS[name]()
    states = find_states(model)
    assert {state.reorder.name for state in states if state.reorder is not None} == {"beam_idx"}
    assert find_roles(model, states)["beam_idx"] is Role.BATCH_INDEX
    StripStates()(model)
    assert "beam_idx" not in [value.name for value in model.graph.inputs]


def test_a_window_cut_on_both_sides_is_one_state() -> None:
    states = find_states(cut_before_and_after())
    assert [(s.layout, s.axis) for s in states] == [(Layout.WINDOW, 2)] * 2
    assert [(s.input.name, s.output.name) for s in states if s.input and s.output] == [
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.value", "present.0.value"),
    ]


def test_a_window_cut_on_both_sides_goes_whole() -> None:
    original, result = (Program(graphs={"g": cut_before_and_after()}) for _ in range(2))
    PassManager(parse_pipeline("single-shot")).run(result)
    assert [value.name for value in result.graphs["g"].graph.outputs] == ["logits"]
    report = verify(original, result)
    assert report.equal, report.first_difference
    assert report.runs > 0


def test_a_window_of_a_fixed_length_keeps_its_refusal() -> None:
    model = cut_before_and_after()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([3 if str(dim) == "past" else dim for dim in value.shape or ()])
    before = ir.to_onnx_text(model)
    with pytest.raises(PassRefused):
        StripStates()(model)
    assert ir.to_onnx_text(model) == before


def test_a_cache_written_in_place_keeps_its_beam_index() -> None:
    """Two tokens after a beam step: the converted graph takes the lines that the growing one takes."""
    grown, written = reordered(append_plain()), Program(graphs={"g": reordered(append_plain())})
    PassManager(parse_pipeline("convert-states{to=scatter ctx=8}")).run(written)
    rng, beams = np.random.default_rng(0), np.array([1, 1, 0], np.int32)
    first, then = rng.integers(0, 20, (3, 4)), rng.integers(0, 20, (3, 2))
    answers: list[np.ndarray] = []
    for model in (grown, written.graphs["g"]):
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
        held: dict[str, np.ndarray] = {}
        for ids, start, index in ((first, 0, np.arange(3, dtype=np.int32)), (then, 4, beams)):
            feeds = _feeds(session, ids, start, index, held)
            outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))
            held = {name: array for name, array in outputs.items() if name != "logits"}
        answers.append(outputs["logits"])
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=2e-6)


def _feeds(
    session: onnxruntime.InferenceSession, ids: np.ndarray, start: int, index: np.ndarray, held: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What one run of either graph takes; presents go back by their place, or empty caches where none are."""
    length = ids.shape[1]
    given = {
        "input_ids": ids,
        "position_ids": np.tile(np.arange(start, start + length), (3, 1)),
        "attention_mask": np.ones((3, start + length), np.int64),
        "beam_idx": index,
    }
    presents = iter(held.values())
    feeds: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        if value.name == "attention_mask" and isinstance(value.shape[1], int):  # rows that are not written yet
            feeds[value.name] = np.pad(given[value.name], ((0, 0), (0, value.shape[1] - start - length)))
        elif value.name in given:
            feeds[value.name] = given[value.name]
        else:
            empty = np.zeros([3, *(d if isinstance(d, int) else 0 for d in value.shape[1:])], np.float32)
            feeds[value.name] = next(presents, empty)
    return feeds
