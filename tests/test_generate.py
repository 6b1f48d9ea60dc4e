"""Generated tokens are those of plain decoding, whatever K, policy, proposer and batch; failures leave nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import UsageError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.decode.caches import CachePolicy
from onnx_llm_passes.runtime.decode.decoder import Decoder, NotDecodable
from onnx_llm_passes.runtime.decode.generate import Settings, generate
from onnx_llm_passes.runtime.decode.sampling import Sampling, uniform
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.session import RunError
from onnx_llm_passes.runtime.speculate.policies import Policy
from onnx_llm_passes.runtime.speculate.proposers import NGram, Source, open_proposers

from .cli_tools import plain as without_states
from .decoders import CTX, PREFILL, VOCABULARY, cloned, decoder, growing, plain

KS = [(0, 4), (4,), (0, 1, 2, 3, 4), (0, 2), (1, 3), (0,), (2,)]
PROPOSERS: dict[str, Source] = {
    "single": lambda: NGram(1, 3),
    **{n: open_proposers(n) for n in ("ngram", "suffix", "none")},
}
COST = {k: 1.0 + 0.1 * k for k in range(9)}


class Scripted:
    """Proposes what a script says for a text of each length: right tokens, wrong ones, long and short."""

    def __init__(self, truth: Iterable[int], lengths: Iterable[int], wrong: int = 99) -> None:
        self.truth, self.lengths, self.wrong, self.size = list(truth), list(lengths), wrong, 0

    def extend(self, tokens: Iterable[int]) -> None:
        self.size += len(list(tokens))

    def propose(self, k: int) -> list[int]:
        length = self.lengths[self.size % len(self.lengths)]
        right = self.truth[self.size : self.size + k][: abs(length)]
        return [*right[:-1], self.wrong] if length < 0 and right else right

    def finish(self) -> None:
        self.size = 0


def prompt_of(chance: random.Random) -> list[int]:
    """A short text that repeats itself, so that there is something to propose."""
    part = [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 5))]
    return (part * 12)[: chance.randint(1, 20)]


@pytest.mark.parametrize("seed", range(320))
def test_tokens_are_those_of_plain_decoding(seed: int) -> None:
    chance = random.Random(seed)
    batch, ks = chance.choice([1, 2, 3]), chance.choice(KS)
    prompts = [prompt_of(chance) for _ in range(chance.randint(1, batch + 2))]
    max_new = chance.choice([1, 2, 12, 24])
    truth = [plain().generate(prompt, max_new) for prompt in prompts]
    eos = frozenset([chance.choice(chance.choice(truth))] if chance.random() < 0.4 else [])
    wanted = [plain().generate(prompt, max_new, eos) for prompt in prompts]
    settings = Settings(max_new, eos, policy=chance.choice(list(Policy)), cost=COST)
    found = generate(decoder(batch, ks), prompts, settings, PROPOSERS[chance.choice(list(PROPOSERS))])
    assert found.tokens == wanted
    assert all(
        (ended == "eos") == bool(tokens[-1] in eos) for tokens, ended in zip(found.tokens, found.ended, strict=True)
    )


@pytest.mark.parametrize("seed", range(60))
def test_a_cache_that_grows_gives_plain_decoding_too(seed: int) -> None:
    chance = random.Random(seed)
    batch, ks = chance.choice([1, 2, 3]), chance.choice(KS)
    prompts = [prompt_of(chance) for _ in range(chance.randint(1, batch + 2))]
    alone = growing(1, (0,))
    wanted = [generate(alone, [prompt], Settings(16)).tokens[0] for prompt in prompts]
    proposer = PROPOSERS[chance.choice(list(PROPOSERS))]
    assert generate(growing(batch, ks), prompts, Settings(16), proposer).tokens == wanted


@pytest.mark.parametrize("lengths", [(4, 1, 4), (4, -1, -4, 2, 0, 4), (0, 4), (-4, -3, -2, -1)])
@pytest.mark.parametrize("ks", [(4,), (0, 1, 2, 3, 4), (2,)])
def test_long_then_partial_then_long(lengths: tuple[int, ...], ks: tuple[int, ...]) -> None:
    prompt = [7, 8, 9]
    wanted = plain().generate(prompt, 40)
    found = generate(decoder(1, ks), [prompt], Settings(40), lambda: Scripted(prompt + wanted, lengths))
    assert found.tokens == [wanted]
    assert found.stats.proposed


def test_rows_of_one_batch_propose_different_numbers() -> None:
    prompts = [[1, 2, 3], [4, 5], [6]]
    wanted = [plain().generate(prompt, 20) for prompt in prompts]
    scripts = iter([(4,), (-1, 2), (0,)])
    truth = iter([prompt + tokens for prompt, tokens in zip(prompts, wanted, strict=True)])
    found = generate(decoder(3), prompts, Settings(20), lambda: Scripted(next(truth), next(scripts)))
    assert found.tokens == wanted
    assert found.stats.without_proposal >= 19  # the third row never proposes, nor do last tokens
    assert found.stats.padded


def test_nothing_proposed_is_a_plain_step_and_counted_apart() -> None:
    found = generate(decoder(1), [[1, 2, 3]], Settings(10), open_proposers("none"))
    stats = found.stats.as_json()
    assert stats["chosen_k"] == {"0": 9}
    assert stats["steps_without_proposal"] == stats["row_steps"] == 9
    assert stats["tokens_per_step"] == 1.0
    assert stats["proposed"] == 0


def test_everything_right_takes_as_few_steps_as_can_be() -> None:
    prompt = [7, 8, 9]
    wanted = plain().generate(prompt, 21)
    found = generate(decoder(1, (4,)), [prompt], Settings(21), lambda: Scripted(prompt + wanted, (4,)))
    assert found.tokens == [wanted]
    assert found.stats.steps == 4  # the prompt gives the first, four steps of five the rest
    assert found.stats.accepted == found.stats.proposed == 16


def test_an_end_token_inside_a_proposal_ends_the_text_there() -> None:
    prompt = [7, 8, 9]
    truth = plain().generate(prompt, 30)
    end = next(at for at in range(2, 30) if truth[at] not in truth[:at])
    found = generate(
        decoder(1, (4,)), [prompt], Settings(30, frozenset([truth[end]])), lambda: Scripted(prompt + truth, (4,))
    )
    assert found.tokens == [truth[: end + 1]]
    assert found.ended == ["eos"]


@pytest.mark.parametrize("ks", [(0,), (4,), (0, 4)])
@pytest.mark.parametrize("length", [CTX - 8, CTX - 2, CTX - 1])
def test_the_context_ends_where_plain_decoding_ends(ks: tuple[int, ...], length: int) -> None:
    prompt = [(3 * at) % VOCABULARY for at in range(length)]
    wanted = plain().generate(prompt, 100)
    found = generate(decoder(1, ks), [prompt], Settings(100), lambda: Scripted(prompt + wanted, (4,)))
    assert found.tokens == [wanted[: CTX - length]]
    assert found.ended == ["context"]


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than the context"):
        generate(decoder(1), [[1] * CTX], Settings(1))


@pytest.mark.parametrize("length", [PREFILL - 1, PREFILL, PREFILL + 1, 2 * PREFILL])
def test_a_prefill_as_long_as_a_decode(length: int) -> None:
    prompt = [(5 * at + 1) % VOCABULARY for at in range(length)]
    found = generate(decoder(1, (4,)), [prompt], Settings(12), PROPOSERS["single"])
    assert found.tokens == [plain().generate(prompt, 12)]
    assert decoder(1).ks == (0, 1, 2, 3, 4)


def test_without_a_prefill_graph_a_decode_reads_the_prompt() -> None:
    pipeline = "keep-last-logits{symbol=n},clone-decode{k=0,2 ctx=64 batch=%d}"
    prompts = [[1, 2, 3, 4, 5, 6, 7], [9]]
    runner = Decoder(cloned(2, pipeline))
    assert generate(runner, prompts, Settings(12), PROPOSERS["single"]).tokens == [
        plain().generate(prompt, 12) for prompt in prompts
    ]
    runner.close()


def test_waiting_texts_take_the_rows_of_finished_ones() -> None:
    prompts = [[at, at + 1] for at in range(7)]
    found = generate(decoder(2), prompts, Settings(9), PROPOSERS["suffix"])
    assert found.tokens == [plain().generate(prompt, 9) for prompt in prompts]
    assert found.ended == ["length"] * 7


def test_rows_of_the_cache_can_be_chosen_by_an_input() -> None:
    program = Program(graphs={"model": scatter_decoder(batch_index=True)})
    runner = Decoder(program, rows=3, ctx=CTX)
    prompts = [[1, 2, 3], [4], [5, 6]]
    assert generate(runner, prompts, Settings(10)).tokens == [plain().generate(prompt, 10) for prompt in prompts]
    runner.close()


def test_the_choice_of_k_does_not_change_what_is_drawn() -> None:
    drawn = Sampling(temperature=1.0, top_k=40, top_p=0.95, seed=3)
    prompts = [[1, 2, 1, 2, 1], [3, 3, 3]]
    wanted = generate(decoder(2, (0,)), prompts, Settings(24, sampling=drawn)).tokens
    for ks, name in (((4,), "single"), ((0, 1, 2, 3, 4), "suffix"), ((0, 2), "ngram")):
        assert generate(decoder(2, ks), prompts, Settings(24, sampling=drawn), PROPOSERS[name]).tokens == wanted
    other = Settings(24, sampling=Sampling(temperature=1.0, top_k=40, top_p=0.95, seed=4))
    assert generate(decoder(2, (0,)), prompts, other).tokens != wanted


def test_draws_follow_the_distribution() -> None:
    drawn = Sampling(temperature=0.7, seed=1)
    logits = np.asarray([0.0, 1.0, -1.0, 2.0])
    counts = np.bincount([drawn.draw(logits, 0, at) for at in range(20_000)], minlength=4) / 20_000
    assert np.abs(counts - drawn.probabilities(logits)).max() < 0.015
    assert len({uniform(0, text, at) for text in range(20) for at in range(20)}) == 400


def test_top_k_and_top_p_leave_the_likeliest() -> None:
    logits = np.log(np.asarray([0.1, 0.4, 0.2, 0.3]))
    assert np.allclose(Sampling(1.0, top_k=2).probabilities(logits), [0, 4 / 7, 0, 3 / 7])
    assert np.allclose(Sampling(1.0, top_p=0.5).probabilities(logits), [0, 4 / 7, 0, 3 / 7])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompt"),
        ([[]], "is empty"),
        ([[1], [1, VOCABULARY]], "prompt 1, token 1: is beyond the vocabulary"),
        ([[-1]], "beyond"),
    ],
)
def test_wrong_prompts_are_told(prompts: list[list[int]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(decoder(1), prompts, Settings(4))


def test_a_graph_without_logits_for_every_token_cannot_speculate() -> None:
    runner = Decoder(Program(graphs={"model": scatter_decoder()}), ctx=CTX)
    assert runner.ks == (0,)
    runner.close()
    with pytest.raises(UsageError, match="not compiled"):
        Decoder(Program(graphs={"model": scatter_decoder()}), ctx=CTX, ks=(0, 4))


def test_a_program_without_tokens_cannot_decode(tmp_path: Path) -> None:
    with pytest.raises(NotDecodable, match="token ids"):
        Decoder(Program.load(without_states(tmp_path / "model.onnx")), ctx=CTX)


def test_a_run_that_fails_leaves_the_decoder_as_before() -> None:
    runner = Decoder(cloned(1))
    wanted = plain().generate([1, 2, 3], 12)
    graph = next(graph for graph in runner.graphs if graph.name == "decode_k0")
    real = graph.execute

    def broken(*_: object) -> dict[str, np.ndarray]:
        raise RunError("no memory left")

    graph.execute = broken  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RunError):
        generate(runner, [[1, 2, 3]], Settings(12))
    graph.execute = real
    assert not runner.lengths.any()
    assert generate(runner, [[1, 2, 3]], Settings(12)).tokens == [wanted]
    runner.close()


def test_an_interrupt_leaves_the_decoder_as_before() -> None:
    runner = Decoder(cloned(1))

    def stop(done: int, total: int) -> None:
        if done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(runner, [[1, 2, 3]], Settings(12), PROPOSERS["single"], stop)
    assert not runner.lengths.any()
    assert generate(runner, [[1, 2, 3]], Settings(12)).tokens == [plain().generate([1, 2, 3], 12)]
    runner.close()
    assert not runner.caches.states


def test_caches_that_are_written_in_place_are_one_buffer_for_every_graph() -> None:
    runner = Decoder(cloned(1))
    assert {binding.policy for binding in runner.bindings} == {CachePolicy.SHARED}
    runner.prefill({0: [1, 2, 3]})
    places = {name: kept.array().ctypes.data for name, kept in runner.caches.states.items()}
    assert len(places) == 2 * Tiny().layers
    runner.decode(0, np.asarray([[4]]), np.asarray([[3]]))
    assert {name: kept.array().ctypes.data for name, kept in runner.caches.states.items()} == places
    assert all(kept.array()[:, :, :4].any() for kept in runner.caches.states.values())
    runner.close()


def test_tokens_come_from_the_logits_where_hidden_rows_leave_before_them() -> None:
    def model(hidden: bool) -> ir.Model:
        found = append_decoder()
        head = found.graph.outputs[0].producer()
        assert head is not None and head.inputs[0] is not None
        rows = head.inputs[0]
        rows.type, rows.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch_size", "sequence_length", 32])
        found.graph.outputs[:0] = [rows] if hidden else []
        return found

    decoders = [Decoder(Program({"model": model(hidden)}), rows=1, ctx=CTX, ks=(0,)) for hidden in (False, True)]
    plainly, beside = (generate(found, [[5, 9, 2]], Settings(8)).tokens for found in decoders)
    assert plainly == beside
