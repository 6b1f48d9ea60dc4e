"""Generated tokens are those of plain greedy decoding for prompts of every length, whatever prefill, K and batch."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.interface.logits import logits_output
from onnx_llm_passes.ir.interface.roles import Role
from onnx_llm_passes.ir.program.contracts.padding import SpareRows, WholeChunks
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.cases import Padding, make_case
from onnx_llm_passes.runtime.decode.decoder import Decoder, NotDecodable
from onnx_llm_passes.runtime.decode.generate import Settings, generate
from onnx_llm_passes.runtime.decode.host import Host, Rows
from onnx_llm_passes.runtime.decode.inputs import build_inputs
from onnx_llm_passes.runtime.decode.step import Step
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.legalize import legalized
from onnx_llm_passes.runtime.session.session import Session
from onnx_llm_passes.runtime.session.subject import Subject
from onnx_llm_passes.runtime.speculate.proposers import NGram

from .quantized_graphs import fused_decoder

CTX = 32
RUNS = int(os.environ.get("ONNX_PASSES_TOKEN_RUNS", "1000"))  # over all exported models


class Anew:
    """Greedy decoding with plain onnxruntime: the whole text through the original for every token, no cache kept."""

    def __init__(self, model: ir.Model) -> None:
        self.subject = Subject.of(model, "original")
        self.session = Session(legalized(model).model)
        self.ids = self.subject.inputs(Role.TOKEN_IDS)[0].name or ""
        answer = logits_output(model, self.subject.states)
        assert answer is not None
        self.answer = answer.name or ""
        self.known: dict[tuple[int, ...], int] = {}

    def next(self, text: tuple[int, ...]) -> int:
        """The likeliest token after a text."""
        if text not in self.known:
            feeds = build_inputs(self.subject, make_case(1, len(text), Padding.FULL))
            feeds[self.ids] = np.asarray([text], feeds[self.ids].dtype)
            self.known[text] = int(self.session.run(feeds)[self.answer][0, -1].argmax())
        return self.known[text]

    def generate(self, prompt: list[int], count: int) -> list[int]:
        """That many tokens after a prompt."""
        text = list(prompt)
        for _ in range(count):
            text.append(self.next(tuple(text)))
        return text[len(prompt) :]


def last_row(build: Callable[[], ir.Model]) -> Callable[[], ir.Model]:
    """A graph that answers row S - 1 alone and asks no mask which row is padding."""

    def built() -> ir.Model:
        model = build()
        head = model.graph.outputs[0].producer()
        assert head is not None and head.inputs[0] is not None
        ends = [ir.tensor(np.array([n], np.int64), name=f"cut_{n}") for n in (-1, 1, 1 << 40)]
        values = [ir.Value(name=tensor.name, const_value=tensor) for tensor in ends]
        for value in values:
            model.graph.register_initializer(value)
        minus, one, end = values
        cut = ir.node("Slice", [head.inputs[0], minus, end, one], name="last_row")
        model.graph.insert_before(head, cut)
        head.replace_input_with(0, cut.outputs[0])
        batch, _, width = model.graph.outputs[0].shape or (1, 1, 1)
        model.graph.outputs[0].shape = ir.Shape([batch, 1, width])
        return model

    return built


GRAPHS: dict[str, Callable[[], ir.Model]] = {
    "append": append_decoder,
    "append, last row": last_row(append_decoder),
    "scatter": scatter_decoder,
    "fused": fused_decoder,
}
PIPELINES = {
    "append": "speculative{{k={ks} prefill={prefill} ctx={ctx} batch={batch}}}",
    "append, last row": "clone-decode{{k=0 prefill={prefill} ctx={ctx} batch={batch}}}",
    "scatter": "speculative{{k={ks} prefill={prefill} ctx={ctx} batch={batch}}}",
    "fused": "speculative{{k={ks} prefill={prefill} ctx={ctx} batch={batch}}}",
}
anew = functools.cache(lambda name: Anew(GRAPHS[name]()))


@functools.cache
def opened(name: str, ks: str, prefill: int, batch: int) -> Decoder:
    program = Program(graphs={"model": GRAPHS[name]()})
    text = PIPELINES[name].format(ks=ks, prefill=prefill, ctx=CTX, batch=batch)
    return Decoder(PassManager(parse_pipeline(text)).run(program))


@pytest.mark.parametrize("length", range(1, 18))
@pytest.mark.parametrize("name", GRAPHS)
def test_prompts_of_every_remainder(name: str, length: int) -> None:
    prompt = np.random.default_rng(length).integers(0, 60, length).tolist()
    found = generate(opened(name, "0,2", 8, 1), [prompt], Settings(6), lambda: NGram(1, 3))
    assert found.tokens == [anew(name).generate(prompt, 6)]


@pytest.mark.parametrize("seed", range(24))
def test_any_prompt_prefill_k_and_batch(seed: int) -> None:
    chance = random.Random(seed)
    name, batch = chance.choice(list(GRAPHS)), chance.choice([1, 1, 2])
    decoder = opened(name, chance.choice(["0", "0,1", "0,3"]), chance.choice([4, 7]), batch)
    prompts = [[chance.randrange(60) for _ in range(chance.randint(1, 20))] for _ in range(batch)]
    wanted = [anew(name).generate(prompt, 8) for prompt in prompts]
    assert generate(decoder, prompts, Settings(8), lambda: NGram(1, 3)).tokens == wanted


def test_a_prefill_without_a_decode_that_fits_the_tail_is_refused() -> None:
    program = Program(graphs={"model": fused_decoder()})
    program = PassManager(parse_pipeline("speculative{k=2 prefill=8 ctx=32}")).run(program)
    decoder = Decoder(program)
    assert generate(decoder, [[1] * 9], Settings(1)).tokens == [anew("fused").generate([1] * 9, 1)]
    last = Program(graphs={"model": last_row(fused_decoder)()})
    cloned = PassManager(parse_pipeline("clone-decode{k=0 prefill=8 ctx=32}")).run(last)
    cloned.clones = {name: clone for name, clone in cloned.clones.items() if name == "prefill"}
    with pytest.raises(NotDecodable, match="no graph gives logits"):
        Decoder(cloned)


def cloned(name: str, folder: Path) -> Program:
    """Clones as they are read from the disk."""
    program = Program(graphs={"model": GRAPHS[name]()})
    text = "clone-decode{k=0 prefill=8 ctx=32}" if "last row" in name else "speculative{k=0,2 prefill=8 ctx=32}"
    PassManager(parse_pipeline(text)).run(program)
    program.save(folder)
    return Program.load(folder)


def test_a_prefill_that_takes_whole_chunks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = cloned("append, last row", tmp_path / "p")
    assert [c for c in program.contracts if isinstance(c, WholeChunks)] == [WholeChunks(8, graphs=("prefill",))]
    assert any("takes whole chunks of 8 tokens only" in sentence for sentence in program.assumptions)
    widths: list[int] = []
    run = Decoder.run

    def counted(decoder: Decoder, graph: Host, step: Step) -> Rows:
        widths.append(step.width)
        return run(decoder, graph, step)

    monkeypatch.setattr(Decoder, "run", counted)
    wanted = anew("append, last row").generate([5] * 11, 2)
    for contracts, runs in ((program.contracts, [8, 1, 1, 1, 1]), ([], [8, 8, 8, 1, 1, 1, 1])):
        program.contracts = list(contracts)  # without them the padded run is tried, and made again
        widths.clear()
        assert generate(Decoder(program), [[5] * 11], Settings(2)).tokens == [wanted]
        assert widths == runs


def test_a_mask_over_a_shared_cache_tells_no_padding(tmp_path: Path) -> None:
    program = Program(graphs={"model": fused_decoder()})
    PassManager(parse_pipeline("keep-last-logits{n=1},clone-decode{k=0 prefill=8 ctx=32}")).run(program)
    program.save(tmp_path / "p")
    program = Program.load(tmp_path / "p")
    assert [c for c in program.contracts if isinstance(c, WholeChunks)] == [WholeChunks(8, graphs=("prefill",))]
    found = generate(Decoder(program), [[5] * 11], Settings(2)).tokens
    assert found == [anew("fused").generate([5] * 11, 2)]


@pytest.mark.parametrize("name", ["append", "scatter"])
def test_a_prefill_that_tells_padding_claims_nothing(name: str, tmp_path: Path) -> None:
    assert not any(isinstance(contract, WholeChunks) for contract in cloned(name, tmp_path / "p").contracts)


def test_the_row_that_padding_is_written_to_is_recorded_and_kept_free(tmp_path: Path) -> None:
    program = cloned("scatter", tmp_path / "p")
    spare = next(contract for contract in program.contracts if isinstance(contract, SpareRows))
    assert (spare.rows, spare.spare, spare.graphs) == (32, 1, ("Prefill", "Decode_0", "Decode_1"))
    assert any("hold 31 tokens in 32 rows" in sentence for sentence in program.assumptions)
    assert Decoder(program).last == 30
    program.contracts = [replace(spare, spare=3)]
    assert Decoder(program).last == 28
    program.contracts = []
    assert Decoder(program).last == 30


def whole_texts(path: Path) -> Anew | None:
    """The reference of one exported decoder; None where it is none, or takes no text whole."""
    program = Program.load(path)
    try:
        truth = Anew(next(iter(program.graphs.values())))
        truth.next((3, 4, 5))
    except (OnnxPassesError, IndexError, AssertionError):
        return None
    return truth if any(state.input is not None for state in truth.subject.states) else None


@pytest.mark.slow
@pytest.mark.skipif("ONNX_PASSES_MODELS" not in os.environ, reason="ONNX_PASSES_MODELS names no folder of models")
def test_exported_decoders_give_the_tokens_of_plain_decoding() -> None:
    """Random prompts, prefills, K and batches over every exported decoder that plain onnxruntime runs from nothing."""
    paths = sorted(Path(os.environ["ONNX_PASSES_MODELS"]).glob("*/model.onnx"))
    plans = [(path, truth) for path in paths if (truth := whole_texts(path)) is not None]
    runs, wrong, refused = 0, list[str](), set[str]()
    for at, (path, truth) in enumerate(plans):
        chance = random.Random(path.parent.name)
        goal = RUNS * (at + 1) // len(plans)
        for _ in range(60):
            if runs >= goal:
                break
            ks, prefill, batch = (
                chance.choice(["0", "0,1", "0,3"]),
                chance.choice([4, 7, 16]),
                chance.choice([1, 1, 2, 3]),
            )
            text = f"speculative{{k={ks} prefill={prefill} ctx=48 batch={batch}}}"
            try:
                decoder = Decoder(PassManager(parse_pipeline(text)).run(Program.load(path)))
            except OnnxPassesError as error:
                refused.add(f"{path.parent.name}: {text}: {error.what}")
                continue
            for _ in range(min(10, goal - runs)):
                size = chance.randint(1, decoder.rows + 1)
                prompts = [[chance.randrange(2, 90) for _ in range(chance.randint(1, 36))] for _ in range(size)]
                found = generate(decoder, prompts, Settings(5), lambda: NGram(1, 3)).tokens
                runs += 1
                if found != [truth.generate(prompt, 5) for prompt in prompts]:
                    wrong.append(f"{path.parent.name}: {text}: {[len(prompt) for prompt in prompts]}")
            decoder.close()
    assert not wrong, wrong
    assert runs >= RUNS * 0.8, refused
