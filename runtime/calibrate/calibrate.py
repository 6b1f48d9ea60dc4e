"""Calibration records what each tensor of a graph holds while real texts run through it in chunks."""

from __future__ import annotations

import enum
import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...ir.core.encoding import Calibration
from ...ir.core.errors import InputError
from ...ir.core.histogram import Histogram
from ...ir.program.program import Program
from ...ir.quantization import EncodingTable, Evidence, NoEvidence
from .feed import Feeder, graph_of
from .rows import feeder_of, keep_to
from .watch import BINS, MASK_FLOOR, ROWS, SCORE_ROOM, Watch, counts, envelope_of, high, low, watch

SAVE_EVERY = 5.0  # seconds between two writings of the progress


class Method(enum.Enum):
    """How a range is chosen from what was seen."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


class Envelope(enum.Enum):
    """How the range of rotated keys is known."""

    NONE = "none"
    PAIR_NORM = "pair-norm"


@dataclass(frozen=True)
class Plan:
    """What decides the numbers of a calibration; two runs of one plan on one model and texts agree bit for bit."""

    method: Method = Method.MINMAX
    chunk: int = 256
    envelope: Envelope = Envelope.NONE
    percentile: float = 99.99

    def chooser(self) -> str:
        """The method as evidence with a histogram tells it: a grid's range is chosen once its bits are known."""
        share = f" {self.percentile:g}" if self.method is Method.PERCENTILE else ""
        return "" if self.method is Method.MINMAX else self.method.value + share


@dataclass
class Partial:
    """What some of the samples said: bounds, or histograms between fixed edges. Merging is associative and exact."""

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    done: np.ndarray
    rows: np.ndarray  # for how many tokens the graph gave an answer

    @classmethod
    def empty(cls, tensors: int, samples: int, *, bins: int = 0) -> Partial:
        """Nothing seen yet."""
        return cls(
            np.full(tensors, np.inf, np.float32),
            np.full(tensors, -np.inf, np.float32),
            np.zeros((tensors, bins), np.int64),
            np.zeros(samples, bool),
            np.zeros(1, np.int64),
        )

    def merge(self, other: Partial) -> Partial:
        """Both together; NaN wins over every bound."""
        return Partial(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.counts + other.counts,
            self.done | other.done,
            self.rows + other.rows,
        )


@dataclass(eq=False)
class Worker:
    """One graph with its session, ready to look at samples; made once in each process."""

    feeder: Feeder
    plan: Plan
    edges: list[tuple[float, float]] | None
    total: int
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        """Opens the session on the watched copy."""
        envelope = self.plan.envelope is Envelope.PAIR_NORM
        self.watch = watch(self.feeder.model, self.feeder.states, self.edges, envelope=envelope)
        self.feeder.host.open(self.watch.model)

    def look(self, index: int, tokens: np.ndarray) -> Partial:
        """What one sample says."""
        names = self.watch.names
        seen = Partial.empty(len(names), self.total, bins=0 if self.edges is None else BINS + 1)
        for _, results in self.feeder.feed(tokens):
            seen.rows += results[ROWS][1] if ROWS in results and len(results[ROWS]) == 3 else 0
            self._refuse_nan(results, index)
            if self.edges is None:
                seen.low = np.minimum(seen.low, _vector(results, low, len(names)))
                seen.high = np.maximum(seen.high, _vector(results, high, len(names)))
            else:
                seen.counts += np.stack([results[counts(i)] for i in range(len(names))])
        seen.done[index] = True
        return seen

    def _refuse_nan(self, results: dict[str, np.ndarray], sample: int) -> None:
        for output, name in self.watch.sound.items():
            if output in results and results[output] == 1.0:
                raise NoEvidence(
                    f"tensor {name!r} holds a NaN", where=f"calibrate, sample {sample}", wanted="finite numbers"
                )


def _vector(results: dict[str, np.ndarray], name: Callable[[int], str], count: int) -> np.ndarray:
    return np.array([results[name(i)] for i in range(count)], np.float32).reshape(-1)


Progress = Callable[[str, int, int], None]
Engine = Callable[["Job", list[int], "list[tuple[float, float]] | None"], Iterator[Partial]]


