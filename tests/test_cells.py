"""States that are taken apart and put together again are found and taken out; a start is given where zeros are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError, UsageError
from onnx_llm_passes.ir.program.contracts.states import StatesRemoved
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import Layout, Pairing, find_states
from onnx_llm_passes.ir.states.start import Start
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
QUARTERS = ",".join(["0.25"] * 16)
CELL = (
    "g (float[B,4] x, float[2,B,4] state) => (float[B,4] y, float[2,B,4] stateN)"
    "<int64 zero = {0}, int64 one = {1}, int64[1] axis = {0}, float[4,4] w = {" + QUARTERS + "}> {"
    "h = Gather <axis = 0> (state, zero) c = Gather <axis = 0> (state, one) u = MatMul (h, w) v = Add (u, x)"
    "gate = Sigmoid (v) new = Tanh (v) kept = Mul (gate, c) c2 = Add (kept, new) t = Tanh (c2) h2 = Mul (gate, t)"
    "a = Unsqueeze (h2, axis) b = Unsqueeze (c2, axis) both = Concat <axis = 0> (a, b) stateN = Identity (both)"
    "y = Relu (h2) }"
)
ROWS = (
    "g (float[4] x, float[3,4] state) => (float[4] y, float[3,4] out)"
    "<int64 zero = {0}, int64 one = {1}, int64[1,1] first = {0}, int64[1,1] second = {1}, int64[1] axis = {0}> {"
    "a = Gather <axis = 0> (state, zero) b = Gather <axis = 0> (state, one) p = Sin (a) q = Add (p, x) r = Mul (b, q)"
    "qq = Unsqueeze (q, axis) rr = Unsqueeze (r, axis)"
    "once = ScatterND (state, first, qq) out = ScatterND (once, second, rr) y = Add (q, r) }"
)
LAYERS = (
    "g (int64[2,1] ids, float[2,4,L] state, float[2,4,M] other)"
    " => (float[2,4,1] y, float[2,4,L] next, float[2,4,M] more)"
    "<int64 zero = {0}, int64 one = {1}, int64[1] axis = {2}, int64[2,4,1] first = {0,0,0,0,0,0,0,0},"
    " int64[2,4,1] second = {1,1,1,1,1,1,1,1}> {"
    "a = Gather <axis = 2> (state, zero) p = Sin (a) pp = Unsqueeze (p, axis)"
    "once = ScatterElements <axis = 2> (state, first, pp) kept = Identity (once)"
    "b = Gather <axis = 2> (kept, one) q = Mul (b, p) qq = Unsqueeze (q, axis)"
    "next = ScatterElements <axis = 2> (kept, second, qq) r = Cast <to = 1> (ids) y = Add (pp, qq)"
    "c = Gather <axis = 2> (other, zero) cc = Unsqueeze (c, axis) d = Gather <axis = 2> (other, one)"
    "dd = Unsqueeze (d, axis) more = Concat <axis = 2> (dd, cc) }"
)
MAXIMUM = (
    "g (float[B,4] x, float[2,B,4] state) => (float[B,4] y, float[2,B,4] stateN)"
    "<int64 zero = {0}, int64 one = {1}, int64[1] axis = {0}> {"
    "s = Gather <axis = 0> (state, zero) m = Gather <axis = 0> (state, one) m2 = Max (m, x) d = Sub (m, m2)"
    "e = Exp (d) f = Sub (x, m2) g2 = Exp (f) kept = Mul (e, s) s2 = Add (kept, g2)"
    "a = Unsqueeze (s2, axis) b = Unsqueeze (m2, axis) stateN = Concat <axis = 0> (a, b) y = Log (s2) }"
)
BRANCHES = (
    "g (float[B,4] x, float[2,B,4] state, int64 rate) => (float[B,4] y, float[2,B,4] stateN)"
    "<int64 fast = {16000}> { is = Equal (rate, fast) y, stateN = If (is) <then_branch = t () => (float[B,4] ty,"
    " float[2,B,4] ts) <int64 z = {0}, int64 o = {1}, int64[1] ax = {0}> { h = Gather <axis = 0> (state, z)"
    " c = Gather <axis = 0> (state, o) ty = Add (h, x) n = Mul (c, ty) a = Unsqueeze (ty, ax)"
    " b = Unsqueeze (n, ax) ts = Concat <axis = 0> (a, b) }, else_branch = e () => (float[B,4] ey,"
    " float[2,B,4] es) <int64 z2 = {0}, int64 o2 = {1}, int64[1] ax2 = {0}> { h2 = Gather <axis = 0> (state, z2)"
    " c2 = Gather <axis = 0> (state, o2) ey = Sub (h2, x) n2 = Sub (c2, ey) a2 = Unsqueeze (ey, ax2)"
    " b2 = Unsqueeze (n2, ax2) es = Concat <axis = 0> (a2, b2) }> }"
)
PLAIN = (
    "g (float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] hn) <float[4,4] w = {" + QUARTERS + "}> {"
    "u = MatMul (h, w) v = Add (u, x) hn = Tanh (v) y = Relu (hn) }"
)
LEARNED = (
    "g (float[2,4] x, float[2,4] h) => (float[2,4] y, float[2,4] hn) <float[2,4] h = {1,2,3,4,5,6,7,8}> {"
    "g2 = Sigmoid (x) v = Mul (g2, h) t = Tanh (x) hn = Add (v, t) y = Relu (hn) }"
)


def program_of(text: str) -> Program:
    """A program of one graph."""
    return Program(graphs={"model": ir.from_onnx_text(HEAD + text)})


def run(text: str, pipeline: str) -> Program:
    """What the pipeline makes of the graph."""
    program = program_of(text)
    PassManager(parse_pipeline(pipeline)).run(program)
    return program


@pytest.mark.parametrize("text", [CELL, ROWS, MAXIMUM, BRANCHES])
@pytest.mark.parametrize("renamed", [False, True])
def test_parts_and_pieces_are_a_state(text: str, renamed: bool) -> None:
    model = ir.from_onnx_text(HEAD + text)
    if renamed:
        for at, value in enumerate((*model.graph.inputs, *model.graph.outputs)):
            value.name = f"v{at}"
    (state,) = find_states(model)
    assert (state.layout, state.pairing) == (Layout.RECURRENT, Pairing.BOTH)
    assert (state.input, state.output) == (model.graph.inputs[1], model.graph.outputs[1])


@pytest.mark.parametrize("text", [CELL, ROWS, BRANCHES])
def test_a_state_of_parts_starts_from_zeros(text: str) -> None:
    result = run(text, "single-shot")
    graph = result.graphs["model"].graph
    assert "state" not in [value.name for value in graph.inputs] and len(graph.outputs) == 1
    report = verify(program_of(text), result)
    assert report.verdict is Verdict.EQUAL and report.runs


def test_states_of_all_layers_are_written_one_by_one_on_the_last_axis() -> None:
    found = find_states(ir.from_onnx_text(HEAD + LAYERS))
    assert [(state.name, state.output.name if state.output else "") for state in found] == [
        ("state", "next"),
        ("other", "more"),
    ]


def test_a_tensor_that_is_cut_and_joined_alone_is_no_state() -> None:
    text = "g (float[B,4] x) => (float[B,4] y) <int64[1] ax = {1}> { l, r = Split <axis = 1> (x)"
    assert not find_states(ir.from_onnx_text(HEAD + f"{text} n = Sin (r) y = Concat <axis = 1> (n, l) }}"))


def test_rotated_halves_are_no_state() -> None:
    model = ir.from_onnx_text(
        HEAD + "g (float[B,2,S,4] x, float[B,1,S,4] c) => (float[B,2,S,4] turned, float[B,2,S,4] same)"
        "<int64[1] a = {0}, int64[1] b = {2}, int64[1] e = {4}, int64[1] ax = {3}> {"
        "l = Slice (x, a, b, ax) r = Slice (x, b, e, ax) n = Neg (r) t = Concat <axis = 3> (n, l)"
        "u = Mul (t, c) v = Mul (x, c) turned = Add (u, v) same = Relu (x) }"
    )
    assert not find_states(model)


STEPS = {
    "a product": ("next = Mul (state, m)", "Mul"),
    "the larger by Where": ("g = Greater (state, m) next = Where (g, state, m)", "Greater"),
    "the smaller by Where": ("g = LessOrEqual (m, state) next = Where (g, m, state)", "LessOrEqual"),
}


@pytest.mark.parametrize("kind", STEPS)
def test_what_zeros_would_settle_is_not_assumed_to_start_from_them(kind: str) -> None:
    """A product stays zero for ever, and the larger of two numbers is one of them however it is spelled."""
    step, op_type = STEPS[kind]
    model = ir.from_onnx_text(
        HEAD + "g (float[B,T,4] x, float[B,4] state) => (float[B,T,4] y, float[B,4] next) <int64[1] one = {1}> {"
        f"m = ReduceMax <axes = [1], keepdims = 0> (x) {step} u = Unsqueeze (next, one) y = Sub (x, u) }}"
    )
    with pytest.raises(PassRefused, match=rf"before the first run.*{op_type}.*init=state:VALUE"):
        PassManager(parse_pipeline("single-shot")).run(Program(graphs={"model": model}))


def test_a_decay_may_start_from_zero() -> None:
    model = ir.from_onnx_text(
        HEAD + "g (float[B,T,4] x, float[B,4] state) => (float[B,T,4] y, float[B,4] next) <int64[1] one = {1}> {"
        "m = ReduceMax <axes = [1], keepdims = 0> (x) d = Mul (state, m) next = Add (d, m)"
        "u = Unsqueeze (next, one) y = Sub (x, u) }"
    )
    PassManager(parse_pipeline("single-shot")).run(Program(graphs={"model": model}))
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_a_running_maximum_is_not_assumed_to_start_from_zero() -> None:
    with pytest.raises(PassRefused, match=r"before the first run.*Max.*init=state:VALUE"):
        run(MAXIMUM, "single-shot")


@pytest.mark.parametrize("content", ["number", "file"])
def test_a_start_that_is_given_is_what_the_original_is_fed(content: str, tmp_path: Path) -> None:
    given = "-1e4"
    if content == "file":
        given = str(tmp_path / "start.npz")
        np.savez(given, state=np.array([[[0.0] * 4], [[-1e4] * 4]], np.float32))
    result = run(MAXIMUM, f"single-shot{{init=state:{given}}}")
    (removed,) = [c for c in result.contracts if isinstance(c, StatesRemoved)]
    start = removed.starts["state"]
    assert start.values[-1] == -1e4 and (len(start.values) == 8 or content == "number")
    report = verify(program_of(MAXIMUM), result)
    assert report.verdict is Verdict.EQUAL and report.runs
    result.contracts[:] = [StatesRemoved(("state",), ("stateN",)) if c is removed else c for c in result.contracts]
    assert verify(program_of(MAXIMUM), result).verdict is Verdict.DIFFERENT


def test_a_start_says_that_something_is_a_state() -> None:
    with pytest.raises(PassRefused, match="h -> hn"):
        run(PLAIN, "single-shot")
    result = run(PLAIN, "single-shot{init=h:0.5}")
    assert [value.name for value in result.graphs["model"].graph.inputs] == ["x"]
    assert verify(program_of(PLAIN), result).verdict is Verdict.EQUAL


def test_an_initializer_tells_the_start() -> None:
    result = run(LEARNED, "single-shot")
    assert [value.name for value in result.graphs["model"].graph.inputs] == ["x"]
    (removed,) = [c for c in result.contracts if isinstance(c, StatesRemoved)]
    assert removed.starts == {"h": Start((2, 4), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0))}
    assert verify(program_of(LEARNED), result).verdict is Verdict.EQUAL


@pytest.mark.parametrize(
    ("init", "error", "words"),
    [
        ("other:0", UnknownNameError, "unknown state 'other'"),
        ("state:1e39", UsageError, "not finite"),
        ("state:none.npz", UsageError, "FileNotFoundError"),
    ],
)
def test_starts_that_do_not_fit(init: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run(CELL, f"single-shot{{init={init}}}")


def test_a_start_of_another_shape_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "start.npz", state=np.zeros((3, 1, 4), np.float32))
    with pytest.raises(UsageError, match=r"cannot start from these values.*\[3, 1, 4\].*\[2, B, 4\]"):
        run(CELL, f"single-shot{{init=state:{tmp_path / 'start.npz'}}}")
