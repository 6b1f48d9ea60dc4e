"""The states of the graphs in the package silero-vad are found, and taken out as onnxruntime has it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_llm_passes.cli.job import Job, execute
from onnx_llm_passes.ir.interface.analysis import analysis_of
from onnx_llm_passes.ir.interface.roles import Role
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import Layout, Pairing

CHUNKS = 50


def folder() -> Path | None:
    """Where the package keeps its graphs: installed, or in the folder that SILERO_VAD names."""
    named = os.environ.get("SILERO_VAD")
    spec = None if named else importlib.util.find_spec("silero_vad")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(named) if named else Path(places[0]) / "data" if places else None


FOUND = folder()
GRAPHS = sorted(FOUND.glob("*.onnx")) if FOUND is not None else []
pytestmark = pytest.mark.skipif(
    not GRAPHS, reason="the package silero-vad is not installed, and SILERO_VAD names no folder"
)


def session(path: Path) -> onnxruntime.InferenceSession:
    """The graph as onnxruntime opens it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds_of(opened: onnxruntime.InferenceSession, chunk: np.ndarray) -> dict[str, np.ndarray]:
    """One chunk of sound for the inputs that are no states."""
    names = {item.name for item in opened.get_inputs()}
    return {"input": chunk} | ({"sr": np.array(16000, np.int64)} if "sr" in names else {})


def zeros(opened: onnxruntime.InferenceSession, names: list[str]) -> dict[str, np.ndarray]:
    """The states of a first run, one row of sound at a time."""
    shapes = {item.name: item.shape for item in opened.get_inputs()}
    return {n: np.zeros([size if isinstance(size, int) else 1 for size in shapes[n]], np.float32) for n in names}


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_states_are_found_and_taken_out(path: Path, tmp_path: Path) -> None:
    (model,) = Program.load(path).graphs.values()
    known = analysis_of(model)
    pairs = {(s.name, s.output.name if s.output is not None else "") for s in known.states}
    assert pairs == ({("h", "hn"), ("c", "cn")} if "sequence" in path.stem else {("state", "stateN")})
    assert {(s.layout, s.pairing) for s in known.states} == {(Layout.RECURRENT, Pairing.BOTH)}
    assert known.roles["input"] is Role.FEATURES
    assert known.roles.get("sr", Role.OTHER) is Role.OTHER
    pipeline = "single-shot"
    if not all(d.dim_param or d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim):
        pipeline = "rename-io{dims=input.0:batch,input.1:samples,state.1:batch}," + pipeline
    execute(Job(pipeline, path, tmp_path / "out"))
    (written,) = (tmp_path / "out").glob("*.onnx")
    before, after = session(path), session(written)
    states = {name for name, _ in pairs}
    assert not states & {item.name for item in after.get_inputs()}
    sound = np.random.default_rng(0).standard_normal((CHUNKS, 1, 576)).astype(np.float32)
    held = zeros(before, sorted(states))
    ends = [item.name for item in before.get_outputs()]
    first = ends[0]
    for at, chunk in enumerate(sound):
        made = dict(zip(ends, before.run(None, feeds_of(before, chunk) | held), strict=True))
        alone = before.run([first], feeds_of(before, chunk) | zeros(before, sorted(states)))[0]
        np.testing.assert_array_equal(after.run([first], feeds_of(after, chunk))[0], alone)
        assert at == 0 or not np.array_equal(alone, made[first])  # the state matters, and is left out on purpose
        held = {name: made[output] for name, output in pairs}
