"""Feeds two graphs of one model the same tokens, chunk by chunk, and tells how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.ir.core.verifier import check_structure
from onnx_llm_passes.passes.convert_states import ConvertStates
from onnx_llm_passes.runtime.decode.host import Host
from onnx_llm_passes.runtime.decode.kv_cache import Caches
from onnx_llm_passes.runtime.decode.step import Chunk, Step
from onnx_llm_passes.runtime.session.subject import Subject

Chunks = list[Chunk]
CTX, CLOSE = 24, 2e-6


class Stepper:
    """Sequences in one graph: together where caches are written in place, else each alone in a cache that grows.

    ``others`` feeds inputs that no chunk tells, one line a sequence.
    """

    def __init__(self, model: ir.Model, batch: int = 1, ctx: int = 0, *, others: dict[str, Any] | None = None) -> None:
        self.host = Host(Subject.of(model, "graph"), ctx=ctx, guesses=False)
        self.host.open()
        self.states, self.others = self.host.changing, others or {}
        self.in_place = any(state.in_place for state in self.states)
        self.caches = [Caches(batch)] if self.in_place else [Caches(1) for _ in range(batch)]

    def step(self, chunks: Sequence[Chunk], width: int = 0) -> list[np.ndarray[Any, Any]]:
        """Logits of each sequence's chunk, padded to ``width`` where they run together."""
        if self.in_place:
            step = Step.of(chunks, width=width, lengths=self.caches[0].lengths)
            logits = self.host.run(self.caches[0], step, others=self.others)[self.host.answer]
            return [found[: len(chunk.tokens)] for found, chunk in zip(logits, chunks, strict=True)]
        return [self._alone(row, chunk) for row, chunk in enumerate(chunks)]

    def _alone(self, row: int, chunk: Chunk) -> np.ndarray[Any, Any]:
        if not len(chunk.tokens):
            return np.zeros((0, 0), np.float32)
        others = {name: array[row : row + 1] for name, array in self.others.items()}
        return self.host.run(self.caches[row], Step.of([chunk]), others=others)[self.host.answer][0]


def rel(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """max|a-b| / max|a|; infinite where NaN is in one only."""
    assert a.shape == b.shape
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    top = float(np.nanmax(np.abs(a), initial=0.0))
    return float(np.nanmax(np.abs(a - b), initial=0.0)) / top if top else 0.0


def rows(stepper: Stepper, layer: int | None, kind: str, row: int) -> np.ndarray[Any, Any]:
    """What the cache holds of one sequence, rows in order on the last axis but one: ``[heads, length, size]``."""
    state = next(s for s in stepper.states if (s.layer, s.kind) == (layer, kind))
    caches, row = (stepper.caches[0], row) if stepper.in_place else (stepper.caches[row], 0)
    binding = stepper.host.bind(len(caches.lengths))[0][state.name]
    axes = (binding.batch_axis, state.axis or 0)
    return np.moveaxis(caches.states[state.name].array(), axes, (0, -2))[row][..., : caches.lengths[row], :]


def script(rng: np.random.Generator, batch: int, most: int) -> list[Chunks]:
    """Chunks of mixed lengths, rewinds over rejected tokens, an idle row, the last slot, a fresh start."""
    lengths = [0] * batch
    steps: list[Chunks] = []

    def add(counts: Sequence[int], starts: Sequence[int]) -> None:
        step: Chunks = []
        for row, (asked, start) in enumerate(zip(counts, starts, strict=True)):
            count = min(asked, most, CTX - start)
            step.append(Chunk(tuple(int(x) for x in rng.integers(0, 30, count)), start))
            lengths[row] = start + count if count else lengths[row]
        steps.append(step)

    add([5 + row for row in range(batch)], lengths)
    for number, count in enumerate((1, 2, 5, 3, 1)):
        add([max(count - (row + number) % 2, 0) for row in range(batch)], lengths)
    for count, back in ((4, 3), (1, 2), (5, 4)):
        add([count] * batch, [max(length - back, 0) for length in lengths])
    add([0] + [2] * (batch - 1), lengths)
    while min(lengths) < CTX:
        add([5] * batch, lengths)
    add([3] + [1] * (batch - 1), [0] + [CTX - 1] * (batch - 1))
    return steps


def compare(
    before: ir.Model, after: ir.Model, *, batch: int = 3, width: int = 8, others: dict[str, Any] | None = None
) -> float:
    """Feeds both graphs the same script; gives the worst distance of logits and of live cache rows."""
    rng = np.random.default_rng(0)
    one = [list(v.shape or ())[1:2] == [1] for v in before.graph.inputs if v.dtype == ir.DataType.INT64]
    one_token_only, worst = any(one), 0.0
    left, right = Stepper(before, batch, CTX, others=others), Stepper(after, batch, CTX, others=others)
    for step in script(rng, batch, 1 if one_token_only else 8):
        a, b = left.step(step), right.step(step, 0 if one_token_only else width)
        worst = max([worst, *(rel(x, y) for x, y, chunk in zip(a, b, step, strict=True) if chunk.tokens)])
        for state in left.states:
            for row in range(batch):
                worst = max(
                    worst, rel(rows(left, state.layer, state.kind, row), rows(right, state.layer, state.kind, row))
                )
    return worst


def unpadded(before: ir.Model, after: ir.Model, batch: int = 2) -> float:
    """As :func:`compare`, all rows alike, nothing padded; logits of the last token, as some graphs give no others."""
    rng, worst, length = np.random.default_rng(1), 0.0, 0
    left, right = Stepper(before, batch, CTX), Stepper(after, batch, CTX)
    for count, back in ((5, 0), (1, 0), (2, 0), (5, 0), (3, 2), (1, 1), (4, 3), (1, 0)):
        start = length - back
        step = [Chunk(tuple(int(x) for x in rng.integers(0, 30, count)), start) for _ in range(batch)]
        length = start + count
        a, b = left.step(step), right.step(step)
        worst = max([worst, *(rel(x[-1:], y[-1:]) for x, y in zip(a, b, strict=True))])
        for state in left.states:
            for row in range(batch):
                x, y = (rows(s, state.layer, state.kind, row) for s in (left, right))
                worst = max(worst, rel(x, y if x.shape == y.shape else np.swapaxes(y, -1, -2)))
    return worst


def convert(model: ir.Model, **options: Any) -> ir.Model:
    """A converted copy, valid."""
    copy = model.clone()
    assert ConvertStates(**options).call(copy).modified
    check_structure(copy)
    return copy
