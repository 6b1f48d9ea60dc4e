"""The benchmark's graphs are what they claim, its peers do the job, its ratios are computed right. Nothing is timed."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))  # bench is no part of the installed package

graphs: Any = importlib.import_module("bench.graphs")
jobs: Any = importlib.import_module("bench.jobs")
measure: Any = importlib.import_module("bench.measure")
pages: Any = importlib.import_module("bench.pages")
report: Any = importlib.import_module("bench.report")
rounds: Any = importlib.import_module("bench.rounds")

STYLES = list(graphs.Style)


@pytest.fixture(params=STYLES, ids=lambda style: style.value)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return graphs.write(tmp_path, request.param, 2, graphs.Weights.RANDOM)


def logits(path: Path, tokens: np.ndarray, mask: np.ndarray, past: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(path)
    start = next(iter(past.values())).shape[2] if past else 0
    feeds = {
        "input_ids": tokens,
        "attention_mask": mask,
        "position_ids": np.tile(np.arange(start, start + tokens.shape[1]), (len(tokens), 1)),
        **past,
    }
    return session.run(None, feeds)


def empty_past(batch: int) -> dict[str, np.ndarray]:
    return {
        f"past_key_values.{layer}.{kind}": np.zeros((batch, 2, 0, 16), np.float32)
        for layer in range(2)
        for kind in ("key", "value")
    }


@pytest.mark.parametrize(("style", "layer", "rest"), [("constants", 245, 135), ("annotated", 86, 36)])
def test_nodes_a_layer(style: str, layer: int, rest: int) -> None:
    for layers in (2, 5):
        built, _ = graphs.build(graphs.Style(style), graphs.tiny(layers))
        assert len(built.graph.node) == layer * layers + rest


def test_depth_of_126_in_the_style_of_constants_has_31005_nodes_and_no_value_infos() -> None:
    built, weights = graphs.build(graphs.Style.CONSTANTS, graphs.full(126))
    assert len(built.graph.node) == 31005
    assert not built.graph.value_info
    assert sum(graphs.ranges(weights)[-1]) == pytest.approx(140e9, rel=0.01)


def test_annotated_style_gives_every_value_a_type_that_inference_agrees_with(tmp_path: Path) -> None:
    path = graphs.write(tmp_path, graphs.Style.ANNOTATED, 2, graphs.Weights.RANDOM)
    built = onnx.load(path)
    onnx.checker.check_model(built, full_check=True)
    typed = {info.name for info in (*built.graph.value_info, *built.graph.output)}
    assert typed == {name for node in built.graph.node for name in node.output}


def test_decoding_in_two_parts_equals_one_run_and_depends_on_the_past(model: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 512, (3, 9))
    ones = np.ones((3, 9), np.int64)
    whole = logits(model, tokens, ones, empty_past(3))[0]
    first = logits(model, tokens[:, :5], ones[:, :5], empty_past(3))
    past = dict(zip(empty_past(3), first[1:], strict=True))
    second = logits(model, tokens[:, 5:], ones, past)[0]
    np.testing.assert_allclose(np.concatenate([first[0], second], axis=1), whole, atol=1e-4)
    other = {name: values[::-1].copy() for name, values in past.items()}
    assert np.abs(logits(model, tokens[:, 5:], ones, other)[0] - whole[:, 5:]).max() > 1e-2


@pytest.mark.skipif("ONNX_PASSES_MODELS" not in os.environ, reason="ONNX_PASSES_MODELS names no folder of models")
def test_constants_style_is_the_real_exporter_s_graph_operator_for_operator() -> None:
    path = Path(os.environ["ONNX_PASSES_MODELS"]) / "optimum-llama" / "model.onnx"
    if not path.exists():
        pytest.skip("the folder of models has no optimum-llama")
    built, _ = graphs.build(graphs.Style.CONSTANTS, graphs.tiny(2))
    real = onnx.load(path)
    assert Counter(n.op_type for n in built.graph.node) == Counter(n.op_type for n in real.graph.node)
    assert [i.name for i in built.graph.input] == [i.name for i in real.graph.input]
    assert [o.name for o in built.graph.output] == [o.name for o in real.graph.output]


@pytest.mark.parametrize(
    "words",
    [
        ["strip_protobuf"],
        ["strip_onnx_ir", "--no-shapes"],
        ["strip_onnx_ir", "--simplify", "--no-shapes"],
        ["strip_surgeon"],
    ],
    ids=" ".join,
)
def test_peers_strip_bit_equal(model: Path, words: list[str]) -> None:
    script, *options = words
    result = model.with_name("peer.onnx")
    subprocess.run(
        [sys.executable, str(ROOT / "bench" / "peers" / f"{script}.py"), str(model), str(result), *options], check=True
    )
    tokens = np.random.default_rng(1).integers(0, 512, (2, 6))
    mask = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]])
    stripped = onnx.load(result, load_external_data=False).graph
    assert [i.name for i in stripped.input] == ["input_ids", "attention_mask", "position_ids"]
    assert [o.name for o in stripped.output] == ["logits"]
    before = logits(model, tokens, mask, empty_past(2))[0]
    np.testing.assert_array_equal(logits(result, tokens, mask, {})[0], before)


def test_every_job_of_a_wanted_ratio_exists_and_both_are_of_one_group() -> None:
    for wanted in jobs.WANTED:
        assert jobs.BY_KEY[wanted.over].group is jobs.BY_KEY[wanted.under].group
    assert len(jobs.BY_KEY) == len(jobs.JOBS)


def cost(seconds: float, failure: str = "") -> Any:
    return measure.Cost(seconds, seconds, 100.0, 0, failure)


def test_ratios_are_paired_by_round_and_a_failure_gives_none() -> None:
    series = rounds.Series(jobs.Group.STRIP, "constants", 126, 31005)
    series.costs = {"strip": [cost(1), cost(2), cost(3, "died")], "floor-off": [cost(1), cost(1), cost(1)]}
    assert series.ratios(jobs.Wanted("strip", "floor-off", 1.8)) == [1, 2]
    row = next(row for row in report.wanted_table([series]).rows if "collector off" in row[0])
    assert row[-1] == "held"
    series.costs["strip"] = [cost(2), cost(2), cost(2)]
    row = next(row for row in report.wanted_table([series]).rows if "collector off" in row[0])
    assert row[-1] == "MISSED"


def test_growth_of_a_linear_job_is_1_and_of_a_quadratic_one_the_ratio_of_nodes() -> None:
    nodes = {2: 200, 32: 3200, 126: 12600}
    linear = rounds.Growth("linear", "constants", nodes, {layers: [0.3 + count] for layers, count in nodes.items()})
    assert linear.ratios(32, 126) == [pytest.approx(1)]
    square = rounds.Growth("square", "constants", nodes, {layers: [count**2] for layers, count in nodes.items()})
    assert square.ratios(32, 126)[0] > 3.5


def test_a_job_stopped_for_its_time_counts_as_at_least_that_slow() -> None:
    series = rounds.Series(jobs.Group.SIMPLIFY, "constants", 126, 31005)
    series.costs = {"onnxslim": [cost(300, "stopped after 300 s")], "simplify": [cost(2)]}
    assert series.ratios(jobs.Wanted("onnxslim", "simplify", 3.0, at_least=True)) == [150]
    assert series.ratios(jobs.Wanted("onnxslim", "simplify", 3.0)) == []


def test_a_run_over_its_time_is_stopped_and_says_so(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    found = measure.run(words, cwd=tmp_path, limits=measure.Limits(seconds=0.2))
    assert found.failure == "stopped after 0 s"
    assert found.seconds < 30


def test_a_failing_run_gives_its_last_line(tmp_path: Path) -> None:
    found = measure.run([sys.executable, "-c", "raise ValueError('so')"], cwd=tmp_path, limits=measure.Limits())
    assert found.failure == "ValueError: so"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's page cache")
def test_a_read_of_the_weight_file_does_not_go_unseen(tmp_path: Path) -> None:
    path = tmp_path / "weights.data"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    assert pages.resident_bytes(path) == 0
    with path.open("rb") as file:
        file.seek(1 << 30)
        file.read(10)
    assert pages.resident_bytes(path) > 0


def test_two_builds_are_compared_round_by_round(tmp_path: Path) -> None:
    against: Any = importlib.import_module("bench.against")
    cost = measure.Cost
    pair = against.Pair(against.Compared("x", ("inspect", "MODEL"), 0.6))
    pair.ours = [cost(1, 1.0, 100, 0), cost(1, 2.0, 100, 0), cost(1, 9.0, 100, 0, "stopped")]
    pair.other = [cost(1, 2.0, 100, 0), cost(1, 4.0, 100, 0), cost(1, 1.0, 100, 0)]
    assert pair.ratios("cpu_seconds") == [0.5, 0.5]
    assert pair.verdict == "held"
    assert "stopped" in pair.failure
    place = jobs.Place(tmp_path / "there")
    words = against.command(pair.job, place, tmp_path / "out")
    assert words[-2:] == ["inspect", str(place.source)]
    assert against.of_build(Path("/a/onnx_llm_passes"))["PYTHONPATH"].startswith("/a")
    with pytest.raises(SystemExit):
        against.checked(Path("/nowhere"))