@dataclass(eq=False)
class Job:
    """One calibration: the graph, the texts, the plan; ``source`` lets other processes load the graph themselves."""

    model: ir.Model
    samples: Sequence[np.ndarray]
    plan: Plan
    source: Path | None = None
    digest: str = ""
    follow_links: bool = False

    @property
    def capacity(self) -> int:
        """The rows that caches written in place are given: the longest text, in every shard."""
        return max(len(sample) for sample in self.samples)

    def worker(self, edges: list[tuple[float, float]] | None) -> Worker:
        """A worker on this graph."""
        return Worker(feeder_of(self.model, self.plan.chunk, self.capacity), self.plan, edges, len(self.samples))

    def key(self, phase: int) -> str:
        """What identifies this job's progress: the model, the texts, the plan."""
        seen = hashlib.sha256(f"{self.digest} {self.plan} {phase}".encode())
        for sample in self.samples:
            seen.update(np.asarray(sample, np.int64).tobytes() + b";")
        return seen.hexdigest()


def in_process(job: Job, todo: list[int], edges: list[tuple[float, float]] | None) -> Iterator[Partial]:
    """The engine of one process: sample after sample."""
    worker = job.worker(edges)
    for index in todo:
        yield worker.look(index, job.samples[index])


def calibrate(
    program: Program,
    samples: Sequence[np.ndarray],
    plan: Plan | None = None,
    *,
    engine: Engine = in_process,
    progress: Path | None = None,
    on_progress: Progress | None = None,
    follow_links: bool = False,
    graph: str | None = None,
) -> EncodingTable:
    """The ranges of every float tensor of one graph over all samples: of ``graph``, or of the program's prefill.

    Clones have the same names: what one shows holds for all. ``progress`` is a file that a killed run goes on from; the
    result is the same. Raises PassRefused for a graph that cannot be fed chunk by chunk, InputError for texts that do
    not fit it.
    """
    plan = plan or Plan()
    name = graph_of(program, graph)
    origin = next((origin for origin in program.origins if origin.graph == name), None)
    source, digest = (origin.path, origin.sha256) if origin is not None else (None, "")
    job = Job(program.graph(name), samples, plan, source, digest, follow_links)
    feeder = _check(job)
    checkpoint = _Checkpoint(progress, on_progress)
    plain = watch(feeder.model, feeder.states, envelope=plan.envelope is Envelope.PAIR_NORM)
    seen = checkpoint.run(job, engine, None, len(plain.names))
    edges = [(float(a), float(b)) if a <= b else (0.0, 0.0) for a, b in zip(seen.low, seen.high, strict=True)]
    counted: Partial | None = None
    if plan.method is not Method.MINMAX:
        named = zip(plain.names, edges, strict=True)
        edges = [(max(a, MASK_FLOOR) if name in plain.masks else a, b) for name, (a, b) in named]
        _check_finite(plain.names, edges)
        counted = checkpoint.run(job, engine, edges, len(plain.names))
    table = _table(plain, seen, counted, plan)
    keep_to(job.model, table)
    table.calibration = _calibration(name, feeder, samples, plan, plain, seen)
    checkpoint.forget()
    return table


def _check(job: Job) -> Feeder:
    if not job.samples:
        raise InputError("holds no text", where="the tokens", wanted="at least one sample")
    feeder = feeder_of(job.model, job.plan.chunk, job.capacity)
    for index, sample in enumerate(job.samples):
        limit = feeder.host.vocabulary
        if sample.min(initial=0) < 0 or (limit is not None and sample.max(initial=0) >= limit):
            found = f"{sample.min()} to {sample.max()}"
            what = f"sample {index} holds a token that the vocabulary has not"
            raise InputError(what, found=found, wanted=f"0 to {limit}")
    if not any(feeder.usable(len(sample)) for sample in job.samples):
        raise InputError("no text is long enough", where="the tokens", wanted=f"at least {feeder.chunk} tokens")
    return feeder


def _check_finite(names: Sequence[str], edges: Sequence[tuple[float, float]]) -> None:
    from ...ir.quantization.grid import no_evidence

    for name, (first, last) in zip(names, edges, strict=True):
        if not (np.isfinite(first) and np.isfinite(last)):
            raise no_evidence(name, Evidence(first, last))


