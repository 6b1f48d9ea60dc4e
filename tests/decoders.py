"""What the tests generate with: a small decoder cloned for several K, and what it says one token at a time."""

from __future__ import annotations

import copy
import functools

import numpy as np

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.decoder import Decoder
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.legalize import legalized
from onnx_llm_passes.runtime.session.session import Session

CTX = 64
PREFILL = 5  # as long as the decode for K=4: the two must not be taken for one
VOCABULARY = Tiny().vocab
CLONES = (
    f"keep-last-logits{{symbol=num_logits_to_keep}},clone-decode{{k=0,1,2,3,4 prefill={PREFILL} ctx={CTX} batch=%d}}"
)


def cloned(batch: int, pipeline: str = CLONES) -> Program:
    """The scatter sample through the real pipeline."""
    program = Program(graphs={"model": scatter_decoder()})
    PassManager(parse_pipeline(pipeline % batch)).run(program)
    return program


def only(runner: Decoder, ks: tuple[int, ...]) -> Decoder:
    """The same decoder, sessions and texts with fewer Ks."""
    fewer = copy.copy(runner)
    fewer.decodes = {k: runner.decodes[k] for k in ks}
    return fewer


@functools.cache
def decoder(batch: int, ks: tuple[int, ...] | None = None) -> Decoder:
    """An open decoder over the clones, kept for the whole run of the tests."""
    return Decoder(cloned(batch)) if ks is None else only(decoder(batch), ks)


@functools.cache
def growing(batch: int, ks: tuple[int, ...] | None = None) -> Decoder:
    """An open decoder over the append sample, one graph for every K."""
    if ks is not None:
        return only(growing(batch), ks)
    return Decoder(Program(graphs={"model": append_decoder()}), rows=batch, ctx=CTX, ks=range(5))


class Plain:
    """Greedy decoding without the decoder: the whole text through the graph for every token, no cache kept."""

    def __init__(self) -> None:
        model = scatter_decoder()
        self.session = Session(legalized(model).model)
        self.empty = {
            value.name or "": np.zeros((1, Tiny().kv_heads, CTX, Tiny().head), np.float32)
            for value in model.graph.inputs
            if value.name not in ("input_ids", "position_ids")
        }
        self.known: dict[tuple[int, ...], int] = {}

    def next(self, text: tuple[int, ...]) -> int:
        """The likeliest token after a text."""
        if text not in self.known:
            ids = np.asarray([text], np.int64)
            given = {"input_ids": ids, "position_ids": np.arange(len(text), dtype=np.int64)[None], **self.empty}
            self.known[text] = int(self.session.run(given)["logits"][0, -1].argmax())
        return self.known[text]

    def generate(self, prompt: list[int], max_new: int, eos: frozenset[int] = frozenset()) -> list[int]:
        """The new tokens, until an end token, the number, or the context's last usable row."""
        text = list(prompt)
        while len(text) - len(prompt) < max_new and len(text) < CTX:
            text.append(self.next(tuple(text)))
            if text[-1] in eos:
                break
        return text[len(prompt) :]


@functools.cache
def plain() -> Plain:
    """The one reference."""
    return Plain()
