"""Calibration: chunks against single steps, masks, resuming, shards, methods, and what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import InputError, PassRefused, UsageError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import EncodingTable, Evidence, NoEvidence, read_encodings
from onnx_llm_passes.ir.quantization.clip import clip, resolve
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.keep_last_logits import KeepLastLogits
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate import calibrate as module
from onnx_llm_passes.runtime.calibrate.calibrate import Envelope, Job, Method, Partial, Plan, calibrate, in_process
from onnx_llm_passes.runtime.calibrate.engine import parse_engine, shards_of
from onnx_llm_passes.runtime.calibrate.tokens import read_tokens
from onnx_llm_passes.runtime.calibrate.watch import MASK_FLOOR, SCORE_ROOM, watch
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .append_graphs import baked_length
from .builders import BUILDERS

RANDOM = np.random.default_rng(7)
TEXTS = [RANDOM.integers(0, 128, length) for length in (37, 20, 5)]
FOUR = Tiny(layers=4, hidden=64, heads=4, kv_heads=2, head=16, ffn=96)


def one(model: ir.Model) -> Program:
    return Program(graphs={"model": model})


def bounds(seen: Evidence) -> tuple[float, float]:
    """As every grid sees them: with 0."""
    return min(seen.low, 0.0), max(seen.high, 0.0)


def apart(a: EncodingTable, b: EncodingTable) -> float:
    """The largest difference of two bounds over the tensor's span."""
    assert a.ranges.keys() == b.ranges.keys()
    worst = 0.0
    for name, seen in a.ranges.items():
        if seen.usable:
            (low, high), (other_low, other_high) = bounds(seen), bounds(b.ranges[name])
            worst = max(worst, abs(low - other_low) / (high - low), abs(high - other_high) / (high - low))
    return worst


def test_chunks_and_single_steps_agree_on_a_graph_of_four_layers() -> None:
    texts = [RANDOM.integers(0, 128, 64) for _ in range(2)]
    program = one(append_decoder(FOUR))
    tables = {chunk: calibrate(program, texts, Plan(chunk=chunk)) for chunk in (1, 8, 256)}
    assert len(tables[1].ranges) > 200
    assert apart(tables[256], tables[1]) <= 1e-5
    assert apart(tables[256], tables[8]) <= 1e-5


@pytest.mark.slow
def test_chunks_cost_an_eighth_of_single_steps_at_most() -> None:
    """Processor time of one thread, the runs alone: what else the machine does counts little."""
    (model,) = one(append_decoder(Tiny(layers=4, hidden=256, heads=4, kv_heads=2, head=64, ffn=688))).graphs.values()
    tokens, seconds = RANDOM.integers(0, 128, 128), dict[int, float]()
    for chunk in (128, 1):
        worker = Job(model, [tokens], Plan(chunk=chunk)).worker(None)
        worker.look(0, tokens)  # the first run makes room
        before = time.process_time()
        worker.look(0, tokens)
        seconds[chunk] = time.process_time() - before
    assert seconds[1] >= 8 * seconds[128]


@pytest.mark.parametrize("name", ["append", "append plain", "append other axes", "append three dims", "append dynamo"])
def test_every_idiom_that_grows_can_be_calibrated(name: str) -> None:
    program = one(BUILDERS[name]())
    table = calibrate(program, TEXTS, Plan(chunk=16))
    assert apart(table, calibrate(program, TEXTS, Plan(chunk=1))) <= 1e-5
    assert all(table.ranges[state.output.name].usable for state in find_states(program.graphs["model"]))


@pytest.mark.parametrize("name", ["scatter", "scatter batch index", "scatter elements", "tensor scatter"])
def test_every_idiom_that_is_written_can_be_calibrated(name: str) -> None:
    program = one(BUILDERS[name]())
    table = calibrate(program, TEXTS, Plan(chunk=16))
    steps = calibrate(program, TEXTS, Plan(chunk=1))
    for state in find_states(program.graphs["model"]):
        assert table.ranges[state.output.name].usable
        assert bounds(table.ranges[state.output.name]) == pytest.approx(
            bounds(steps.ranges[state.output.name]), rel=1e-5
        )


