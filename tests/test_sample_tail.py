"""Draws in the graph are the host's, speculative ones the target's; buffers hold what was accepted."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.program.contracts.sampling import allowed
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.sample_tail import Penalty, SampleTail
from onnx_llm_passes.runtime.decode.sampling import Sampling, uniform
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import verify

from .sampling_tools import Device, markov

ALL = (Penalty.REPETITION, Penalty.PRESENCE, Penalty.FREQUENCY)
V = 97
SETTINGS = [
    Sampling(t, k, p, seed=at, min_p=m, repetition=r, presence=s, frequency=f)
    for at, (t, k, p, m, (r, s, f)) in enumerate(
        [
            *itertools.product((0.7, 1.3), (5, 64), (0.6, 1.0), (0.0,), ((1.0, 0.0, 0.0), (1.2, 0.4, 0.1))),
            (0.0, 0, 1.0, 0.0, (1.3, 0.5, 0.2)),
            (1.0, 1, 1.0, 0.0, (1.0, 0.0, 0.0)),
            (2.0, 64, 1.0, 0.1, (0.8, -0.3, 0.0)),
            (0.9, 64, 0.9, 0.02, (1.0, 0.0, 0.3)),
        ]
    )
]


def table(seed: int = 0, size: float = 2.0, vocabulary: int = V) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((vocabulary, vocabulary)) * size).astype(np.float32)


def compared(settings: list[Sampling], steps: int) -> int:
    """Decodes one line a setting, one token a run, in the graph and on the host; how many tokens were compared."""
    logits = table()
    device = Device(markov(logits, rows=1), SampleTail(top_k=64, penalties=ALL))
    prompt = np.random.default_rng(5).integers(0, V, (len(settings), 4))
    columns = {
        "temperatures": [s.temperature for s in settings],
        "top_ks": [s.top_k for s in settings],
        "top_ps": [s.top_p for s in settings],
        "min_ps": [s.min_p for s in settings],
        "repetition_penalties": [s.repetition for s in settings],
        "presence_penalties": [s.presence for s in settings],
        "frequency_penalties": [s.frequency for s in settings],
    }
    given = {name: np.asarray(values)[:, None] for name, values in columns.items()}
    said: list[list[int]] = [[] for _ in settings]
    ids, positions, last = prompt, np.tile(np.arange(4), (len(settings), 1)), -1 * np.ones((1, 1))
    for step in range(steps):
        numbers = [[uniform(s.seed, line, step)] for line, s in enumerate(settings)]
        found = device.run(ids, positions, 1, random_numbers=numbers, last_accepted_output_tokens=last, **given)
        for line, sampling in enumerate(settings):
            row = sampling.penalized(logits[ids[line, -1]], prompt[line].tolist(), said[line])
            assert sampling.draw(row, line, step) == found["next_tokens"][line, 0], (step, sampling)
            said[line].append(int(found["next_tokens"][line, 0]))
        ids = last = found["next_tokens"]
        positions = np.full((len(settings), 1), 4 + step % 32)
    return steps * len(settings)


def test_tokens_are_the_hosts() -> None:
    assert len(SETTINGS) == 20 and compared(SETTINGS, 60) == 1200


@pytest.mark.slow
def test_tokens_are_the_hosts_in_two_thousand_steps_of_twenty_settings() -> None:
    assert compared(SETTINGS, 2000) == 40_000


def test_single_precision_draws_almost_always_the_same() -> None:
    logits = table()
    given = {"temperatures": 1.0, "random_numbers": np.random.default_rng(1).random((500, 1))}
    ids = np.random.default_rng(2).integers(0, V, (500, 1))
    both = [
        Device(markov(logits, 1), SampleTail(64, precise=precise)).run(ids, 0 * ids, 1, **given)
        for precise in (True, False)
    ]
    assert (both[0]["next_tokens"] == both[1]["next_tokens"]).mean() > 0.99


def stepped(proposals: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens that ``draws`` lines say after token 0, proposals of three verified at once; and what stood."""
    device = Device(markov(table(3, 1.0, 50), rows="rows"), SampleTail(top_k=50))
    ids = np.tile(np.asarray([0, *proposals]), (draws, 1))
    numbers = np.random.default_rng(seed).integers(0, 1 << 24, ids.shape) / (1 << 24)
    found = device.run(ids, np.tile(np.arange(4), (draws, 1)), 4, temperatures=1.0, random_numbers=numbers)
    return found["next_tokens"], found["accepted_counts"][:, 0], found["last_tokens"][:, 0]


