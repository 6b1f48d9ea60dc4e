"""Opens an onnxruntime session for a graph in memory: deterministic, one thread, weights by reference, typed errors."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError
from .known_faults import fault_of
from .memory import outgrows

MAX_PROTO = (1 << 31) - 1
_NO_KERNEL = re.compile(
    r"implementation for (\S+)\(|Fatal error: (\S+) is not a registered|No Op registered for (\S+) "
)
_FOLDER = "session.model_external_initializers_file_folder_path"


class Optimization(enum.Enum):
    """What onnxruntime may do to a graph before it runs; the value is the name of its level."""

    NONE = "ORT_DISABLE_ALL"
    BASIC = "ORT_ENABLE_BASIC"
    ALL = "ORT_ENABLE_ALL"

    @property
    def label(self) -> str:
        """As `--ort-optimization` spells it."""
        return self.name.lower()


_CHOSEN: ContextVar[Optimization] = ContextVar("optimization", default=Optimization.NONE)


@contextmanager
def optimized(level: Optimization) -> Iterator[None]:
    """Every session that is opened inside, and names no level of its own, is opened at this one."""
    token = _CHOSEN.set(level)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


_MAPPED: ContextVar[bool] = ContextVar("mapped", default=False)


@contextmanager
def mapped_weights() -> Iterator[None]:
    """Sessions that are opened inside read weights where their files are mapped, and keep no copy in another order.

    For few runs a graph: onnxruntime (1.32.0) packs each product's weights for its kernel when it opens a session, a
    copy of about all of them that pays off over many runs. Weights beyond half of the free memory are read so always.
    """
    token = _MAPPED.set(True)
    try:
        yield
    finally:
        _MAPPED.reset(token)


def chosen_optimization() -> Optimization:
    """The level at which sessions are opened here; operators as spelled, where nothing else was asked for."""
    return _CHOSEN.get()


class KernelMissing(OnnxPassesError):
    """The CPU runtime has no kernel for an operator of the graph, or a wrong one; ``operator`` names it."""

    def __init__(self, operator: str, where: str, what: str = "") -> None:
        self.operator = operator
        super().__init__(what or f"onnxruntime has no CPU kernel for {operator}", where=where)


class SessionError(OnnxPassesError):
    """onnxruntime refuses the graph itself."""


class RunError(OnnxPassesError):
    """onnxruntime refuses these inputs, or fails while it computes."""


def load_onnxruntime() -> Any:
    """The module, imported so that it writes nothing to the disk.

    Releases from the package index (1.32.0) keep a store of telemetry under the home and temp folders from their
    import on, unless ORT_DISABLE_TELEMETRY is 1 by then; a user who set the variable keeps what was set.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class Session:
    """Runs one graph; by default its operators as spelled, so that two graphs are compared and not two fusions.

    ``optimization`` is what `optimized` says where none is given: one level for everything that a command runs;
    ``without`` names onnxruntime's optimizers that are left out.

    Raises KernelMissing where the CPU cannot run an operator, SessionError where the graph is refused otherwise.
    """

    def __init__(
        self,
        model: ir.Model,
        name: str = "graph",
        optimization: Optimization | None = None,
        *,
        threads: int = 1,
        without: Sequence[str] = (),
    ) -> None:
        onnxruntime = load_onnxruntime()
        self.name = name
        if fault := fault_of(model, onnxruntime.__version__):
            raise KernelMissing("Attention", name, fault)
        mapped = _MAPPED.get() or outgrows(model)
        options = session_options(onnxruntime, optimization or chosen_optimization(), threads, mapped=mapped)
        # the options keep no reference to the arrays: this object does, as long as the session lives
        self._weights = _bind_weights(onnxruntime, model, options)
        try:
            content = ir.to_proto(model).SerializeToString()
        except ValueError as error:
            raise SessionError(
                "the graph is too large to be run from memory", where=name, hint="Save it first."
            ) from error
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
            )
        except Exception as error:  # the binding's exceptions share no base class
            raise _session_error(name, str(error)) from error
        self.input_names: list[str] = [value.name for value in self._session.get_inputs()]
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray], wanted: list[str] | None = None) -> dict[str, np.ndarray]:
        """Computes every output, or those wanted. Raises RunError with onnxruntime's own words."""
        try:
            results = self._session.run(wanted, dict(inputs))
        except Exception as error:  # the binding's exceptions share no base class
            raise RunError(_first_line(str(error)), where=self.name) from error
        return dict(zip(wanted or self.outputs, results, strict=True))


def session_options(onnxruntime: Any, optimization: Optimization, threads: int = 1, *, mapped: bool = False) -> Any:
    """In order, nothing logged; activations of a weight-only product stay what the graph says; no copy if ``mapped``.

    From its extended optimizations on, onnxruntime (1.32.0) makes DequantizeLinear of a weight and MatMul one
    MatMulNBits that rounds activations to 8 bits, unless the session asks for accuracy level 0.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, optimization.value)
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if mapped:
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    return options


def _bind_weights(onnxruntime: Any, model: ir.Model, options: Any) -> list[Any]:
    """Tells the session where external weights lie: their one folder; where there are several, the mapped arrays."""
    external = [
        (value.name or "", value.const_value)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]
    if not external:
        return []
    folders = {str(Path(tensor.base_dir or ".").resolve()) for _, tensor in external}
    if len(folders) == 1:
        options.add_session_config_entry(_FOLDER, folders.pop())
        return []
    held = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy()) for _, tensor in external]
    options.add_external_initializers([name for name, _ in external], held)
    return held


def _session_error(name: str, message: str) -> OnnxPassesError:
    found = _NO_KERNEL.search(message)
    if found:
        return KernelMissing(next(group for group in found.groups() if group).rstrip(":"), name)
    return SessionError(f"onnxruntime refuses the graph: {_first_line(message)}", where=name)


def _first_line(message: str) -> str:
    text = re.sub(r"^\[ONNXRuntimeError\]\s*:\s*\d+\s*:\s*\w+\s*:\s*", "", message.strip())
    return re.sub(r"\S*/onnxruntime/\S+\.(?:cc|h):\d+\s*", "", text.splitlines()[0])[:400]
