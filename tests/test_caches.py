"""Sessions keep states of every layout: every idiom of decoder says what it says when the text is read anew."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import UsageError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.decode.decoder import Decoder, NotDecodable
from onnx_llm_passes.runtime.decode.generate import Settings, generate
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.samples.writer import FLOAT, INT64, Writer
from onnx_llm_passes.runtime.session.session import RunError
from onnx_llm_passes.runtime.speculate.proposers import NGram

from .builders import BUILDERS

PROMPTS = [[3, 5, 7, 3, 5, 7, 3, 5], [9, 1, 2]]
NEW = 10


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "tensor scatter"])
def test_every_layout_is_fed_back(name: str) -> None:
    runner = Decoder(Program(graphs={"model": BUILDERS[name]()}), rows=2, ctx=40)
    found = generate(runner, PROMPTS, Settings(NEW), lambda: NGram(1, 3)).tokens
    anew: list[list[int]] = []
    for prompt in PROMPTS:
        text = list(prompt)
        for _ in range(NEW):
            text += generate(runner, [text], Settings(1)).tokens[0]
        anew.append(text[len(prompt) :])
    assert found == anew
    runner.close()


def test_a_cache_written_from_an_index_on_is_refused() -> None:
    with pytest.raises(NotDecodable, match="TensorScatter"):
        Decoder(Program(graphs={"model": BUILDERS["tensor scatter"]()}), ctx=40)


def reader() -> ir.Model:
    """A running sum over the rows of 16 tokens: a state that leaves and comes back."""
    w = Writer(opset=18)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    past = w.input("past.0.key", FLOAT, ["batch", "past", 4])
    present = w.op("Concat", past, w.op("Gather", w.weight("table", 16, 4, scale=1.0), ids), axis=1)
    w.output("logits", w.reduce("ReduceSum", present, 1), ["batch", 1, 4])
    w.output("present.0.key", present, ["batch", "past + seq", 4])
    return w.model()


def test_a_failed_run_leaves_the_states_as_they_were() -> None:
    runner = Decoder(Program(graphs={"language": reader()}), rows=1)
    runner.prefill({0: [1, 2]})
    kept = runner.caches.states["past.0.key"]
    before = kept.array().copy()
    with pytest.raises(RunError):
        runner.decode(0, np.asarray([[99]]), np.asarray([[2]]))  # the table has 16 rows
    assert np.array_equal(kept.array(), before)
    runner.decode(0, np.asarray([[3]]), np.asarray([[2]]))
    runner.keep([1])
    assert kept.array().shape == (1, 3, 4)
    runner.close()
    assert not runner.caches.states


def test_a_length_that_nobody_told_is_asked_for() -> None:
    with pytest.raises(UsageError, match="how long this cache is"):
        Decoder(Program(graphs={"model": BUILDERS["scatter"]()}), rows=1)


def test_a_growing_cache_is_handed_on_without_a_copy() -> None:
    runner = Decoder(Program(graphs={"model": append_decoder()}), rows=1, ctx=40)
    runner.prefill({0: [1, 2, 3]})
    kept = next(iter(runner.caches.states.values()))
    runner.decode(0, np.asarray([[4]]), np.asarray([[3]]))
    given = kept.value
    runner.keep([1])
    assert given is not None
    assert kept.value is given  # pyright: ignore[reportAttributeAccessIssue]
    runner.close()
