"""The sample decoders and the small graphs of every idiom: sound, runnable, the same every time."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes.runtime.samples.samples import SAMPLES, append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.session import Session

from .builders import BUILDERS, OTHERS

ALL = {**BUILDERS, **OTHERS}
IDS = np.random.default_rng(0).integers(0, 128, (3, 7))
POSITIONS = np.tile(np.arange(7), (3, 1))


def caches(model: ir.Model, rows: int, length: int) -> dict[str, np.ndarray]:
    inputs = [value for value in model.graph.inputs if value.dtype is ir.DataType.FLOAT]
    return {value.name or "": np.zeros((rows, 2, length, 8), np.float32) for value in inputs}


@pytest.mark.parametrize("name", ALL)
def test_every_graph_passes_the_checker(name: str) -> None:
    onnx.checker.check_model(ir.to_proto(ALL[name]()), full_check=True)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_the_same_bytes_every_time(name: str) -> None:
    first, second = (ir.to_proto(SAMPLES[name]()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_another_seed_gives_other_weights() -> None:
    first, second = (append_decoder(seed=seed).graph.initializers["lm_head.weight"] for seed in (0, 1))
    assert not np.array_equal(first.const_value.numpy(), second.const_value.numpy())


def test_append_continues_where_it_stopped() -> None:
    model = append_decoder()
    session = Session(model)
    empty = caches(model, 3, 0)

    def run(first: int, last: int, past: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        mask = np.ones((3, last), np.int64)
        tokens = {"input_ids": IDS[:, first:last], "position_ids": POSITIONS[:, first:last], "attention_mask": mask}
        return session.run({**tokens, **past})

    whole, start = run(0, 7, empty), run(0, 4, empty)
    present = [array for name, array in start.items() if name != "logits"]
    rest = run(4, 7, dict(zip(empty, present, strict=True)))
    np.testing.assert_allclose(rest["logits"], whole["logits"][:, 4:], atol=1e-6)


def test_scatter_agrees_with_append_at_the_last_token() -> None:
    # the tables and the arithmetic of the two rotary embeddings round differently
    grown, written = append_decoder(), scatter_decoder(no_index=0)
    for name, value in written.graph.initializers.items():
        if name in grown.graph.initializers:
            value.const_value = grown.graph.initializers[name].const_value
    tokens = {"input_ids": IDS, "position_ids": POSITIONS}
    one = Session(grown).run({**tokens, "attention_mask": np.ones((3, 7), np.int64), **caches(grown, 3, 0)})
    two = Session(written).run({**tokens, **caches(written, 3, 12)})
    np.testing.assert_allclose(two["logits"][:, 0], one["logits"][:, -1], atol=1e-4)


def test_batch_index_chooses_the_rows_that_are_written() -> None:
    model = scatter_decoder(batch_index=True, no_index=0)
    rows = np.array([[4], [0], [2]])
    tokens = {"input_ids": IDS, "position_ids": POSITIONS, "batch_index": rows}
    outputs = Session(model).run({**tokens, **caches(model, 5, 12)})
    written = outputs["past_key.0_RetainedState"].any(axis=(1, 3))
    assert written[[4, 0, 2], :7].all()
    assert not written[[1, 3]].any()
    assert not written[:, 7:].any()


def test_a_window_hides_far_keys() -> None:
    near, far = (Session(scatter_decoder(window=window, no_index=0)) for window in (4, None))
    model = scatter_decoder()
    feeds = {"input_ids": IDS, "position_ids": POSITIONS, **caches(model, 3, 12)}
    assert not np.allclose(near.run(feeds)["logits"], far.run(feeds)["logits"])
