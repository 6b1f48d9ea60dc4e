"""The tables: what is run, on which graph, and what ratio is wanted of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Place:
    """Where one graph lies: ``folder/source/model.onnx`` with its weights beside it; results go into ``folder``."""

    folder: Path

    @property
    def source(self) -> Path:
        """The graph that every job reads."""
        return self.folder / "source" / "model.onnx"

    @property
    def weights(self) -> Path:
        """The graph's weight file."""
        return self.source.with_name("weights.data")

    @property
    def peer_output(self) -> Path:
        """What a peer writes: beside the source, so that its references to the weights stay right."""
        return self.source.with_name("peer.onnx")


class Group(Enum):
    """Jobs that are compared with each other run in turn, on one graph."""

    START = "starting up"
    STRIP = "strip"
    SIMPLIFY = "strip and simplify"
    CLONE = "five decode clones"
    CHECK = "check eight specializations"


@dataclass(frozen=True)
class Job:
    """One command: its key in the tables, what it is called, and its arguments for a place."""

    key: str
    title: str
    group: Group
    arguments: Callable[[Place], list[str]]
    slow: bool = False
    ours: bool = False


def _passes(*words: str) -> Callable[[Place], list[str]]:
    def arguments(place: Place) -> list[str]:
        known = {"MODEL": str(place.source), "OUT": str(place.folder)}
        return ["-m", "onnx_llm_passes", *(known.get(word, word) for word in words)]

    return arguments


def _run(pipeline: str, *options: str) -> Callable[[Place], list[str]]:
    return _passes("run", pipeline, "MODEL", "-o", "OUT", *options)


def _peer(script: str, *options: str) -> Callable[[Place], list[str]]:
    path = str(HERE / "peers" / f"{script}.py")
    return lambda place: [path, str(place.source), str(place.peer_output), *options]


def _proof(place: Place) -> list[str]:
    return [str(HERE / "proof.py"), "check", str(place.source)]


JOBS = (
    Job("import", 'python -c "import onnx_ir"', Group.START, lambda _: ["-c", "import onnx_ir"]),
    Job("help", "onnx-passes --help", Group.START, _passes("--help"), ours=True),
    Job("list", "onnx-passes list", Group.START, _passes("list"), ours=True),
    Job("protobuf", "protobuf load + save", Group.STRIP, _peer("floor_protobuf")),
    Job("floor", "onnx_ir load + save", Group.STRIP, _peer("floor_onnx_ir")),
    Job("floor-off", "onnx_ir load + save, collector off", Group.STRIP, _peer("floor_onnx_ir", "--collector-off")),
    Job("strip-bare", "run strip-states --no-shapes", Group.STRIP, _run("strip-states", "--no-shapes"), ours=True),
    Job("strip", "run strip-states", Group.STRIP, _run("strip-states"), ours=True),
    Job("strip-protobuf", "by hand: protobuf + onnx shapes", Group.STRIP, _peer("strip_protobuf")),
    Job("strip-surgeon", "by hand: graphsurgeon + onnx shapes", Group.STRIP, _peer("strip_surgeon")),
    Job("strip-onnx-ir", "by hand: onnx_ir + onnx-shape-inference", Group.STRIP, _peer("strip_onnx_ir")),
    Job("strip-onnx-ir-bare", "by hand: onnx_ir, no shapes", Group.STRIP, _peer("strip_onnx_ir", "--no-shapes")),
    Job(
        "simplify-floor",
        "onnx_ir load + save, collector off",
        Group.SIMPLIFY,
        _peer("floor_onnx_ir", "--collector-off"),
    ),
    Job("simplify", "run strip-states,simplify", Group.SIMPLIFY, _run("strip-states,simplify"), ours=True),
    Job(
        "simplify-bare",
        "run strip-states,simplify --no-shapes",
        Group.SIMPLIFY,
        _run("strip-states,simplify", "--no-shapes"),
        ours=True,
    ),
    Job(
        "simplify-surgeon",
        "by hand: graphsurgeon, folded",
        Group.SIMPLIFY,
        _peer("strip_surgeon", "--simplify"),
        slow=True,
    ),
    Job(
        "simplify-onnx-ir", "by hand: onnx_ir, folded", Group.SIMPLIFY, _peer("strip_onnx_ir", "--simplify"), slow=True
    ),
    Job("onnxsim", "onnxsim (keeps the cache)", Group.SIMPLIFY, _peer("simplify_onnxsim"), slow=True),
    Job("onnxslim", "onnxslim (keeps the cache)", Group.SIMPLIFY, _peer("simplify_onnxslim"), slow=True),
    Job(
        "onnxruntime",
        "onnxruntime basic level (keeps the cache)",
        Group.SIMPLIFY,
        _peer("simplify_onnxruntime"),
        slow=True,
    ),
)
JOBS += (
    Job("clone-floor", "onnx_ir load + save", Group.CLONE, _peer("floor_onnx_ir")),
    Job("clone", "run clone-decode", Group.CLONE, _run("clone-decode{k=0,1,2,4,8 ctx=512}"), ours=True),
    Job("clone-protobuf", "by hand: protobuf + onnx shapes, five", Group.CLONE, _peer("clone_protobuf")),
    Job("clone-surgeon", "by hand: graphsurgeon + onnx shapes, five", Group.CLONE, _peer("clone_surgeon")),
    Job(
        "clone-onnx-ir",
        "by hand: onnx_ir + onnx-shape-inference, five",
        Group.CLONE,
        _peer("clone_onnx_ir"),
        slow=True,
    ),
)
JOBS += (
    Job("check-floor", "onnx_ir load + save", Group.CHECK, _peer("floor_onnx_ir")),
    Job("check", "check, eight specializations", Group.CHECK, _proof, ours=True),
    Job("check-onnx", "onnx.shape_inference, eight times", Group.CHECK, _peer("infer_onnx", "8")),
    Job("check-onnx-ir", "onnx-shape-inference, eight times", Group.CHECK, _peer("infer_onnx_ir", "8"), slow=True),
)
BY_KEY = {job.key: job for job in JOBS}


