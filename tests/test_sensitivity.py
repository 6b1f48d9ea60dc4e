"""Losses of single layers and roles are those of a naive loop, and bits are assigned by them exactly."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes import PassManager, PassRefused, Program, UsageError, parse_pipeline
from onnx_llm_passes.cli.app import run as command
from onnx_llm_passes.ir.core.errors import InputError
from onnx_llm_passes.ir.quantization.recipe import parse_recipe
from onnx_llm_passes.runtime.compare.bits import Item, assignment, greedy, items_of, least_loss, recipe_of
from onnx_llm_passes.runtime.compare.programs import compare_programs
from onnx_llm_passes.runtime.compare.sensitivity import sensitivity
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .quantized_graphs import delta_decoder, fused_decoder

RANDOM = np.random.default_rng(8)
TEXTS = [RANDOM.integers(0, 100, 20) for _ in range(2)]


def one(model: ir.Model) -> Program:
    return Program(graphs={"model": model})


def naive(build: object, role: str, layer: int | None, bits: int, folder: Path, texts: list[np.ndarray]) -> float:
    """The KL of the whole graph with these weights alone put on their grid."""
    where = f"roles: [{', '.join(role.split())}]" + (f", layers: {layer}" if layer is not None else "")
    (folder / "r.yaml").write_text(f"recipe: 1\nrules:\n- where: {{{where}}}\n  weights: {{bits: {bits}}}\n")
    other = one(build())  # type: ignore[operator]
    PassManager(parse_pipeline(f"insert-qdq{{recipe={folder / 'r.yaml'}}}")).run(other)
    row = compare_programs(one(build()), other, texts).row("logits")  # type: ignore[operator]
    assert row is not None
    return row.measures["kl"]


@pytest.mark.parametrize("build", [append_decoder, delta_decoder, fused_decoder])
def test_losses_are_those_of_a_naive_loop(build: object, tmp_path: Path) -> None:
    if build in (append_decoder, delta_decoder):
        found = sensitivity(one(build()), TEXTS, rows=40)  # type: ignore[operator]
        texts = TEXTS
    else:
        found = sensitivity(one(build()), TEXTS[:1], rows=20)  # type: ignore[operator]
        texts = TEXTS[:1]
    assert found.tokens == sum(map(len, texts))
    every = found.losses
    assert len(every) >= 6
    for loss in (every[0], every[1], every[len(every) // 2], every[-1]):
        wanted = naive(build, loss.role, loss.layer, loss.bits, tmp_path, texts)
        assert loss.kl == pytest.approx(wanted, rel=2e-3, abs=1e-9), loss


def test_fewer_bits_lose_more_and_every_layer_is_there() -> None:
    found = sensitivity(one(append_decoder(Tiny(layers=3))), TEXTS, rows=32)
    assert {loss.layer for loss in found.losses} == {0, 1, 2, None}
    by_place = {(loss.layer, loss.role, loss.bits): loss for loss in found.losses}
    for (layer, role, bits), loss in by_place.items():
        if bits == 4:
            assert loss.kl > by_place[layer, role, 8].kl
            assert loss.sqnr < by_place[layer, role, 8].sqnr


def test_the_budget_of_runs_follows_the_texts() -> None:
    few = sensitivity(one(append_decoder()), TEXTS)
    many = sensitivity(one(append_decoder()), [RANDOM.integers(0, 100, 64) for _ in range(12)])
    assert 16 <= few.tokens < many.tokens <= 12 * 64 / 4


def test_texts_that_are_too_short_are_refused() -> None:
    with pytest.raises(InputError, match="no text is long enough"):
        sensitivity(one(append_decoder()), [np.arange(3)])
    with pytest.raises(InputError, match="no text is long enough"):
        sensitivity(one(append_decoder()), [])
    flat = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
        g (int64[1,S] input_ids, float[50,8] table) => (float[1,S,8] y) { y = Gather (table, input_ids) }""")
    table = flat.graph.inputs.pop()
    table.const_value = ir.tensor(np.ones((50, 8), np.float32), name="table")
    flat.graph.register_initializer(table)
    with pytest.raises(PassRefused, match="no layer of the graph"):
        sensitivity(one(flat), TEXTS)


ITEMS = [
    Item(layer, role, weights, {8: 1e-6 * weights, 4: loss})
    for layer, role, weights, loss in [
        (0, "q", 64, 0.5),
        (0, "down", 192, 0.9),
        (1, "q", 64, 0.1),
        (1, "down", 192, 0.2),
    ]
] + [Item(None, "head", 128, {8: 0.0, 4: 0.45})]


@pytest.mark.parametrize("budget", [4.0, 4.5, 5.0, 5.5, 6.3, 8.0])
def test_no_other_assignment_loses_less(budget: float) -> None:
    best = least_loss(ITEMS, budget)
    every = [assignment(ITEMS, bits) for bits in itertools.product((8, 4), repeat=len(ITEMS))]
    assert best.average <= budget
    assert best.loss == pytest.approx(min(a.loss for a in every if a.average <= budget))
    assert best.loss <= greedy(ITEMS, budget).loss
    assert greedy(ITEMS, budget).average <= budget


def test_greedy_is_not_always_best() -> None:
    assert any(least_loss(ITEMS, b).loss < 0.99 * greedy(ITEMS, b).loss for b in np.arange(4.0, 8.0, 0.1))


def test_a_budget_that_nothing_fits_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 4 bits"):
        least_loss(ITEMS, 3.5)
    with pytest.raises(UsageError, match="nothing to give bits to"):
        greedy([], 8)


def test_the_recipe_is_the_assignment(tmp_path: Path) -> None:
    found = sensitivity(one(append_decoder()), TEXTS, rows=32)
    items = items_of(found.losses)
    best = least_loss(items, 5.5)
    text = recipe_of(items, best)
    assert parse_recipe(text).about
    (tmp_path / "r.yaml").write_text(text)
    program = one(append_decoder())
    program.graphs["model"].graph.opset_imports[""] = 21
    PassManager(parse_pipeline(f"insert-qdq{{recipe={tmp_path / 'r.yaml'}}}")).run(program)
    bits = {known.encoding.bits: 0 for known in program.encodings.values() if known.encoding}
    for known in program.encodings.values():
        bits[known.encoding.bits] += 1  # type: ignore[union-attr]
    assert bits == {width: best.bits.count(width) for width in set(best.bits)}


def test_the_commands_measure_and_assign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one(append_decoder()).save(tmp_path / "m")
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps([int(i) for i in text]) for text in TEXTS))
    out = str(tmp_path / "s.json")
    assert command(["sensitivity", str(tmp_path / "m"), "--tokens", str(tmp_path / "t.jsonl"), "-o", out]) == 0
    assert "KL at 4" in capsys.readouterr().out
    assert command(["suggest-bits", out, "--budget", "5"]) == 0
    shown = capsys.readouterr().out
    assert "greedy" in shown
    assert "all 4" in shown
    assert command(["suggest-bits", out, "--budget", "5", "--apply"]) == 0
    assert parse_recipe(capsys.readouterr().out)
    (tmp_path / "bad.json").write_text('{"losses": [{"layer": 0}]}')
    assert command(["suggest-bits", str(tmp_path / "bad.json")]) == 2
    assert "holds no losses" in capsys.readouterr().err