@pytest.mark.parametrize("draws", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_speculative_draws_have_the_targets_distribution(draws: int) -> None:
    """Pairs of tokens, the second of which may be a proposal's answer: chi-squared against softmax times softmax."""
    logits = table(3, 1.0, 50).astype(np.float64)
    target = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    likely = int(target[0].argmax())
    proposals = np.asarray([likely, int(target[likely].argmax()), 7])
    counts = np.zeros((50, 50))
    for at in range(0, draws, 20_000):
        tokens, accepted, last = stepped(proposals, min(20_000, draws), at)
        first = tokens[:, 0]
        assert np.array_equal(last, tokens[np.arange(len(tokens)), accepted])
        assert np.array_equal(accepted > 0, first == proposals[0])
        # of lines whose proposal fell, the next run draws from the row of the token that took its place
        rest = np.random.default_rng(at + 1).random(len(tokens))
        second = np.where(
            accepted > 0,
            tokens[:, 1],
            [np.searchsorted(c, r) for c, r in zip(np.cumsum(target, 1)[first], rest, strict=True)],
        )
        np.add.at(counts, (first, np.minimum(second, 49)), 1)
    expected = target[0][:, None] * target * counts.sum()
    enough = expected >= 5
    statistic = ((counts - expected)[enough] ** 2 / expected[enough]).sum()
    freedom = enough.sum() - 1
    assert abs(statistic - freedom) < 3.29 * np.sqrt(2 * freedom)  # p > 0.001: chi-squared of many cells is normal
    assert counts[likely].sum() > 100


def test_greedy_proposals_stand_exactly_where_plain_decoding_says_them() -> None:
    logits = table(4)
    best = logits.argmax(1)
    device = Device(markov(logits), SampleTail(top_k=8))
    chain = [3]
    for _ in range(3):
        chain.append(int(best[chain[-1]]))
    for right in range(4):
        ids = np.asarray([chain[: right + 1] + [(t + 1) % V for t in chain[right + 1 :]]])
        found = device.run(ids, np.arange(4)[None], 4)
        assert found["accepted_counts"].tolist() == [[right]]
        assert found["last_tokens"].tolist() == [[int(best[chain[right]])]]
    padded = device.run(np.asarray([chain]), np.asarray([[0, 1, -1, -1]]), 4)
    assert padded["accepted_counts"].tolist() == [[1]]


def test_rejected_tokens_never_enter_the_buffers() -> None:
    """One run with proposals, then one with what was accepted of them: as if tokens had come one by one."""
    logits = table(6)
    penalized = {"repetition_penalties": 1.5, "presence_penalties": 0.7, "frequency_penalties": 0.4}
    device, plain = (Device(markov(logits), SampleTail(top_k=8, penalties=ALL)) for _ in range(2))
    tokens, counts, said = [9], [], []
    for step in range(12):  # one by one
        at = np.asarray([[step]])
        last = np.asarray([[tokens[-1]]])
        said.append(plain.run(last, at, 1, last_accepted_output_tokens=last, **penalized))
        tokens.append(int(said[-1]["next_tokens"][0, 0]))
    done, pending = 1, [tokens[0]]
    while done < 9:
        right = tokens[done : done + 3]
        proposals = [right, [right[0], (right[1] + 1) % V, 0], [(right[0] + 1) % V, 0, 0]][len(counts) % 3]
        last = np.full((1, 4), -1)
        last[0, : len(pending)] = pending
        found = device.run(np.asarray([[tokens[done - 1], *proposals]]), np.arange(done - 1, done + 3)[None], 4,
                           last_accepted_output_tokens=last, **penalized)  # fmt: skip
        taken = int(found["accepted_counts"][0, 0]) + 1
        counts.append(taken)
        assert found["next_tokens"][0, :taken].tolist() == tokens[done : done + taken]
        for name, buffer in device.buffers.items():
            assert np.array_equal(buffer, said[done - 1][f"{name}_RetainedState"]), name
        pending = tokens[done : done + taken]
        done += taken
    assert {1, 2, 4} == set(counts)


def test_a_prompt_enters_the_repetition_buffer_alone_and_starts_it_anew() -> None:
    device = Device(markov(table(7), rows=1), SampleTail(top_k=8, penalties=ALL))
    for prompt, start in (([1, 2, 3], 0), ([4, 5, 6], 3), ([7, 8, 8], 0)):
        found = device.run(np.asarray([prompt]), np.arange(start, start + 3)[None], 1)
    held = np.flatnonzero(found["past_repetition_penalty_buffer_RetainedState"][0]).tolist()
    assert held == [7, 8]
    assert not found["past_presence_penalty_buffer_RetainedState"].any()
    padded = device.run(np.asarray([[9, 0, 0]]), np.asarray([[0, -1, -1]]), 1)
    assert np.flatnonzero(padded["past_repetition_penalty_buffer_RetainedState"][0]).tolist() == [9]


@pytest.mark.parametrize("opset", [16, 18])
def test_bitmasks_forbid_tokens_as_xgrammar_packs_them(opset: int) -> None:
    rng = np.random.default_rng(8)
    device = Device(markov(table(8), opset=opset), SampleTail(top_k=8, bitmask=True))
    masks = rng.integers(-(1 << 31), 1 << 31, (5, 3, -(-V // 32))).astype(np.int32)
    ids = rng.integers(0, V, (5, 3))
    found = device.run(ids, np.tile(np.arange(3), (5, 1)), 3, token_bitmasks=masks)
    open_tokens = np.stack(
        [[bool(masks[..., t // 32].view(np.uint32)[i] >> (t % 32) & 1) for t in range(V)] for i in np.ndindex(5, 3)]
    )
    assert np.array_equal(allowed(masks, V).reshape(15, V), open_tokens)
    expected = np.where(allowed(masks, V), table(8)[ids], -np.inf).argmax(-1)
    assert np.array_equal(found["next_tokens"], expected)


def test_probabilities_are_those_of_the_host() -> None:
    sampling = Sampling(0.8, 20, 0.9, min_p=0.02)
    device = Device(markov(table(9), 1), SampleTail(top_k=64, probs=True))
    found = device.run(np.asarray([[4]]), np.asarray([[0]]), 1, temperatures=0.8, top_ks=20, top_ps=0.9, min_ps=0.02)
    assert np.allclose(found["probs"][0, 0], sampling.probabilities(table(9)[4]), atol=1e-7)


@pytest.mark.parametrize("build", [append_decoder, scatter_decoder])
def test_verify_proves_greedy_tokens_and_draws(build: object) -> None:
    make = append_decoder if build is append_decoder else scatter_decoder
    result = PassManager(parse_pipeline("sample-tail{top_k=16 bitmask=true}")).run(Program({"model": make()}))
    report = verify(Program({"model": make()}), result)
    assert report.equal, report.first_difference
    assert any(case.case.endswith(", drawn") for case in report.cases)


def test_clones_draw() -> None:
    pipeline = (
        "keep-last-logits{symbol=num_logits_to_keep},sample-tail{top_k=16 penalties=repetition,frequency},"
        "clone-decode{k=0,2 prefill=8 ctx=32}"
    )
    result = PassManager(parse_pipeline(pipeline)).run(Program({"model": scatter_decoder()}))
    shapes = {v.name: str(v.shape) for v in result.graph("decode_k2").graph.inputs}
    assert shapes["last_accepted_output_tokens"] == "[1,3]"
    report = verify(Program({"model": scatter_decoder()}), result)
    assert report.equal, report.first_difference


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("sample-tail{top_k=98}", r"more tokens than the vocabulary has.*found 98.*<= 97"),
        ("sample-tail{top_k=0}", "at least one token"),
        ("sample-tail{top_k=8 penalties=presence,presence}", "stands twice"),
        ("sample-tail{top_k=8 penalties=loudness}", "one of repetition, presence, frequency"),
    ],
)
def test_what_cannot_be_drawn_is_refused(pipeline: str, message: str) -> None:
    model = markov(table())
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(OnnxPassesError, match=message):
        PassManager(parse_pipeline(pipeline)).run(Program({"model": model}))
    assert ir.to_proto(model).SerializeToString() == before


def test_an_old_opset_is_refused() -> None:
    with pytest.raises(OnnxPassesError, match=r"opset is too old.*fix-opset\{version=16\}"):
        SampleTail(top_k=8).call(markov(table(), opset=15))
