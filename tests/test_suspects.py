"""What looks like a state and is none that is understood is named, never half taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.ir.states.suspects import suspected_states
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

from .append_graphs import append_plain
from .mutants import KINDS
from .scatter_graphs import scatter_nd_transposed, tensor_scatter

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
TEXTS = {
    "a cell whose state goes through a product": (
        "g (int64[1] token, float[10,16] state) => (float[10,16] y, float[10,16] out_state)"
        "<float[16,16] w = {" + ",".join(["0.125"] * 256) + "}> {"
        "x = Cast <to = 1> (token) mixed = MatMul (state, w) sum = Add (mixed, x) out_state = Tanh (sum)"
        "y = Sin (out_state) }",
        ["state -> out_state"],
    ),
    "caches that come back whole": (
        "g (float[B,8,T] audio, float[B,2,C,4] cache, int64[B] length)"
        " => (float[B,T2] y, float[D0,2,D2,4] cache_next, int64[B] encoded_lengths) {"
        "cache_next = Sin (cache) y = ReduceMean <axes = [1], keepdims = 0> (audio)"
        "encoded_lengths = Identity (length) }",
        ["cache -> cache_next"],
    ),
    "a state in branches": (
        "g (float[B,8] x, float[2,B,4] state, bool fast) => (float[2,B,4] y, float[2,B,4] stateN) {"
        "stateN = If (fast) <then_branch = t () => (float[2,B,4] a) { a = Sin (state) },"
        " else_branch = e () => (float[2,B,4] b) { b = Cos (state) }> y = Neg (stateN) }",
        ["state -> stateN"],
    ),
    "a cell of one layer in branches": (
        "g (float[B,T,8] x, float[1,B,4] h, bool fast) => (float[1,B,4] y, float[1,B,4] hn) {"
        "hn = If (fast) <then_branch = t () => (float[1,B,4] a) { a = Sin (h) },"
        " else_branch = e () => (float[1,B,4] b) { b = Cos (h) }> m = ReduceMean <keepdims = 0> (x) y = Add (hn, m) }",
        ["h -> hn"],
    ),
    "lengths that pass through": (
        "g (float[B,8] x, int64[B] length) => (float[B,8] y, int64[B] encoded_lengths)"
        "{ y = Sin (x) encoded_lengths = Identity (length) }",
        [],
    ),
    "hidden rows beside token ids": (
        "g (int64[B,S] ids, float[B,S,4] rows) => (float[B,S,4] hidden, float[B,S] score)"
        "<int64[1] last = {2}> { f = Cast <to = 1> (ids) g = Unsqueeze (f, last) hidden = Mul (rows, g)"
        "score = ReduceMean <axes = [2], keepdims = 0> (hidden) }",
        [],
    ),
    "a final state beside the text's states": (
        "g (float[B,8,T] audio, float[B,2,6,4] last, int64[B] length)"
        " => (float[B,8,T] y, float[D0,2,6,D3] new, int64[B] lengths) {"
        "new = Sin (last) y = Cos (audio) lengths = Add (length, length) }",
        ["last -> new"],
    ),
    "an image that is sharpened": (
        "g (float[B,3,H,W] image, int64[B] strength) => (float[B,3,H,W] sharp, float[B] score) {"
        "sharp = Sin (image) score = ReduceMean <axes = [1, 2, 3], keepdims = 0> (sharp) }",
        [],
    ),
    "one input and one output": ("g (float[B,4] x) => (float[B,4] y) { y = Sin (x) }", []),
}


def model_of(name: str) -> ir.Model:
    """The graph of that name, parsed."""
    return ir.from_onnx_text(HEAD + TEXTS[name][0])


@pytest.mark.parametrize("name", TEXTS)
def test_suspects_are_found_by_type_and_computation(name: str) -> None:
    model = model_of(name)
    found = suspected_states(model, find_states(model))
    assert [suspect.text for suspect in found] == TEXTS[name][1]


@pytest.mark.parametrize("name", TEXTS)
def test_suspects_are_the_same_under_other_names(name: str) -> None:
    model = model_of(name)
    graph = model.graph
    for letter, values in (("i", graph.inputs), ("o", graph.outputs)):
        for at, value in enumerate(values):
            value.name = f"{letter}{at}"
    found = suspected_states(model, find_states(model))
    assert [suspect.input.name for suspect in found] == [
        f"i{[v.name for v in model_of(name).graph.inputs].index(text.split(' -> ')[0])}" for text in TEXTS[name][1]
    ]


@pytest.mark.parametrize("name", [name for name, (_, found) in TEXTS.items() if found])
@pytest.mark.parametrize("pipeline", ["single-shot", "convert-states{to=scatter}"])
def test_suspects_are_refused_by_name_and_nothing_changes(name: str, pipeline: str) -> None:
    program = Program(graphs={"model": model_of(name)})
    before = ir.to_proto(program.graphs["model"]).SerializeToString(deterministic=True)
    with pytest.raises(PassRefused, match=TEXTS[name][1][0]):
        PassManager(parse_pipeline(pipeline)).run(program)
    assert ir.to_proto(program.graphs["model"]).SerializeToString(deterministic=True) == before


LAST_TOKEN = (
    "g (float[B,T,4] x, float[B,4] shift) => (float[B,T,4] y, float[B,4] NEXT) <int64[1] one = {1}, int64 last = {-1}>"
    "{ first = Unsqueeze (shift, one) y = Sub (x, first) NEXT = Gather <axis = 1> (x, last) }"
)


@pytest.mark.parametrize(("name", "found"), [("new_shift", ["shift -> new_shift"]), ("summary", [])])
def test_a_last_token_that_is_handed_on_is_suspected_by_its_name(name: str, found: list[str]) -> None:
    """Nothing of the old state is in the new one, so that no computation tells it from another summary of the text."""
    model = ir.from_onnx_text(HEAD + LAST_TOKEN.replace("NEXT", name))
    assert [suspect.text for suspect in suspected_states(model, find_states(model))] == found


@pytest.mark.parametrize("pipeline", ["single-shot", "convert-states{to=scatter}"])
def test_a_past_that_may_be_left_out_is_not_half_taken_away(pipeline: str) -> None:
    """A default of no rows: what leaves is the present of an input, optional or not."""
    model = append_decoder()
    for past in [value for value in model.graph.inputs if (value.name or "").startswith("past")]:
        past.const_value = ir.tensor(np.zeros((1, 2, 0, 8), np.float32), name=past.name)
        model.graph.register_initializer(past)
    with pytest.raises(PassRefused, match=r"past_key_values.0.key -> present.0.key"):
        PassManager(parse_pipeline(pipeline)).run(Program(graphs={"model": model}))


@pytest.mark.parametrize(("shape", "found"), [(["B"], True), (["B", 1], True), (["B", 2], False)])
def test_a_count_of_tokens_is_a_state_line_by_line(shape: list[str | int], found: bool) -> None:
    """One number a line of the batch, with an axis of one or without."""
    dims = ",".join(map(str, shape))
    model = ir.from_onnx_text(
        HEAD + f"g (int64[B,S] ids, int64[{dims}] count) => (int64[B,S] y, int64[{dims}] count_out) {{"
        "s = Shape <start = 1, end = 2> (ids) count_out = Add (count, s) y = Neg (ids) }"
    )
    assert [state.kind for state in find_states(model)] == ["length"] * found


def test_a_length_that_passes_through_stays() -> None:
    program = Program(graphs={"model": model_of("lengths that pass through")})
    PassManager(parse_pipeline("single-shot")).run(program)
    assert [value.name for value in program.graphs["model"].graph.outputs] == ["y", "encoded_lengths"]


@pytest.mark.parametrize("build", [append_decoder, scatter_decoder])
@pytest.mark.parametrize("pipeline", ["single-shot", "strip-states{kinds=key,value},simplify"])
def test_caches_behind_a_beam_gather_go_whole(build: Callable[[], ir.Model], pipeline: str) -> None:
    model = build()
    assert KINDS["rows picked by beam"](model)
    PassManager(parse_pipeline(pipeline)).run(Program(graphs={"model": model}))
    assert not [value.name for value in model.graph.inputs if "past" in (value.name or "")]
    assert [value.name for value in model.graph.outputs] == ["logits"]


@pytest.mark.parametrize("build", [append_plain, scatter_nd_transposed, tensor_scatter])
@pytest.mark.parametrize("pipeline", ["single-shot", "convert-states{to=scatter}", "check-speculation-safe{k=0}"])
def test_a_past_that_leaves_as_it_came_is_no_state_that_is_carried(
    build: Callable[[], ir.Model], pipeline: str
) -> None:
    model = build()
    assert KINDS["past leaves"](model)
    with pytest.raises(PassRefused, match=r"key.*(no output|no other|not understood)"):
        PassManager(parse_pipeline(pipeline)).run(Program(graphs={"model": model}))


def test_inspect_lists_them_as_unpaired(tmp_path: Path) -> None:
    from .cli_tools import process

    ir.save(model_of("a cell whose state goes through a product"), tmp_path / "model.onnx")
    done = process(["inspect", tmp_path / "model.onnx"])
    assert "state -> out_state: unpaired" in done.stdout
    assert "no states" not in done.stdout