def test_the_past_is_carried_and_never_watched() -> None:
    """Stale or zero pasts are the classic error: the present of a later chunk holds the earlier ones."""
    program = one(append_decoder())
    whole, cut = (calibrate(program, TEXTS, Plan(chunk=chunk)) for chunk in (64, 4))
    for state in find_states(program.graphs["model"]):
        assert state.input.name not in whole.ranges
        assert bounds(whole.ranges[state.output.name]) == pytest.approx(bounds(cut.ranges[state.output.name]), rel=1e-5)


def test_masked_scores_and_huge_fills_are_left_out() -> None:
    model = append_decoder()
    table = calibrate(one(model), TEXTS, Plan(chunk=64))
    softmax = [node for node in model.graph if node.op_type == "Softmax"]
    scores = [node.inputs[0].name for node in softmax]
    masks = [node.inputs[0].producer().inputs[1].name for node in softmax]
    for name in scores:
        assert -100 < table.ranges[name].low < table.ranges[name].high < 100
    for name in masks:
        assert (table.ranges[name].low, table.ranges[name].high) == (MASK_FLOOR, 0.0)
    assert set(masks) <= set(table.calibration.clamped)


def test_a_huge_fill_is_clamped_wherever_the_mask_is_made() -> None:
    """Not what is added to the scores alone: every tensor that only masks are made of."""
    model = append_decoder()
    added = [node.inputs[0].producer() for node in model.graph if node.op_type == "Softmax"]
    for index, node in enumerate(added):
        moved = ir.node("Identity", [node.inputs[1]], name=f"moved {index}")
        moved.outputs[0].name = f"moved_{index}"
        node.replace_input_with(1, moved.outputs[0])
        model.graph.insert_before(node, moved)
    table = calibrate(one(model), TEXTS, Plan(chunk=64))
    for node in added:
        moved = node.inputs[1]
        for name in (moved.name, moved.producer().inputs[0].name):
            assert (table.ranges[name].low, table.ranges[name].high) == (MASK_FLOOR, 0.0)


def test_masked_scores_have_room_below_the_valid_ones() -> None:
    """Room for a weight of exp(-20), and no more: the grid's steps stay as fine as the scores need."""
    model = append_decoder()
    table = calibrate(one(model), TEXTS, Plan(chunk=64))
    for node in (node for node in model.graph if node.op_type == "Softmax"):
        scores, before = node.inputs[0], node.inputs[0].producer().inputs[0]
        assert table.ranges[scores.name].low == pytest.approx(table.ranges[before.name].low - SCORE_ROOM, abs=1e-4)
        assert table.ranges[scores.name].high == pytest.approx(table.ranges[before.name].high)


def test_scores_that_the_mask_hides_are_not_seen_before_it_either() -> None:
    """Prefill computes the upper triangle of scores, which decode never does."""
    model = append_decoder()
    table = calibrate(one(model), TEXTS, Plan(chunk=64))
    steps = calibrate(one(append_decoder()), TEXTS, Plan(chunk=1))
    products = [node.inputs[0].producer().inputs[0] for node in model.graph if node.op_type == "Softmax"]
    for value in products:
        assert bounds(table.ranges[value.name]) == pytest.approx(bounds(steps.ranges[value.name]), rel=1e-5)


def test_padding_is_taken_off(tmp_path: Path) -> None:
    ids = np.full((2, 8), 3)
    mask = np.ones((2, 8), np.int64)
    ids[1, 5:], mask[1, 5:] = 127, 0
    np.savez(tmp_path / "t.npz", input_ids=ids, attention_mask=mask)
    np.save(tmp_path / "t.npy", np.where(mask == 1, ids, -1))
    for file in ("t.npz", "t.npy"):
        assert [list(sample) for sample in read_tokens(tmp_path / file)] == [[3] * 8, [3] * 5]


