"""Measures what a run costs for each K as processor time of one thread, kept in the program's own manifest."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ...ir.core.errors import InputError
from ...ir.core.specialization import SpecRole
from ...ir.program.program import Program
from ...ir.serialization.index import INDEX_NAME, read_index
from ..decode.decoder import Decoder
from ..speculate.traces import write_whole

WARM_UP = 3
RUNS = 25


def measure(decoder: Decoder, *, runs: int = RUNS, warm_up: int = WARM_UP) -> dict[int, float]:
    """Seconds of a run for each K of the decoder, every row live, in the middle of the context.

    Medians of processor time: the wall clock of a shared machine varies by a factor. All Ks take turns, so that what
    else the machine does falls on each alike. The decoder's texts are forgotten.
    """
    decoder.reset()
    middle = max(1, min(decoder.last - max(decoder.ks), decoder.ctx // 2, 256))
    text = [token % decoder.vocabulary for token in range(1, middle + 1)]
    decoder.prefill(dict.fromkeys(range(decoder.slots), text))
    found: dict[int, list[float]] = {k: [] for k in decoder.ks}
    try:
        for turn in range(warm_up + runs):
            for k in decoder.ks:
                seconds = _one(decoder, k)
                if turn >= warm_up:
                    found[k].append(seconds)
    finally:
        decoder.reset()
    return {k: statistics.median(times) for k, times in found.items()}


def _one(decoder: Decoder, k: int) -> float:
    """The processor time of one run; none of its tokens stay."""
    positions = decoder.lengths[:, None] + np.arange(k + 1)[None, :]
    positions[decoder.slots :] = -1
    ids = positions % decoder.vocabulary
    began = time.process_time()
    decoder.decode(k, ids, positions)
    spent = time.process_time() - began
    decoder.keep(np.zeros(decoder.rows, np.int64))
    return spent


def fill_in(cost: Mapping[int, float], top: int) -> tuple[dict[int, float], tuple[int, ...]]:
    """Costs for every K from 0 to ``top``, and which of them are no measurement.

    Between two measured Ks a straight line; beyond the last one the line through the last two, or a flat one.
    """
    known = sorted(cost)
    guessed = tuple(k for k in range(top + 1) if k not in cost)
    costs = {k: cost[k] for k in known}
    for k in guessed:
        lower, upper = max((j for j in known if j < k), default=None), min((j for j in known if j > k), default=None)
        if lower is None:
            costs[k] = cost[known[0]]
        elif upper is None:
            before = known[-2] if len(known) > 1 else lower
            slope = (cost[lower] - cost[before]) / (lower - before) if before != lower else 0.0
            costs[k] = cost[lower] + max(slope, 0.0) * (k - lower)
        else:
            costs[k] = cost[lower] + (cost[upper] - cost[lower]) * (k - lower) / (upper - lower)
    return {k: costs[k] for k in range(top + 1)}, guessed


def known_costs(program: Program) -> dict[int, float]:
    """The latencies that the program's manifest holds, by K."""
    items = program.specializations
    return {item.k: item.latency for item in items if item.k is not None and item.latency}


def write_costs(folder: Path, cost: Mapping[int, float]) -> int:
    """Writes latencies into the decodes of a saved program's ``program.json``; returns how many there were.

    Everything else in it stays as it is, and the file is replaced whole. InputError where it is no saved program.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise InputError("holds no program.json to write latencies into", where=str(folder))
    read_index(folder)
    content = json.loads(path.read_text(encoding="utf-8"))
    written = 0
    for item in _decodes(content.get("specializations", [])):
        k = item.get("k")
        if isinstance(k, int) and k in cost:
            item["latency"] = round(cost[k], 9)
            written += 1
    if written:
        write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return written


def _decodes(items: Iterable[dict[str, object]]) -> Iterable[dict[str, object]]:
    return (item for item in items if isinstance(item, dict) and item.get("role") == SpecRole.DECODE.value)