@dataclass(frozen=True)
class Wanted:
    """A ratio of two jobs of one group; ``bound`` is its limit where the graph is the deepest of the second style."""

    over: str
    under: str
    bound: float
    measure: str = "seconds"
    at_least: bool = False

    @property
    def title(self) -> str:
        """How the ratio reads."""
        kind = "peak memory of " if self.measure == "peak_mb" else ""
        return f"{kind}{BY_KEY[self.over].title} / {BY_KEY[self.under].title}"

    @property
    def limit(self) -> str:
        """How the bound reads."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"

    def holds(self, ratio: float) -> bool:
        """Whether a ratio keeps the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound


WANTED = (
    Wanted("help", "import", 1.6),
    Wanted("list", "import", 1.6),
    Wanted("strip-bare", "floor-off", 1.3),
    Wanted("strip", "floor-off", 1.8),
    Wanted("strip-surgeon", "strip", 1.5, at_least=True),
    Wanted("strip-onnx-ir", "strip", 2.0, at_least=True),
    Wanted("strip", "floor", 1.5, "peak_mb"),
    Wanted("strip-bare", "floor", 1.5, "peak_mb"),
    Wanted("simplify", "simplify-floor", 2.5),
    Wanted("onnxslim", "simplify", 3.0, at_least=True),
    Wanted("onnxsim", "simplify", 3.0, at_least=True),
    Wanted("simplify", "simplify-floor", 1.5, "peak_mb"),
    Wanted("clone", "clone-protobuf", 2.5),
    Wanted("clone-onnx-ir", "clone", 10.0, at_least=True),
    Wanted("clone-surgeon", "clone", 5.0, at_least=True),
    Wanted("clone", "clone-floor", 2.0, "peak_mb"),
    Wanted("check", "check-onnx", 1.0),
    Wanted("check", "check-onnx-ir", 0.1),
    Wanted("check", "check-floor", 1.5, "peak_mb"),
)


def command(job: Job, place: Place) -> list[str]:
    """The argument vector that runs a job."""
    return [sys.executable, *job.arguments(place)]
