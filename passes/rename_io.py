"""Renames inputs and outputs of the graphs, and what else in the program names them."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UnknownNameError, UsageError
from ..ir.core.scopes import nested
from ..ir.program.contracts.chain import renamed
from ..ir.program.program import Program
from ..ir.rewrite.name_dims import name_dims
from .base import GraphResult, Pass, Report, merge_results


@dataclass(frozen=True)
class RenameIO(Pass):
    """Renames inputs and outputs, all at once: ``map=a:b,b:a`` swaps two names.

    ``map=ids:input_ids`` on ``g (ids) => (logits)`` gives ``g (input_ids) => (logits)``.

    1. An input or output takes its new name in every graph of the program that has it.
    2. A value that is both input and output has one name, and keeps one.
    3. Custom I/O, encodings and contracts of the program that name it follow; a text that an earlier pass wrote for
       a file of its own does not, and is warned of.
    4. Inner values, nodes and weights are left alone, for other files may name them: a new name that one of them holds
       is refused, as is a name that no graph has as an input or output.
    5. ``missing=ignore`` leaves out the names that no graph has, for a preset that serves several exports.
    6. ``dims=audio.0:batch,state.1:batch`` names dimensions that the export left without one, so that they can be told
       alike and be bound; one that has a name or a size is refused.

    Attributes:
        map: Old names and new ones, ``old:new`` separated by commas.
        dims: Dimensions of inputs and outputs without a name, by the old name and the axis, and the symbol of each.
        missing: refuse or ignore: what becomes of an old name that no graph has.
    """

    name: ClassVar[str] = "rename-io"

    map: tuple[tuple[str, str], ...] = ()
    dims: tuple[tuple[str, str], ...] = ()
    missing: Literal["refuse", "ignore"] = "refuse"

    def __post_init__(self) -> None:
        """Takes a mapping too; raises UsageError for a name given twice or an empty one."""
        for option in ("map", "dims"):
            given = cast("Mapping[str, str] | tuple[tuple[str, str], ...]", getattr(self, option))
            object.__setattr__(self, option, tuple(given.items()) if isinstance(given, Mapping) else given)
        pairs = self.map
        for what, names in (("renamed", [old for old, _ in pairs]), ("given", [new for _, new in pairs])):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise UsageError(f"a name is {what} twice", where="pass 'rename-io', option 'map'", found=min(twice))
        if any(not old or not new for old, new in pairs):
            raise UsageError("a name is empty", where="pass 'rename-io', option 'map'", wanted="old:new")

    def call(self, model: ir.Model) -> GraphResult:
        """Renames in one graph; raises UnknownNameError or PassRefused before it changes anything."""
        names = self._known_names([model])
        _check_free(names, model)
        return self._rename(names, model)

    def run(self, program: Program) -> Report:
        """Checks every graph, then renames in all of them and in what else the program holds."""
        names = self._known_names(program.graphs.values())
        known = {name for model in program.graphs.values() for name in _interface(model)}
        for model in program.graphs.values():
            _check_free(names, model)
        results = [(name, self._rename(names, model)) for name, model in program.graphs.items()]
        program.custom_io = _renamed_keys(names, program.custom_io)
        program.encodings = _renamed_keys(names, program.encodings)
        moved = {old: new for old, new in names.items() if old != new}
        if moved:
            program.contracts = renamed(program.contracts, moved, known, len(program.pass_texts))
        report = merge_results(results)
        return replace(report, warnings=(*report.warnings, *_stale(names, program.artifacts)))

    def _rename(self, names: Mapping[str, str], model: ir.Model) -> GraphResult:
        named = name_dims(model, dict(self.dims), self.name)
        result = _rename(names, model)
        counts = {**result.counts, **({"dimensions named": named} if named else {})}
        return replace(result, modified=result.modified or bool(named), counts=counts)

    def _known_names(self, models: Iterable[ir.Model]) -> dict[str, str]:
        """The renames that apply; UnknownNameError for a name that no graph has, unless such names are ignored."""
        known = {name for model in models for name in _interface(model)}
        if self.missing == "refuse":
            _check_known(self.map, known)
        return {old: new for old, new in self.map if old in known}


def _interface(model: ir.Model) -> dict[str, ir.Value]:
    """Inputs and outputs by name."""
    return {value.name: value for value in (*model.graph.inputs, *model.graph.outputs) if value.name}


def _check_known(pairs: Iterable[tuple[str, str]], known: Collection[str]) -> None:
    for old, _ in pairs:
        if old not in known:
            hint = "`onnx-passes inspect` lists all inputs and outputs."
            raise UnknownNameError("input or output", old, sorted(known), hint=hint)


def _check_free(names: Mapping[str, str], model: ir.Model) -> None:
    """Refuses a new name that a value which keeps its own already has, in the main graph or a body inside it."""
    interface = _interface(model)
    moving = {old: new for old, new in names.items() if old in interface and old != new}
    wanted = set(moving.values())
    for name, what in _all_names(model):
        if name in wanted and name not in moving:
            old = next(old for old, new in moving.items() if new == name)
            raise PassRefused(
                f"{old!r} cannot be renamed",
                where=f"graph {model.graph.name!r}",
                found=f"{what} that is already named {name!r}",
                wanted="a name that is free",
            )


def _all_names(model: ir.Model) -> Iterable[tuple[str | None, str]]:
    """Every name in the main graph and the bodies inside it, with what it names."""
    for value in model.graph.inputs:
        yield value.name, "an input"
    for value in model.graph.outputs:
        yield value.name, "an output"
    for scope in nested(model.graph):
        if isinstance(scope, ir.Graph):
            yield from ((name, "an initializer") for name in scope.initializers)
        if scope is not model.graph:
            yield from ((value.name, "an input of a body") for value in scope.inputs)
        for node in scope:
            yield from ((output.name, f"a value (of node {node.name!r})") for output in node.outputs)


def _rename(names: Mapping[str, str], model: ir.Model) -> GraphResult:
    moving = {old: value for old, value in _interface(model).items() if names.get(old, old) != old}
    inputs = sum(value.name in moving for value in model.graph.inputs)
    outputs = sum(value.name in moving for value in model.graph.outputs)
    for old, value in moving.items():
        _set_name(value, f"{old}\0moving")  # in two steps, for a swap passes through no name that is taken
    for old, value in moving.items():
        _set_name(value, names[old])
    counts = {"inputs renamed": inputs, "outputs renamed": outputs}
    return GraphResult(model, bool(moving), counts={key: number for key, number in counts.items() if number})


def _set_name(value: ir.Value, name: str) -> None:
    if value.const_value is not None:
        value.const_value = _own_copy(value.const_value)  # clones of a graph share tensors, and a tensor has the name
    value.name = name


def _own_copy(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same content under a name of its own."""
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        return ir.from_proto(ir.to_proto(tensor))
    return copy.copy(tensor)


def _stale(names: Mapping[str, str], artifacts: Mapping[str, str | bytes]) -> list[str]:
    return [
        f"{file} was written before and still says {old!r}: rename first"
        for file, content in artifacts.items()
        for old, new in names.items()
        if old != new and _says(content, old)
    ]


def _says(content: str | bytes, name: str) -> bool:
    if isinstance(content, bytes):
        return name.encode() in content
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", content) is not None


def _renamed_keys(names: Mapping[str, str], table: Mapping[str, Any]) -> dict[str, Any]:
    return {names.get(key, key): content for key, content in table.items()}
