"""Builds a graph, runs the jobs on it in interleaved rounds, and checks that nobody read the weights."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import pages
from .jobs import BY_KEY, Group, Job, Place, Wanted, command
from .measure import Cost, Limits, run

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0  # a job that took longer than this is not run again


@dataclass
class Series:
    """The costs of the jobs of one group on one graph; one list a job, one entry a round."""

    group: Group
    style: str
    layers: int
    nodes: int
    costs: dict[str, list[Cost]] = field(default_factory=dict[str, list[Cost]])

    def ratios(self, wanted: Wanted) -> list[float]:
        """The ratio of each round in which both jobs ran; a job that was stopped counts as at least that slow."""
        pairs = zip(self.costs.get(wanted.over, []), self.costs.get(wanted.under, []), strict=False)
        return [
            getattr(over, wanted.measure) / getattr(under, wanted.measure)
            for over, under in pairs
            if not under.failure and usable(over, wanted)
        ]

    def median(self, key: str, measure: str = "seconds") -> float:
        """The median of a job over its good rounds; NaN without one."""
        good = [getattr(cost, measure) for cost in self.costs.get(key, []) if not cost.failure]
        return statistics.median(good) if good else float("nan")


def usable(cost: Cost, wanted: Wanted) -> bool:
    """A failed run gives no ratio, except a run out of time, which is a lower bound of one."""
    stopped_late = cost.failure.startswith("stopped after") and wanted.at_least and wanted.measure == "seconds"
    return not cost.failure or stopped_late


def prepare(work: Path, style: str, layers: int, weights: str) -> tuple[Place, int]:
    """Writes a graph in a process of its own (this one stays small) and returns its place and number of nodes."""
    place = Place(work / f"{style}-{layers}-{weights}")
    where = str(place.source.parent)
    options = ["--style", style, "--layers", str(layers), "--weights", weights]
    subprocess.run([sys.executable, "-m", "bench.graphs", where, *options], cwd=ROOT, check=True)
    count = "import onnx, sys; print(len(onnx.load(sys.argv[1], load_external_data=False).graph.node))"
    words = [sys.executable, "-c", count, str(place.source)]
    found = subprocess.run(words, check=True, capture_output=True, text=True)
    return place, int(found.stdout)


def clean(place: Place) -> None:
    """Takes away what an earlier run wrote, so that every run writes anew."""
    for item in place.folder.iterdir():
        if item.is_dir() and item != place.source.parent:
            shutil.rmtree(item)
        elif item.is_file():
            item.unlink()
    for item in place.source.parent.iterdir():
        if item not in (place.source, place.weights):
            item.unlink()


@dataclass(frozen=True)
class Rules:
    """How often, how long, and who is told."""

    rounds: int
    limits: Limits
    tell: Callable[[str], None]


def interleave(series: Series, jobs: Iterable[Job], place: Place, rules: Rules) -> None:
    """Runs every job once a round, each round starting one job later; a slow job runs until it was slow once."""
    chosen = list(jobs)
    for number in range(rules.rounds):
        turn = number % len(chosen)
        for job in chosen[turn:] + chosen[:turn]:
            costs = series.costs.setdefault(job.key, [])
            if costs and (costs[-1].seconds > PATIENCE or costs[-1].failure):
                continue
            rules.tell(f"{series.group.value} {series.layers or ''} {number + 1}/{rules.rounds}: {job.title}")
            clean(place)
            costs.append(run(command(job, place), cwd=place.folder.parent, limits=rules.limits))


@dataclass
class Growth:
    """One job on graphs of one style and growing depth: nodes and processor seconds by depth, one entry a round."""

    title: str
    style: str
    nodes: dict[int, int]
    seconds: dict[int, list[float]]

    def ratios(self, first: int, last: int) -> list[float]:
        """Round by round: how the time per node between two depths compares, the smallest graph's time taken off."""
        base = min(self.nodes)
        nodes = (self.nodes[last] - self.nodes[base]) / (self.nodes[first] - self.nodes[base])
        rounds = zip(self.seconds[base], self.seconds[first], self.seconds[last], strict=True)
        return [(deep - small) / (shallow - small) / nodes for small, shallow, deep in rounds]


def grow(jobs: Iterable[Job], style: str, places: dict[int, tuple[Place, int]], rules: Rules) -> Iterator[Growth]:
    """Runs each job on every depth in turn, so that all depths see the same minute."""
    nodes = {layers: count for layers, (_, count) in places.items()}
    for job in jobs:
        growth = Growth(job.title, style, nodes, {layers: [] for layers in places})
        for number in range(rules.rounds):
            rules.tell(f"growth, {style} {number + 1}/{rules.rounds}: {job.title}")
            for layers, (place, _) in places.items():
                clean(place)
                cost = run(command(job, place), cwd=place.folder.parent, limits=rules.limits)
                growth.seconds[layers].append(float("nan") if cost.failure else cost.cpu_seconds)
        yield growth


@dataclass(frozen=True)
class WeightCheck:
    """How much of the weight file one job touched, and what ``strace`` saw, where it is installed."""

    title: str
    weight_bytes: int
    resident_bytes: int
    read_bytes: int
    calls: tuple[str, ...] | None
    failure: str


def check_weights(keys: Iterable[str], place: Place, limits: Limits) -> Iterator[WeightCheck]:
    """Runs each job once more with the weight file out of the cache and looks at which of its pages are in it after."""
    for key in keys:
        words = command(BY_KEY[key], place)
        clean(place)
        pages.drop(place.weights)
        cost = run(words, cwd=place.folder.parent, limits=limits)
        resident = pages.resident_bytes(place.weights)
        calls = traced_calls(words, place)
        size = place.weights.stat().st_size
        yield WeightCheck(BY_KEY[key].title, size, resident, cost.read_bytes, calls, cost.failure)


def traced_calls(words: list[str], place: Place) -> tuple[str, ...] | None:
    """The system calls that read or mapped the weight file; None without ``strace``."""
    if not shutil.which("strace"):
        return None
    clean(place)
    log = place.folder.parent / "strace.txt"
    calls = "read,pread64,readv,preadv,mmap,sendfile,copy_file_range"
    trace = ["strace", "-f", "-qq", "-e", f"trace={calls}", "-P", str(place.weights), "-o", str(log), *words]
    subprocess.run(trace, cwd=place.folder.parent, capture_output=True, check=False)
    return tuple(line.split(maxsplit=1)[-1] for line in log.read_text().splitlines() if "(" in line)


def imports_of(job: Job, place: Place) -> set[str]:
    """The top-level packages that a job's process imports; raises where the job itself fails."""
    words = [sys.executable, "-X", "importtime", *job.arguments(place)]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = [line.rsplit("|", 1)[-1].strip() for line in found.stderr.splitlines() if line.startswith("import time:")]
    return {line.split(".")[0] for line in lines}
