"""This build runs beside another checkout: the same commands, alternating, in processor seconds and memory."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .jobs import Place
from .measure import Cost, run
from .report import Table, spread
from .rounds import Rules

OURS = Path(__file__).parent.parent
SPECULATIVE = "speculative{k=0,4 prefill=32 ctx=128}"


@dataclass(frozen=True)
class Compared:
    """One command of both builds: its words, and what its CPU time may be of the other build's, where that is bound.

    ``MODEL`` is the graph, ``OUT`` a folder of the build's own; what a command reads of OUT an earlier row wrote there.
    """

    key: str
    words: tuple[str, ...]
    bound: float | None = None


COMPARED = (
    Compared("single-shot", ("run", "single-shot", "MODEL", "-o", "OUT/single", "--force"), 0.9),
    Compared("speculative", ("run", SPECULATIVE, "MODEL", "-o", "OUT/speculative", "--force"), 0.65),
    Compared("check", ("check", "OUT/speculative"), 0.8),
    Compared("inspect", ("inspect", "MODEL"), 1.0),
)


@dataclass
class Pair:
    """The costs of one command, a list for each build, one entry a round."""

    job: Compared
    ours: list[Cost] = field(default_factory=list[Cost])
    other: list[Cost] = field(default_factory=list[Cost])

    def ratios(self, measure: str) -> list[float]:
        """Ours over the other's, round by round, where both came to an end."""
        rounds = zip(self.ours, self.other, strict=True)
        return [getattr(a, measure) / getattr(b, measure) for a, b in rounds if not a.failure and not b.failure]

    @property
    def failure(self) -> str:
        """Why there is a round without a ratio; empty where there is none."""
        named = (("this build", self.ours), ("the other", self.other))
        return next((f"{name}: {cost.failure}" for name, costs in named for cost in costs if cost.failure), "")

    @property
    def verdict(self) -> str:
        """Whether time and memory keep their bounds."""
        times, peaks = self.ratios("cpu_seconds"), self.ratios("peak_mb")
        if self.job.bound is None or not times:
            return ""
        held = statistics.median(times) <= self.job.bound and statistics.median(peaks) <= 1.05
        return "held" if held else "MISSED"


def compare(other: Path, place: Place, rules: Rules, jobs: Sequence[Compared] = COMPARED) -> list[Pair]:
    """Runs every command of both builds once a round, who is first changing from round to round."""
    pairs = [Pair(job) for job in jobs]
    for number in range(rules.rounds):
        for pair in pairs:
            turns = [(OURS, "ours", pair.ours), (other, "other", pair.other)]
            for build, name, costs in turns[:: -1 if number % 2 else 1]:
                rules.tell(f"{pair.job.key} {number + 1}/{rules.rounds}: {build}")
                out = place.folder / f"against-{name}"
                out.mkdir(parents=True, exist_ok=True)
                costs.append(
                    run(command(pair.job, place, out), cwd=place.folder, limits=rules.limits, extra=of_build(build))
                )
    return pairs


def command(job: Compared, place: Place, out: Path) -> list[str]:
    """The argument vector of a command, whichever build runs it."""
    words = (word.replace("MODEL", str(place.source)).replace("OUT", str(out)) for word in job.words)
    return [sys.executable, "-m", "onnx_llm_passes", *words]


def of_build(build: Path) -> Mapping[str, str]:
    """The environment in which the package is that checkout's: its folder has the package's name."""
    return {"PYTHONPATH": os.pathsep.join((str(build.parent), os.environ.get("PYTHONPATH", "")))}


def checked(other: Path) -> Path:
    """The checkout itself; SystemExit where Python could not import the package out of it."""
    found = other.resolve()
    if found.name != "onnx_llm_passes" or not (found / "__main__.py").is_file():
        raise SystemExit(f"--against {other}: wanted a checkout in a folder called onnx_llm_passes")
    return found


def table(pairs: Sequence[Pair], title: str) -> Table:
    """Processor seconds and peak memory of both, their ratio, and what was wanted."""
    rows: list[tuple[str, ...]] = []
    for pair in pairs:
        seconds = [spread([c.cpu_seconds for c in costs if not c.failure]) for costs in (pair.ours, pair.other)]
        wanted = f"≤ {pair.job.bound:g}" if pair.job.bound is not None else ""
        ratios = (spread(pair.ratios("cpu_seconds")), spread(pair.ratios("peak_mb")))
        rows.append((pair.job.key, *seconds, *ratios, wanted, pair.failure or pair.verdict))
    head = ("command", "CPU s, this build", "the other", "ratio", "peak memory, ratio", "wanted", "")
    return Table(title, head, rows)
