"""Masks, written rows and read rows of caches written in place are told in numbers, and contradictions named."""

from __future__ import annotations

import re

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.interface.roles import find_roles
from onnx_llm_passes.ir.interface.visible import contradictions
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline

from .builders import BUILDERS
from .mutants import KINDS

WRITTEN = [name for name in BUILDERS if "scatter" in name]
FOUND = {
    "comparison flipped": "sees row 5, which is not written yet",
    "comparison strict": "sees no row",
    "right side + 1": "the query at position 0 sees row 1",
    "row numbers from 1": "sees no row",
    "row numbers reversed": "sees row 5",
    "no mask": "sees row 5",
    "weak mask": "sees row 5",
    "scores scaled by length": "weighs them otherwise, with a longer cache",
    "sum of the past in the logits": "takes rows of .* together outside of attention",
    "last row of the present in the logits": "takes rows of .* together outside of attention",
}
READ = {
    "read index flipped": r"are read as \[0, 0, 0, 3\]",
    "read index reversed": "are read as",
    "written at max(p - 1, 0)": r"positions \[0, 1, 2, 3\] are written to rows \[0, 0, 1, 2\]",
    "written at 2 p": r"to rows \[0, 2, 4, 6\]",
    "positions reversed": r"to rows \[3, 2, 1, 0\]",
    "positions from 0 in each run": r"positions \[2, 3\] are written to rows \[0, 1\]",
}


def reasons(model: ir.Model) -> list[str]:
    """Every contradiction of the graph's written states."""
    states = find_states(model)
    written = [state for state in states if state.in_place and state.carried is not None]
    return [why for _, why in contradictions(model, written, find_roles(model, states), chunks=True)]


@pytest.mark.parametrize("idiom", WRITTEN)
def test_sound_graphs_contradict_nothing(idiom: str) -> None:
    assert reasons(BUILDERS[idiom]()) == []


@pytest.mark.parametrize("kind", [*FOUND, *READ])
@pytest.mark.parametrize("idiom", ["scatter index 0", "scatter mrope"])
def test_contradictions_are_told(idiom: str, kind: str) -> None:
    model = BUILDERS[idiom]()
    assert KINDS[kind](model)
    found = reasons(model)
    assert any(re.search((FOUND | READ)[kind], why) for why in found), found


@pytest.mark.parametrize("kind", ["no mask", "weak mask", "right side + 1", "written at max(p - 1, 0)"])
@pytest.mark.parametrize("pipeline", ["single-shot", "convert-states{to=scatter},check-speculation-safe{k=2}"])
def test_passes_refuse_without_running_anything(kind: str, pipeline: str) -> None:
    model = BUILDERS["scatter index 0"]()
    assert KINDS[kind](model)
    with pytest.raises(PassRefused):
        PassManager(parse_pipeline(pipeline)).run(Program(graphs={"model": model}))


def test_new_rows_before_the_past_are_not_converted() -> None:
    model = BUILDERS["append plain"]()
    assert KINDS["new before past"](model)
    with pytest.raises(PassRefused, match="stand before the old ones"):
        PassManager(parse_pipeline("convert-states{to=scatter}")).run(Program(graphs={"model": model}))
