"""The passes that onnx_ir ships are found by introspection, each under its kebab name with the prefix `ir-`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Generator
from typing import Any, ClassVar, cast

import onnx_ir as ir
from onnx_ir.passes import common

from ..ir.core.errors import PassRefused
from ..ir.core.scopes import all_nodes, scopes
from ..ir.rewrite.ownership import mark_unclaimed
from .base import GraphResult, Pass
from .captions import common_ir_passes

_SIMPLE = (bool, int, float, str)  # types of keywords that can be written in pipeline text
_MAY_CHANGE_INPUTS = frozenset({"AddInitializersToInputsPass", "RemoveInitializersFromInputsPass"})

_HANDS_TO_ONNX = frozenset({"CheckerPass", "ShapeInferencePass"})
_SMALL = 1000  # bytes; onnx_ir's own limit


@dataclasses.dataclass(frozen=True)
class CommonPass(Pass):
    """Runs one pass of onnx_ir; its options are the keywords of that pass.

    Failures that the pass only logs become warnings. The names of inputs and outputs are held: a pass that changed
    them (but those made for it) is refused.
    """

    wrapped: ClassVar[type[ir.passes.PassBase]]

    def requires(self, model: ir.Model) -> None:
        """Raises PassRefused where the wrapped pass is known to go wrong."""
        if self.wrapped.__name__ in _CONDITIONS:
            _CONDITIONS[self.wrapped.__name__](model)

    def call(self, model: ir.Model) -> GraphResult:
        """Runs the wrapped pass; raises PassRefused where it fails or changes the graph's interface."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        before = _Snapshot.of(model)
        with _heard("onnx_ir") as warnings, _small_weights_inside(self.wrapped, model):
            modified = _run(self.wrapped(**options), model)
        after = _Snapshot.of(model)
        if self.wrapped.__name__ not in _MAY_CHANGE_INPUTS:
            _check_interface(before, after)
        _tag(self.name, model, before.nodes)
        return GraphResult(model, modified, counts=before.counts(after), warnings=tuple(warnings))


@functools.cache
def common_pass(name: str) -> type[Pass]:
    """The class for a name such as ``ir-checker``; its fields are the simple keywords of the wrapped pass."""
    class_name, _ = common_ir_passes()[name.removeprefix("ir-")]
    wrapped = getattr(common, class_name)
    keywords = inspect.signature(wrapped).parameters.values()
    made = dataclasses.make_dataclass(
        f"Ir{class_name.removesuffix('Pass')}",
        [(key.name, type(key.default), key.default) for key in keywords if isinstance(key.default, _SIMPLE)],
        bases=(CommonPass,),
        namespace={"name": name, "wrapped": wrapped, "__doc__": _docstring(name, wrapped)},
        frozen=True,
    )
    made.__module__ = __name__
    return cast("type[Pass]", made)


@dataclasses.dataclass(frozen=True)
class _Snapshot:
    """What a graph holds, to tell afterwards what a pass did."""

    nodes: dict[int, ir.Node]
    initializers: int
    functions: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]

    @classmethod
    def of(cls, model: ir.Model) -> _Snapshot:
        return cls(
            nodes={id(node): node for node in all_nodes(model)},
            initializers=sum(len(scope.initializers) for scope in scopes(model) if isinstance(scope, ir.Graph)),
            functions=len(model.functions),
            inputs=tuple(value.name for value in model.graph.inputs),
            outputs=tuple(value.name for value in model.graph.outputs),
        )

    def counts(self, after: _Snapshot) -> dict[str, int]:
        """How many of each kind were removed (or added) between two snapshots, zeros left out."""
        pairs = {
            "nodes": (len(self.nodes), len(after.nodes)),
            "initializers": (self.initializers, after.initializers),
            "functions": (self.functions, after.functions),
        }
        return {
            f"{kind} {'removed' if old > new else 'added'}": abs(old - new)
            for kind, (old, new) in pairs.items()
            if old != new
        }


def _one_output_each(model: ir.Model) -> None:
    """onnx_ir's pass renames a value to the output that an Identity makes of it, even where it is an output already."""
    for scope in scopes(model):
        sources = [_source(output) for output in scope.outputs]
        for output, source in zip(scope.outputs, sources, strict=True):
            if output is not source and sources.count(source) > 1 and source.producer() is not None:
                raise PassRefused(
                    "onnx_ir would give two outputs one name",
                    where=f"graph {model.graph.name!r}",
                    found=f"output {output.name!r}, an Identity of {source.name!r}, which is another output too",
                    wanted="at most one output of a value",
                )


def _source(value: ir.Value) -> ir.Value:
    """What a value is once every Identity above it is gone."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.domain == "" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _no_input_as_output(model: ir.Model) -> None:
    """onnx_ir's output fix leaves the name to the output and gives the input another."""
    for output in model.graph.outputs:
        if output.is_graph_input():
            raise PassRefused(
                "onnx_ir would rename an input",
                where=f"graph {model.graph.name!r}",
                found=f"{output.name!r}, which is input and output",
                wanted="outputs that a node computes",
            )


_CONDITIONS: dict[str, Callable[[ir.Model], None]] = {
    "IdentityEliminationPass": _one_output_each,
    "OutputFixPass": _no_input_as_output,
}


def _run(pass_: ir.passes.PassBase, model: ir.Model) -> bool:
    try:
        return pass_(model).modified
    except Exception as error:  # whatever onnx_ir or onnx raise, the graph is not what the pass wants
        cause = error.__cause__ or error
        raise PassRefused(f"onnx_ir's {type(pass_).__name__} failed", found=cause) from error


def _check_interface(before: _Snapshot, after: _Snapshot) -> None:
    for what, old, new in (("inputs", before.inputs, after.inputs), ("outputs", before.outputs, after.outputs)):
        if old != new:
            lost = [name for name in old if name not in new]
            raise PassRefused(f"onnx_ir would change the names of the {what}", found=f"{lost} gone", wanted="all kept")


def _tag(name: str, model: ir.Model, known: dict[int, ir.Node]) -> None:
    """Writes the pass's name on every node it added."""
    mark_unclaimed((node for node in all_nodes(model) if id(node) not in known), name)


@contextlib.contextmanager
def _small_weights_inside(wrapped: type[ir.passes.PassBase], model: ir.Model) -> Generator[None]:
    """onnx_ir hands onnx no weight over 1 kB; the smaller ones onnx would look for in the working folder."""
    if wrapped.__name__ not in _HANDS_TO_ONNX:
        yield
        return
    outside: list[tuple[ir.Value, ir.ExternalTensor]] = []
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= _SMALL:
                outside.append((value, tensor))
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    try:
        yield
    finally:
        for value, tensor in outside:
            value.const_value = tensor


def _docstring(name: str, wrapped: type[Any]) -> str:
    return wrapped.__doc__ or f"{name.removeprefix('ir-').replace('-', ' ').capitalize()}."


@contextlib.contextmanager
def _heard(logger_name: str) -> Generator[list[str]]:
    """Collects what a library only logs as a warning."""
    lines: list[str] = []
    handler = _Collect(lines)
    logger = logging.getLogger(logger_name)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


class _Collect(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        text = record.getMessage().replace("%s", str(cause))  # onnx_ir leaves the place for the cause unfilled
        self.lines.append(" ".join(text.split()))
