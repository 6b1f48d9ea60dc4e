"""Weights are put on their grid some rows at a time, and only when they are written."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.encoding import Encoding, Kind, NoEvidence
from onnx_llm_passes.ir.quantization import qdq, weight_grids
from onnx_llm_passes.ir.quantization.decide import Choice


@pytest.mark.parametrize(
    ("shape", "scales", "axis", "block"),
    [
        ((7, 5), (), None, None),
        ((7, 5), (5,), 1, None),
        ((7, 5), (7,), 0, None),
        ((7, 5), (4, 5), 0, 2),
        ((7, 5), (7, 2), 1, 3),
        ((2, 7, 5), (2, 4, 5), 1, 2),
        ((3,), (), None, None),
        ((), (), None, None),
        ((0, 5), (5,), 1, None),
    ],
)
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_quantized_some_rows_at_a_time(
    shape: tuple[int, ...],
    scales: tuple[int, ...],
    axis: int | None,
    block: int | None,
    bits: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    array = random.normal(size=shape).astype(np.float32)
    numbers = random.uniform(0.01, 0.2, scales).astype(np.float32)
    grid = Encoding(
        tuple(numbers.reshape(-1).tolist()),
        (0,) * numbers.size,
        bits,
        signed=True,
        symmetric=True,
        shape=scales,
        axis=axis,
        block=block,
        kind=Kind.PARAM,
    )
    spread = numbers if axis is None else np.expand_dims(numbers, [a for a in range(len(shape)) if a != axis])
    if block is not None and axis is not None:
        spread = np.repeat(numbers, block, axis=axis).take(range(shape[axis]), axis=axis)
    wanted = np.clip(np.rint(array / spread), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    monkeypatch.setattr(qdq, "AT_ONCE", 6)
    assert np.array_equal(qdq.quantized(array, grid), wanted)
    kind = ir.DataType.INT4 if bits == 4 else ir.DataType.INT8
    lazy = qdq.lazily_quantized(ir.Tensor(array), grid, kind)
    eager = ir.Tensor(wanted.astype(kind.numpy()), dtype=kind)
    assert lazy.tobytes() == eager.tobytes()
    assert np.array_equal(lazy.numpy(), eager.numpy())


@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize("shape", [(7, 5), (2, 7, 5)])
def test_ranges_are_chosen_some_rows_at_a_time(
    block: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.random.default_rng(0).standard_t(2, size=shape).astype(np.float32)
    choice = Choice(4, symmetric=True, block=block, method="mse")
    whole = weight_grids.weight_encoding("w", array, choice, len(shape) - 1)
    monkeypatch.setattr(weight_grids, "AT_ONCE", 6)
    assert weight_grids.weight_encoding("w", array, choice, len(shape) - 1) == whole
    assert len(set(whole.scale)) > 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_has_no_grid(bad: float) -> None:
    array = np.ones((4, 4), np.float32)
    array[2, 1] = bad
    for block in (0, 2):
        with pytest.raises(NoEvidence, match="w"):
            weight_grids.weight_encoding("w", array, Choice(8, symmetric=True, block=block), 1)