class Killed(Exception):
    """Stands for a signal."""


@pytest.mark.parametrize("method", [Method.MINMAX, Method.PERCENTILE])
def test_a_killed_run_goes_on_and_gives_the_same(tmp_path: Path, method: Method) -> None:
    program, plan, file = one(append_decoder()), Plan(method, chunk=8), tmp_path / "progress"
    wanted = calibrate(program, TEXTS, plan)
    looked: list[int] = []

    def counting(job: Job, todo: list[int], edges: list[tuple[float, float]] | None) -> Iterator[Partial]:
        for index in todo:
            looked.append(index)
            yield from in_process(job, [index], edges)

    def kill(what: str, done: int, total: int) -> None:
        if done == 2 and not killed:
            killed.append(done)
            raise Killed

    killed: list[int] = []
    with pytest.raises(Killed):
        calibrate(program, TEXTS, plan, engine=counting, progress=file, on_progress=kill)
    assert list(tmp_path.iterdir())
    again = calibrate(program, TEXTS, plan, engine=counting, progress=file, on_progress=kill)
    assert again.ranges == wanted.ranges
    assert looked[:3] == [0, 1, 2], "what was done is not done again"
    assert not list(tmp_path.iterdir()), "the progress goes with the result"


def test_progress_of_another_job_is_not_used(tmp_path: Path) -> None:
    program, file = one(append_decoder()), tmp_path / "progress"
    (tmp_path / "progress.1.npz").write_bytes(b"PK\x03\x04 broken")
    first = calibrate(program, TEXTS, progress=file)
    assert first.ranges == calibrate(program, TEXTS).ranges


def test_progress_of_another_plan_is_not_used(tmp_path: Path) -> None:
    program, file = one(append_decoder()), tmp_path / "progress"

    def kill(what: str, done: int, total: int) -> None:
        if done:  # the first call says that nothing is done yet
            raise Killed

    with pytest.raises(Killed):
        calibrate(program, [TEXTS[0], *TEXTS[:2]], Plan(chunk=8), progress=file, on_progress=kill)
    assert list(tmp_path.iterdir())
    found = calibrate(program, TEXTS, Plan(chunk=4), progress=file)
    assert found.ranges == calibrate(program, TEXTS, Plan(chunk=4)).ranges


def parts() -> list[Partial]:
    program = one(append_decoder())
    job = Job(program.graphs["model"], TEXTS, Plan(chunk=8))
    return list(in_process(job, [0, 1, 2], None))


def same(a: Partial, b: Partial) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_merging_is_associative_and_in_any_order() -> None:
    a, b, c = parts()
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(b), b.merge(a))
    assert not same(a, a.merge(b))


@pytest.mark.parametrize("method", [Method.MINMAX, Method.MSE])
def test_shards_in_other_processes_give_the_same_bits(tmp_path: Path, method: Method) -> None:
    one(append_decoder()).save(tmp_path / "m")
    program = Program.load(tmp_path / "m" / "model.onnx")
    plan = Plan(method, chunk=8)
    spread = calibrate(program, TEXTS, plan, engine=parse_engine("local:2"))
    assert spread.ranges == calibrate(program, TEXTS, plan).ranges
    assert not multiprocessing.active_children()


def test_shards_hold_every_sample_once() -> None:
    program = one(append_decoder())
    job = Job(program.graphs["model"], TEXTS, Plan(), source=Path("m.onnx"))
    shards = shards_of(job, [0, 1, 2], None, 2)
    assert sorted(index for shard in shards for index in shard.indices) == [0, 1, 2]
    assert {shard.capacity for shard in shards} == {37}


