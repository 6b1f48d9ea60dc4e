"""One mask, one set of positions, one embedding and one cache serve every host loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.runtime.decode.caches import CacheBinding, CachePolicy
from onnx_llm_passes.runtime.decode.kv_cache import open_cache
from onnx_llm_passes.runtime.decode.step import Chunk, Interface, Step, Writing, embedded, mask_of, positions_of
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.subject import Subject

STEP = Step.of([Chunk((7, 8, 9), 2), Chunk((5,), 1), Chunk()], width=4, lengths=[2, 1, 3])


def value(*dims: int | str, dtype: ir.DataType = ir.DataType.INT64) -> ir.Value:
    return ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape(list(dims)))


def interface(writing: Writing, room: int | None = None) -> Interface:
    build = scatter_decoder if writing is Writing.POSITIONS else append_decoder
    return Interface(Subject.of(build(), "graph"), writing, room)


def test_chunks_stand_side_by_side_with_padding_and_idle_rows() -> None:
    assert STEP.ids.tolist() == [[7, 8, 9, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
    assert STEP.positions.tolist() == [[2, 3, 4, -1], [1, -1, -1, -1], [-1] * 4]
    assert STEP.counts.tolist() == [3, 1, 0]
    assert (STEP.past.tolist(), STEP.held, STEP.width) == ([2, 1, 3], 3, 4)


def test_the_mask_of_a_cache_that_grows_ends_every_text_at_its_end() -> None:
    found = mask_of(interface(Writing.BEHIND), value("batch", "keys"), STEP).astype(int)
    assert found.tolist() == [[0, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]]


def test_a_fixed_past_is_hidden_where_it_is_empty() -> None:
    found = mask_of(interface(Writing.BEHIND, 5), value("batch", 9), STEP).astype(int)
    assert found[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0]


def test_the_mask_of_a_cache_written_at_positions_is_as_wide_as_the_cache() -> None:
    found = mask_of(interface(Writing.POSITIONS, 6), value("batch", "ctx"), STEP).astype(int)
    assert found.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]


def test_a_fused_buffer_counts_padding_and_fills_up_the_declared_width() -> None:
    found = mask_of(interface(Writing.LENGTHS, 9), value("batch", 9), STEP).astype(int)
    assert found.sum(axis=1).tolist() == [6, 5, 7]


@pytest.mark.parametrize("dtype", [ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.FLOAT16])
@pytest.mark.parametrize("writing", [Writing.BEHIND, Writing.POSITIONS])
def test_each_query_sees_the_past_and_itself(writing: Writing, dtype: ir.DataType) -> None:
    found = mask_of(interface(writing, 8), value("batch", 1, "seq", "keys", dtype=dtype), STEP)
    seen = found == 0 if dtype.is_floating_point() else found
    assert seen.shape[:3] == (3, 1, 4)
    assert seen[0, 0].sum(axis=1).tolist()[:3] == [3, 4, 5]
    assert seen.any(axis=-1).all(), "padding that sees nothing is NaN behind a softmax"
    assert dtype.is_floating_point() is not (found.dtype == bool)


def test_positions_tell_padding_only_where_a_cache_is_written_at_them() -> None:
    assert (
        positions_of(interface(Writing.POSITIONS, 6), value("batch", "seq"), STEP).tolist() == STEP.positions.tolist()
    )
    hidden = positions_of(interface(Writing.BEHIND), value("batch", "seq"), STEP)
    assert hidden.tolist() == [[2, 3, 4, 1], [1, 1, 1, 1], [1] * 4]
    assert positions_of(interface(Writing.BEHIND), value("angles", "batch", "seq"), STEP).shape == (3, 3, 4)
    assert positions_of(interface(Writing.BEHIND), value("seq"), STEP).tolist() == [2, 3, 4, 5]
    assert positions_of(interface(Writing.BEHIND), value(), STEP) == 2


def test_a_token_has_one_embedding() -> None:
    few, many = embedded(8, np.array([[3]])), embedded(8, np.array([[9, 3, 0]]))
    assert np.array_equal(few[0, 0], many[0, 1])
    assert not np.array_equal(many[0, 0], many[0, 1])


BINDING = CacheBinding("past", "present", CachePolicy.GROWN, 1, ir.DataType.FLOAT, (1, None, 2), batch_axis=0)


def rows(*numbers: float) -> np.ndarray:
    return np.stack([np.full(2, number, np.float32) for number in numbers])[None]


@pytest.mark.parametrize(
    ("policy", "size", "delta"),
    [
        (CachePolicy.GROWN, None, False),
        (CachePolicy.GROWN, None, True),
        (CachePolicy.PADDED, 5, False),
        (CachePolicy.PADDED, 5, True),
        (CachePolicy.PLACED, 5, True),
    ],
)
def test_rejected_rows_are_taken_back(policy: CachePolicy, size: int | None, delta: bool) -> None:
    binding = replace(BINDING, policy=policy, sizes=(1, size, 2), delta=delta)
    cache, held = open_cache(binding), 0
    for new, kept in (((1, 2, 3), 2), ((4, 5), 1), ((6,), 1)):
        past = np.asarray(cache.past(binding))
        given = rows(*new) if delta else np.concatenate([past, rows(*new)], axis=1)
        cache.done(given, len(new), binding)
        cache.keep(np.array([held]), np.array([kept]), len(new))
        held += kept
    assert cache.array()[0, :held, 0].tolist() == [1, 2, 4, 6]
    after = cache.copy()
    after.keep(np.array([2]), np.array([0]), held - 2)
    assert cache.array()[0, :held, 0].tolist() == [1, 2, 4, 6]
    if policy is CachePolicy.PADDED:
        assert np.asarray(after.past(binding))[0, :, 0].tolist() == [0, 0, 0, 1, 2]


def test_two_buffers_trade_places_and_one_stays() -> None:
    for policy in (CachePolicy.SWAPPED, CachePolicy.SHARED):
        binding = replace(BINDING, policy=policy, sizes=(1, 4, 2))
        cache = open_cache(binding)
        first, target = cache.past(binding), cache.target()
        cache.done(target, 1, binding)
        assert cache.past(binding) is target
        assert (first is target) is (policy is CachePolicy.SHARED)
