"""Probes find on empty caches what types do not say of a decoder graph, before anything is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..speculate.plan import PAD_POSITION
from .host import Host, NotDecodable
from .kv_cache import BUFFERS
from .step import Step, Writing

if TYPE_CHECKING:
    from .decoder import Decoder


def gives_all(decoder: Decoder, graph: Host) -> bool:
    """Whether a graph that takes any number of tokens gives logits for each of two: tried, for types may not say."""
    if not decoder.rewinds:
        return False
    ids, positions = np.zeros((decoder.rows, 2), np.int64), np.tile(np.arange(2), (decoder.rows, 1))
    step = Step.at(ids, positions, decoder.lengths)
    try:
        return decoder.run(graph, step).values.shape[1] == 2
    finally:
        decoder.reset()


def writes_rows_apart(decoder: Decoder, graph: Host) -> bool:
    """Whether each row is written at its own position: tried, for some exporters take the first row's for all."""
    bindings = graph.bind(decoder.rows)[0].values()
    told = [b for b in bindings if b.policy in BUFFERS and not b.fused and b.axis is not None]
    fixed = graph.length or 1
    if decoder.rows < 2 or decoder.writing is not Writing.POSITIONS or not told or graph.batch == 1:
        return True
    positions = np.full((decoder.rows, fixed), PAD_POSITION, np.int64)
    positions[:, 0] = np.arange(decoder.rows) % 2
    step = Step.at(np.zeros_like(positions), positions, decoder.lengths)
    try:
        decoder.run(graph, step)
        decoder.keep(np.ones(decoder.rows, np.int64))
        held, axes = decoder.caches.states[told[0].input].array(), (told[0].batch_axis, told[0].axis or 0)
        cache = np.moveaxis(held, axes, (0, 1))
        return not cache[1, 0].any() and bool(cache[1, 1].any())
    finally:
        decoder.reset()


def refuse_starts(graph: Host) -> None:
    """Raises NotDecodable where a cache is written from an index on, and not at positions."""
    for state in graph.subject.states:
        if state.update is not None and state.update.op_type == "TensorScatter":
            raise NotDecodable(
                "decoding feeds positions, and this cache is written from an index on",
                where=f"{graph.name}, input {state.name!r}",
                found=state.update.op_type,
                wanted="a cache that is written at position_ids",
                hint="speculative{k=0 prefill=PREFILL ctx=CTX} makes a program of it that generate runs.",
            )