@pytest.mark.parametrize("text", ["locally", "local:0", "local:x", "dask", "dask:", "ray://x"])
def test_an_engine_that_there_is_not(text: str) -> None:
    with pytest.raises(UsageError, match="unknown engine"):
        parse_engine(text)


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_methods_cut_an_outlier_and_stay_inside(method: str) -> None:
    places = np.linspace(-1.0, 1.0, 2048)
    counts = np.rint(1e6 * np.exp(-((places / 0.1) ** 2))).astype(np.int64)  # a bulk in the middle
    counts[-1] = 1  # one outlier
    first, last = clip(method, counts, (-1.0, 1.0), 99.99, 8)
    assert -1.0 <= first < 0 < last < 0.9


@pytest.mark.parametrize("method", [Method.PERCENTILE, Method.MSE, Method.ENTROPY])
def test_methods_never_go_beyond_what_was_seen(method: Method) -> None:
    program = one(append_decoder())
    whole, cut = calibrate(program, TEXTS), calibrate(program, TEXTS, Plan(method))
    assert whole.ranges.keys() == cut.ranges.keys()
    for name, watched in cut.ranges.items():
        if watched.usable:
            seen = resolve(watched, 8)
            slack = 1e-6 * (whole.ranges[name].high - whole.ranges[name].low)
            assert seen.low >= whole.ranges[name].low - slack
            assert seen.high <= whole.ranges[name].high + slack


def test_the_envelope_of_rotated_pairs_holds_at_every_position() -> None:
    """Keys after rotation move with the position: the norm of a pair does not."""
    program = one(append_decoder())
    early = [np.resize(TEXTS[0], 8)]
    late = [np.resize(TEXTS[0][:8], 200)]
    envelope = calibrate(program, early, Plan(envelope=Envelope.PAIR_NORM))
    plain = calibrate(program, early)
    reached = calibrate(program, late)
    for state in find_states(program.graphs["model"]):
        name = state.output.name
        if state.kind == "key" and state.layer == 0:  # later layers see another context
            assert envelope.ranges[name].high >= max(reached.ranges[name].high, -reached.ranges[name].low)
            assert envelope.ranges[name].low == -envelope.ranges[name].high
        elif state.kind == "value":
            assert envelope.ranges[name] == plain.ranges[name]
    assert not [name for name in envelope.ranges if name.endswith("/pairs")]


@pytest.mark.parametrize("name", ["scatter", "append"])
def test_a_nan_is_an_error_that_names_the_tensor(name: str) -> None:
    model = BUILDERS[name]()
    weight = model.graph.initializers["model.embed_tokens.weight"]
    array = weight.const_value.numpy().copy()
    array[5] = np.nan
    weight.const_value = ir.tensor(array, name=weight.name)
    with pytest.raises(NoEvidence, match="holds a NaN"):
        calibrate(one(model), [np.array([1, 2, 5, 3])])


def test_what_cannot_be_fed_is_refused_with_a_reason() -> None:
    with pytest.raises(PassRefused, match="fixed"):
        calibrate(one(baked_length()), TEXTS)
    with pytest.raises(InputError, match="vocabulary"):
        calibrate(one(append_decoder()), [np.array([1, 128])])
    with pytest.raises(InputError, match="no text"):
        calibrate(one(append_decoder()), [])
    with pytest.raises(PassRefused, match="equally many tokens"):
        calibrate(Program(graphs={"a": append_decoder(), "b": append_decoder()}), TEXTS)


def test_the_watched_graph_gives_no_tensor_but_the_states() -> None:
    """Memory stays flat: nothing leaves a run but the caches and scalars."""
    model = append_decoder()
    states = find_states(model)
    outputs = watch(model, states).model.graph.outputs
    carried = {state.output.name for state in states}
    assert all(value.name in carried or value.shape is None or len(value.shape) <= 1 for value in outputs)
    assert "logits" not in {value.name for value in outputs}


