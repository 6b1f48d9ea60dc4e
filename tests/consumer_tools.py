"""Compilers and runtimes beside onnxruntime: each reads a graph of static shapes from its file and computes it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.decode.cases import Padding, make_case
from onnx_llm_passes.runtime.decode.host import Caches, Host
from onnx_llm_passes.runtime.decode.inputs import build_inputs

STEPS = 3
PLAIN = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""OpenVINO as the operators say; by default (2026.4.1) activations before int4 weights are rounded to 8 bits."""
TELLING = ("error:", "not supported", "no conversion")  # words of the line that says what is refused
CLOSE = 1e-5  # of the largest value of an output, and of 1 where that is smaller
HALF = 1e-3  # likewise for outputs of half precision: one step
Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Arrays]


@dataclass(frozen=True)
class Consumer:
    """A runtime: the modules that it needs, whose version is told, what opens a file with it, what graphs lower to."""

    name: str
    modules: tuple[str, ...]
    package: str
    open: Callable[[Path], Run]
    target: str

    @property
    def missing(self) -> str:
        """Why it cannot be used here; empty where it can."""
        gone = [name for name in self.modules if not _installed(name)]
        return f"{', '.join(gone)} is not installed (extra `consumers`)" if gone else ""

    @property
    def version(self) -> str:
        """Its name and version."""
        return f"{self.name} {importlib.metadata.version(self.package)}"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _openvino(path: Path) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", PLAIN)
    known = {name for port in compiled.inputs for name in port.names}

    def run(feed: Mapping[str, np.ndarray]) -> Arrays:
        results = compiled({name: array for name, array in feed.items() if name in known})
        return {name: np.asarray(results[port]) for port in compiled.outputs for name in port.names}

    return run


def _iree(path: Path) -> Run:
    import iree.compiler
    import iree.runtime

    flags = ["--iree-llvmcpu-target-cpu=host", "--iree-input-demote-i64-to-i32=false"]
    binary = iree.compiler.compile_str(_mlir(path), target_backends=["llvm-cpu"], extra_args=flags)
    config = iree.runtime.Config("local-sync")
    module = iree.runtime.load_vm_module(iree.runtime.VmModule.copy_buffer(config.vm_instance, binary), config)
    inputs, outputs = _ports(path)
    names = [name for name in module.vm_module.function_names if not name.startswith("__") and "$async" not in name]
    function = getattr(module, names[0])

    def run(feed: Mapping[str, np.ndarray]) -> Arrays:
        results = function(*[np.ascontiguousarray(feed[name]) for name in inputs])
        several = results if isinstance(results, (tuple, list)) else [results]
        return {name: result.to_host() for name, result in zip(outputs, several, strict=True)}

    return run


def _ports(path: Path) -> tuple[list[str], list[str]]:
    """The inputs and outputs of a file in order, for runtimes that know them by number."""
    graph = onnx.load(path, load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in held], [value.name for value in graph.output]


def _mlir(path: Path) -> str:
    from iree.compiler.tools.import_onnx import __main__ as importer

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "graph.mlir"
        importer.main(importer.parse_arguments([str(path), "-o", str(out)]))
        return out.read_text(encoding="utf-8")


def _tract(path: Path) -> Run:
    import tract

    runnable = tract.onnx().load(str(path)).into_model().into_runnable()
    inputs, outputs = _ports(path)

    def run(feed: Mapping[str, np.ndarray]) -> Arrays:
        results = runnable.run([feed[name] for name in inputs])
        return {name: result.to_numpy() for name, result in zip(outputs, results, strict=True)}

    return run


CONSUMERS = {
    consumer.name: consumer
    for consumer in (
        Consumer("openvino", ("openvino",), "openvino", _openvino, "openvino"),
        Consumer("iree", ("iree.compiler", "iree.runtime"), "iree-base-compiler", _iree, "iree"),
        Consumer("tract", ("tract",), "tract", _tract, "standard"),
    )
}


@dataclass(frozen=True)
class Answer:
    """What a consumer made of one graph: the largest difference over outputs and steps, or why it was not taken."""

    graph: str
    gap: float = 0.0
    why: str = ""


def answers(program: Program, folder: Path, consumer: Consumer) -> Iterator[Answer]:
    """Opens every graph of a saved program and runs it over three steps beside onnxruntime."""
    for name in program.names:
        played = list(steps(program, name))
        halves = any(array.dtype == np.float16 for _, outputs in played for array in outputs.values())
        try:
            run = consumer.open(folder / f"{name}.onnx")
            worst = max(gap(expected, run(feed)) for feed, expected in played)
        except Exception as error:  # a binding's exceptions share no base class
            yield Answer(name, why=reason(str(error)) or type(error).__name__)
            continue
        close = HALF if halves else CLOSE
        yield Answer(name, worst, "" if worst <= close else f"differs by {worst:.2g} of the largest value")


def steps(program: Program, name: str) -> Iterator[tuple[Arrays, Arrays]]:
    """What a graph is fed and gives on onnxruntime, step by step, its states carried on."""
    host = Host.of(program.graph(name), name)
    batch, width = host.batch or 1, host.length or 1
    if not host.subject.states:
        for seed in range(STEPS):
            feed = build_inputs(host.subject, make_case(batch, width, Padding.FULL, seed))
            yield feed, host.session.run(feed)
        return
    caches, random = Caches(batch), np.random.default_rng(0)
    ids = next(iter(host.subject.tables.values()), 64)
    rows = tuple(range(batch)) if host.chooses_rows else None
    for number in range(STEPS):
        step = host.step(random.integers(0, ids, (batch, width)), number * width, width, rows)
        feed = host.feeds(caches, step)
        outputs = host.session.run(feed)
        host.take(caches, step, outputs)
        yield feed, outputs


def gap(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """The largest difference of any output over its largest value, or over 1; infinite where one is missing."""
    worst = 0.0
    for name, before in expected.items():
        after = found.get(name)
        if after is None or after.shape != before.shape:
            return float("inf")
        if before.size:
            wide = before.astype(np.float64)
            worst = max(worst, float(np.abs(wide - after.astype(np.float64)).max() / max(np.abs(wide).max(), 1.0)))
    return worst


def reason(text: str) -> str:
    """The line of a consumer's message that says what it refuses, without places in files."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if any(word in line.lower() for word in TELLING)]
    line = re.sub(r"^\S+:\d+:\d+: ", "", (told or lines or [""])[0])
    return line.split(": %")[0].strip()[:160]