def _table(plain: Watch, seen: Partial, counted: Partial | None, plan: Plan) -> EncodingTable:
    table = EncodingTable()
    for index, name in enumerate(plain.names):
        first, last = float(seen.low[index]), float(seen.high[index])
        if abs(first) >= np.finfo(np.float32).max and abs(last) >= np.finfo(np.float32).max:
            first, last = float("inf"), float("-inf")  # every entry was masked
        held: Histogram | None = None
        if counted is not None and first < last:
            edge = max(first, MASK_FLOOR) if name in plain.masks else first
            held = Histogram.of(counted.counts[index][:BINS], edge, last)
        if name in plain.masks:
            first = max(first, MASK_FLOOR) if last > MASK_FLOOR else first
            first = MASK_FLOOR if name in plain.added else first
        if name in plain.scores and first <= last:
            first -= SCORE_ROOM
        table.ranges[name] = Evidence(first, last, method=plan.chooser() if held else "", histogram=held)
    _widen_by_pairs(table, [name for name in plain.names if envelope_of(name) in table.ranges])
    return table


def _widen_by_pairs(table: EncodingTable, keys: Sequence[str]) -> None:
    """Rotated keys reach, at some position, the norm of their pair in both directions."""
    for key in keys:
        reach = table.ranges.pop(envelope_of(key)).high
        if np.isfinite(reach) and reach > 0:
            table.ranges[key] = Evidence(-reach, reach)


def _calibration(
    graph: str, feeder: Feeder, samples: Sequence[np.ndarray], plan: Plan, plain: Watch, seen: Partial
) -> Calibration:
    used = [feeder.usable(len(sample)) for sample in samples]
    clamped = [n for n, a in zip(plain.names, seen.low, strict=True) if n in plain.masks and a < MASK_FLOOR]
    return Calibration(
        graph=graph,
        method=plan.method.value,
        chunk=feeder.chunk,
        samples=len(samples),
        tokens=sum(used),
        left_out=sum(len(sample) for sample in samples) - sum(used),
        longest=max(used),
        answers=int(seen.rows[0]),
        k_envelope=plan.envelope.value,
        clamped=tuple(clamped),
    )


class _Checkpoint:
    """Merges what engines give and keeps it on disk, so that a killed run goes on where it was."""

    def __init__(self, path: Path | None, on_progress: Progress | None) -> None:
        self.path = path
        self.on_progress = on_progress
        self.written: list[Path] = []

    def run(self, job: Job, engine: Engine, edges: list[tuple[float, float]] | None, tensors: int) -> Partial:
        """All samples of one phase, those already done left out."""
        phase = 1 if edges is None else 2
        total = Partial.empty(tensors, len(job.samples), bins=0 if edges is None else BINS + 1)
        file = self.path.with_name(f"{self.path.name}.{phase}.npz") if self.path is not None else None
        total = _restore(file, job.key(phase), total)
        last = time.monotonic()
        title = f"calibrating, pass {phase} of {1 if job.plan.method is Method.MINMAX else 2}"
        if self.on_progress is not None:
            self.on_progress(title, int(total.done.sum()), len(job.samples))
        try:
            for part in engine(job, [int(i) for i in np.flatnonzero(~total.done)], edges):
                total = total.merge(part)
                if self.on_progress is not None:
                    self.on_progress(title, int(total.done.sum()), len(job.samples))
                if time.monotonic() - last > SAVE_EVERY:
                    _keep(file, job.key(phase), total)
                    last = time.monotonic()
        finally:
            _keep(file, job.key(phase), total)
        self.written += [file] if file is not None else []
        return total

    def forget(self) -> None:
        """The result is there: the progress goes."""
        for file in self.written:
            file.unlink(missing_ok=True)


def _keep(file: Path | None, key: str, partial: Partial) -> None:
    if file is None:
        return
    beside = file.with_name(f".{file.name}.tmp")
    with beside.open("wb") as out:
        np.savez(out, key=np.array(json.dumps(key)), **vars(partial))
    beside.replace(file)


def _restore(file: Path | None, key: str, fresh: Partial) -> Partial:
    """What an interrupted run of the same job left; ``fresh`` where there is none, or another's, or a broken file."""
    if file is None or not file.is_file():
        return fresh
    try:
        with np.load(file, allow_pickle=False) as stored:
            if json.loads(str(stored["key"])) != key:
                return fresh
            found = Partial(**{name: stored[name] for name in vars(fresh)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return fresh
    pairs = [(getattr(found, name), array) for name, array in vars(fresh).items()]
    return found if all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs) else fresh