def test_the_command_writes_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnx_llm_passes.cli.app import run

    one(append_decoder()).save(tmp_path / "m")
    np.savez(tmp_path / "t.npz", input_ids=np.stack([np.resize(text, 24) for text in TEXTS]))
    common = ["calibrate", str(tmp_path / "m"), "--tokens", str(tmp_path / "t.npz"), "--chunk", "8"]
    for form in ("native", "ort", "aimet-0.6.1", "aimet-1.0.0", "aimet-2.0.0", "qnn-overrides", "kv-scales"):
        out = tmp_path / f"{form}.json"
        assert run([*common, "-o", str(out), "--format", form, "--ctx", "4096"]) == 0
        assert read_encodings(out).file_format == form
        assert "the deployment 4096" in capsys.readouterr().err
    assert run([*common, "-o", str(tmp_path / "x.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 72
    assert run([*common, "--method", "minmix"]) == 2
    assert "minmax" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_a_graph_that_answers_the_last_token_alone_shows_all_of_them() -> None:
    """Else the last layers' ranges would rest on one token a chunk."""
    model = BUILDERS["scatter"]()
    table, steps = (calibrate(one(model), TEXTS, Plan(chunk=chunk)) for chunk in (16, 1))
    facts = table.calibration
    assert facts.answers == facts.tokens == 62
    assert table.ranges.keys() == steps.ranges.keys()
    assert "logits" in table.ranges
    assert apart(table, steps) <= 1e-5


def test_what_selects_rows_has_the_range_of_all_of_them() -> None:
    model = append_decoder()
    KeepLastLogits(n=1).call(model)
    table = calibrate(one(model), TEXTS, Plan(chunk=16))
    selected = next(node for node in model.graph if node.op_type == "GatherElements")
    assert table.ranges[selected.outputs[0].name] == table.ranges[selected.inputs[0].name]
    assert not [name for name in table.ranges if name not in {v.name for n in model.graph for v in n.outputs}]


def test_a_clone_says_that_it_answers_the_last_token_alone() -> None:
    program = one(append_decoder())
    pipeline = "keep-last-logits{symbol=num_logits_to_keep},clone-decode{k=0 prefill=8 ctx=48}"
    PassManager(parse_pipeline(f"convert-states,{pipeline}")).run(program)
    facts = calibrate(program, TEXTS, graph="prefill").calibration
    assert (facts.answers, facts.tokens) == (4 + 2, 32 + 16)
    assert module.SAVE_EVERY > 0


class Client:
    """A scheduler in this process, as far as the engine talks to one."""

    def __init__(self, address: str, timeout: str) -> None:
        self.address = address

    def scheduler_info(self) -> dict[str, object]:
        return {"workers": {"a": {}, "b": {}}}

    def map(self, call: object, shards: list[object], *, pure: bool) -> list[object]:
        assert not pure, "a repeated shard must run again"
        return [types.SimpleNamespace(result=lambda shard=shard: call(shard)) for shard in shards]

    def close(self) -> None:
        self.address = ""


def test_a_cluster_gets_shards_and_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = types.SimpleNamespace(Client=Client, as_completed=reversed)  # the last shard ends first
    monkeypatch.setitem(sys.modules, "distributed", cluster)
    one(append_decoder()).save(tmp_path / "m")
    program = Program.load(tmp_path / "m" / "model.onnx")
    spread = calibrate(program, TEXTS, Plan(chunk=8), engine=parse_engine("dask://somewhere:8786"))
    assert spread.ranges == calibrate(program, TEXTS, Plan(chunk=8)).ranges


def test_no_dask_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    one(append_decoder()).save(tmp_path / "m")
    program = Program.load(tmp_path / "m" / "model.onnx")
    with pytest.raises(UsageError, match="pip install"):
        calibrate(program, TEXTS, engine=parse_engine("dask://somewhere:8786"))
