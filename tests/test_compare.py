"""Comparing a quantized model with its original: measures, the boxed summary, the page, the plot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from onnx_llm_passes.cli import compare as command
from onnx_llm_passes.cli.app import run
from onnx_llm_passes.ir.core.errors import UnknownNameError, UsageError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import print_encodings
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.compare import metrics
from onnx_llm_passes.runtime.compare.programs import Row, compare_programs
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

TEXTS = [np.random.default_rng(2).integers(0, 128, 24) for _ in range(2)]
A, B = np.array([[0.0, 1.0, 3.0], [2.0, -1.0, 0.0]]), np.array([[0.5, 1.0, 2.0], [2.0, -1.0, 0.0]])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mean_abs", 0.25),
        ("max_abs", 1.0),
        ("peir", 0.25),
        ("mse", 1.25 / 6),
        ("sqnr", 10 * math.log10(15 / 1.25)),
        ("top1", 1.0),
    ],
)
def test_measures(name: str, wanted: float) -> None:
    assert metrics.measure(A, B, [name])[name] == pytest.approx(wanted)


def test_divergence_is_that_of_the_distributions() -> None:
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (A, B))
    assert metrics.kl(A, B) == pytest.approx(float((p * np.log(p / q)).sum(-1).mean()))
    assert metrics.kl(A + 100, A) == pytest.approx(0.0, abs=1e-9)


def test_measures_at_the_edges() -> None:
    flat = np.ones((2, 2))
    assert metrics.peir(flat, flat) == 1.0
    assert metrics.sqnr(A, A) == math.inf
    assert metrics.sqnr(np.zeros(2), np.ones(2)) == -math.inf
    with pytest.raises(UsageError, match="different shape"):
        metrics.measure(A, B[:1])
    with pytest.raises(UnknownNameError, match="sqnr"):
        metrics.measure(A, B, ["snqr"])


def test_a_measure_can_be_added_once() -> None:
    metrics.add_metric("span", lambda base, target: float(np.ptp(base) - np.ptp(target)))
    try:
        assert metrics.measure(A, B)["span"] == 1.0
        with pytest.raises(UsageError, match="there already"):
            metrics.add_metric("span", metrics.mse)
        with pytest.raises(UsageError, match="there already"):
            metrics.add_metric("kl", metrics.mse)
    finally:
        del metrics.METRICS["span"]


def quantized(tmp_path: Path, build: object = append_decoder) -> tuple[Program, Program]:
    before, after = Program(graphs={"model": build()}), Program(graphs={"model": build()})
    file = tmp_path / "encodings.json"
    file.write_text(print_encodings(calibrate(after, TEXTS, Plan(chunk=8))), encoding="utf-8")
    PassManager(parse_pipeline(f'quantize{{file="{file}"}}')).run(after)
    return before, after


@pytest.mark.parametrize("build", [append_decoder, scatter_decoder])
def test_logits_hidden_and_new_rows_of_every_layer(tmp_path: Path, build: object) -> None:
    found = compare_programs(*quantized(tmp_path, build), TEXTS, chunk=8)
    keys = {(row.what, row.layer) for row in found.rows}
    assert keys == {
        ("logits", None),
        ("hidden", None),
        *((f"new_{kind}", layer) for kind in ("key", "value") for layer in (0, 1)),
    }
    assert {*found.row("logits").measures} == {*metrics.METRICS, "kl", "top1"}
    assert all(15 < row.measures["sqnr"] < 100 for row in found.rows)
    assert found.tokens == 48


def test_a_model_is_equal_to_itself_whatever_the_chunk() -> None:
    program = Program(graphs={"model": append_decoder()})
    found = compare_programs(program, program, TEXTS, chunk=8)
    assert all(row.measures["max_abs"] == 0.0 for row in found.rows)


def test_new_rows_are_the_new_ones_alone() -> None:
    """Rows of the past would count once for every later run."""
    program = Program(graphs={"model": append_decoder()})
    sizes = []
    original = metrics.METRICS["mse"]
    metrics.METRICS["mse"] = lambda base, target: sizes.append(base.size) or original(base, target)
    try:
        compare_programs(program, program, TEXTS, chunk=4)
    finally:
        metrics.METRICS["mse"] = original
    rows = 48 * 2 * 8  # tokens, heads, width of a head
    assert sizes.count(rows) == 4


def test_the_box_is_the_one_people_know() -> None:
    lines = command.box(Row("logits", None, {"mean_abs": 0.015444, "peir": 0.06560064, "sqnr": math.inf}))
    assert lines[0] == "┌───────────── Quantization Error Summary ─────────────"
    assert lines[2] == "│ Mean |diff|: 0.015444"
    assert lines[3] == "│ PEIR       : 6.560064 %"
    assert lines[-1].startswith("└───")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = quantized(tmp_path)
    before.save(tmp_path / "a")
    after.save(tmp_path / "b")
    np.savez(tmp_path / "t.npz", input_ids=np.stack(TEXTS))
    common = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--tokens", str(tmp_path / "t.npz")]
    assert run([*common, "--per-layer", "--html", str(tmp_path / "p.html")]) == 0
    shown = capsys.readouterr().out
    assert "Quantization Error Summary" in shown
    assert "layer 1 new_value" in shown
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 6
    assert run([*common, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tensors"]) == 6
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "nowhere"), "--tokens", str(tmp_path / "t.npz")]) == 2


class Old:
    """What plotext up to release 5 offers, and what was asked of it."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[object, ...]] = {}

    def __getattr__(self, name: str) -> object:
        if name == "figure":
            raise AttributeError(name)
        return lambda *args, **_: self.calls.__setitem__(name, args) or "plot"


def test_the_plot_with_old_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Old()
    monkeypatch.setitem(__import__("sys").modules, "plotext", old)
    assert command.scatter(A, B) == "plot"
    assert old.calls["plotsize"] == (50, 25)
    assert old.calls["xlim"] == pytest.approx((-1.2, 3.2))


def test_the_plot_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotext", None)
    with pytest.raises(UsageError, match="pip install"):
        command.scatter(A, B)


def test_the_plot_is_drawn() -> None:
    pytest.importorskip("plotext")
    lines = command.scatter(A, B).rstrip("\n").splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 50
    assert any("•" in line or "·" in line for line in lines)
