"""Engines spread the samples of a calibration over processes of this machine, or over a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.core.errors import InputError, UsageError
from .calibrate import Engine, Job, Partial, Plan, in_process

SHARDS_A_WORKER = 4  # smaller shards even out texts of different length and keep progress fresh
Edges = list[tuple[float, float]] | None


@dataclass(frozen=True)
class Shard:
    """Some samples of a job, as they travel to another process; the graph travels as a path."""

    source: Path
    plan: Plan
    indices: tuple[int, ...]
    samples: tuple[np.ndarray, ...]
    total: int
    capacity: int
    edges: Edges
    follow_links: bool


def parse_engine(text: str) -> Engine:
    """The engine that ``local``, ``local:N`` or ``dask://host:port`` names; UsageError for anything else."""
    kind, _, rest = text.partition(":")
    if text == "local":
        return in_process
    if kind == "local" and rest.isascii() and rest.isdigit() and 0 < int(rest) <= 1024:
        return in_process if int(rest) == 1 else _local(int(rest))
    if kind == "dask" and rest.startswith("//") and rest.strip("/"):
        return _dask(f"tcp:{rest}")
    raise UsageError("unknown engine", found=text, wanted="local, local:N or dask://host:port")


def run_shard(shard: Shard) -> Partial:
    """What the samples of one shard say; runs in any process that can read the model."""
    from ...ir.program.program import Program
    from .calibrate import Worker
    from .rows import feeder_of

    (model,) = Program.load(shard.source, follow_links=shard.follow_links).graphs.values()
    worker = Worker(feeder_of(model, shard.plan.chunk, shard.capacity), shard.plan, shard.edges, shard.total)
    parts = [worker.look(index, tokens) for index, tokens in zip(shard.indices, shard.samples, strict=True)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    return merged


def shards_of(job: Job, todo: list[int], edges: Edges, workers: int) -> list[Shard]:
    """The samples still to do, in about four shards a worker."""
    if job.source is None:
        raise InputError("other processes need a model that lies in a file", where="calibrate")
    count = min(len(todo), workers * SHARDS_A_WORKER)
    return [
        Shard(
            job.source.absolute(),
            job.plan,
            tuple(part),
            tuple(job.samples[index] for index in part),
            len(job.samples),
            job.capacity,
            edges,
            job.follow_links,
        )
        for part in (todo[start::count] for start in range(count))
    ]


def _local(workers: int) -> Engine:
    def engine(job: Job, todo: list[int], edges: Edges) -> Iterator[Partial]:
        if not todo:
            return
        # spawned, not forked: a forked runtime deadlocks on the threads that it lost
        with ProcessPoolExecutor(min(workers, len(todo)), mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(run_shard, shard) for shard in shards_of(job, todo, edges, workers)]):
                yield done.result()

    return engine


def _dask(address: str) -> Engine:
    def engine(job: Job, todo: list[int], edges: Edges) -> Iterator[Partial]:
        if not todo:
            return
        client = _client(address)
        try:
            workers = max(1, len(client.scheduler_info()["workers"]))
            from distributed import as_completed as completed  # pyright: ignore[reportMissingImports]

            for done in completed(client.map(run_shard, shards_of(job, todo, edges, workers), pure=False)):
                yield done.result()
        finally:
            client.close()

    return engine


def _client(address: str) -> Any:
    try:
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError("dask is not installed", hint="pip install 'onnx-llm-passes[dask]'") from None
    try:
        return Client(address, timeout=f"{os.environ.get('ONNX_PASSES_DASK_TIMEOUT', '10')}s")
    except OSError as error:
        raise UsageError("no Dask scheduler answers", found=address, hint=str(error)[:120]) from None
