"""Several graphs of one interface become one: nested Ifs pick a body by input sizes, weights stay outside."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...core.errors import PassRefused
from ..builder import Builder
from .body import Body, branch_of, function_of

Wrap = Callable[["Body", "Packed"], ir.Graph]
MAX_AXES = 3  # of the inputs that together tell the graphs apart


@dataclass
class Packed:
    """The graph on its way: its interface, and what the bodies share."""

    owner: str
    model: ir.Model
    symbols: dict[tuple[int, ...], str] = field(default_factory=dict[tuple[int, ...], str])
    made_up: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])


def pack(
    graphs: Mapping[str, ir.Model], bindings: Mapping[str, Mapping[str, int]], *, name: str, owner: str, calls: bool
) -> tuple[ir.Model, dict[str, dict[str, int]]]:
    """One graph that runs the one of ``graphs`` whose sizes its inputs have, and sizes of symbols it had to make up.

    The graphs are used up. With ``calls`` each is a local function that its branch calls. A run with sizes of none of
    them is the runtime's error. PassRefused where two graphs cannot be distinguished, or their interfaces differ.
    """
    _check_interfaces(graphs, owner)
    names = list(graphs)
    chosen = _telling_axes(graphs, owner)
    first = graphs[names[0]]
    packed = Packed(owner, _empty_like(first, name))
    packed.symbols = _symbols(bindings, names)
    _interface(packed, graphs)
    shared = _shared_weights(packed, graphs)
    for model in graphs.values():
        packed.model.functions.update(model.functions)
        packed.model.opset_imports.update(model.opset_imports)
    bodies = [Body.of(own, model, packed.model.graph, shared) for own, model in graphs.items()]
    wrap = function_of if calls else branch_of
    branches = [wrap(body, packed.model, owner) for body in bodies]
    sizes = [[_size(graphs[own], *axis) for axis in chosen] for own in names]
    _pin(branches[-1], [(packed.model.graph.inputs[at], _shape(graphs[names[-1]], at)) for at, _ in chosen], owner)
    _nest(packed, branches, sizes, chosen)
    return packed.model, packed.made_up


def _check_interfaces(graphs: Mapping[str, ir.Model], owner: str) -> None:
    """Refuses graphs whose inputs or outputs are not the same by name, order and type."""
    kinds = {name: _interface_of(model) for name, model in graphs.items()}
    first = next(iter(kinds))
    for name, kind in kinds.items():
        if kind != kinds[first]:
            differ = [
                str(item) for pair in zip(kind, kinds[first], strict=False) for item in set(pair[0]) ^ set(pair[1])
            ]
            raise PassRefused(
                "graphs of different inputs or outputs cannot be one graph",
                where=f"{owner}, {name!r} and {first!r}",
                found=", ".join(sorted(differ)[:4]) or "another order",
            )


def _interface_of(model: ir.Model) -> tuple[tuple[tuple[str, ir.DataType | None], ...], ...]:
    sides = (model.graph.inputs, model.graph.outputs)
    return tuple(tuple((value.name or "", value.dtype) for value in side) for side in sides)


def _size(model: ir.Model, at: int, axis: int) -> int:
    shape = model.graph.inputs[at].shape
    size = shape[axis] if shape is not None else None
    return size if isinstance(size, int) else -1


def _shape(model: ir.Model, at: int) -> list[int]:
    shape = model.graph.inputs[at].shape
    return [size if isinstance(size, int) else -1 for size in shape or ()]


def _telling_axes(graphs: Mapping[str, ir.Model], owner: str) -> list[tuple[int, int]]:
    """The fewest axes of inputs whose sizes differ between any two graphs, the first ones where several would do."""
    models = list(graphs.values())
    columns: dict[tuple[int, ...], tuple[int, int]] = {}
    for at, value in enumerate(models[0].graph.inputs):
        for axis in range(len(value.shape or ())):
            sizes = tuple(_size(model, at, axis) for model in models)
            if min(sizes) >= 0 and len(set(sizes)) > 1:
                columns.setdefault(sizes, (at, axis))
    for count in range(1, MAX_AXES + 1):
        for combination in itertools.combinations(columns.items(), count):
            if len(set(zip(*(sizes for sizes, _ in combination), strict=True))) == len(models):
                return [place for _, place in combination]
    if len(models) == 1:
        return []
    raise PassRefused(
        "the sizes of the inputs do not tell these graphs apart",
        where=owner,
        found=", ".join(graphs),
        wanted="static graphs that differ in the size of some input",
        hint="Put clone-decode{… static=true} before this pass, or package them as files.",
    )


def _empty_like(model: ir.Model, name: str) -> ir.Model:
    """A graph without anything in it; opsets and metadata as in ``model``, whose sizes it does not have."""
    from ..bind_sizes import BOUND

    graph = ir.Graph([], [], nodes=[], name=name, opset_imports=dict(model.opset_imports))
    made = ir.Model(graph, ir_version=model.ir_version, producer_name=model.producer_name)
    made.producer_version, made.domain, made.doc_string = model.producer_version, model.domain, model.doc_string
    made.metadata_props.update({key: text for key, text in model.metadata_props.items() if not key.startswith(BOUND)})
    graph.metadata_props.update(model.graph.metadata_props)
    return made


def _symbols(bindings: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> dict[tuple[int, ...], str]:
    """The symbol that has these sizes in the graphs, in order."""
    found: dict[tuple[int, ...], str] = {}
    for symbol in bindings.get(names[0], {}):
        sizes = tuple(bindings.get(name, {}).get(symbol, -1) for name in names)
        found.setdefault(sizes, symbol)
    return found


def _interface(packed: Packed, graphs: Mapping[str, ir.Model]) -> None:
    """Gives the graph inputs and outputs: sizes that all graphs agree on, symbols for the others."""
    models = list(graphs.values())
    for side in ("inputs", "outputs"):
        for columns in zip(*(getattr(model.graph, side) for model in models), strict=True):
            first: ir.Value = columns[0]
            dims = [
                _joined(packed, list(graphs), sizes)
                for sizes in zip(*(value.shape or () for value in columns), strict=True)
            ]
            value = ir.Value(
                name=first.name, type=first.type, shape=ir.Shape(dims) if first.shape is not None else None
            )
            value.metadata_props.update(first.metadata_props)
            getattr(packed.model.graph, side).append(value)


def _joined(packed: Packed, names: Sequence[str], sizes: Sequence[int | ir.SymbolicDim]) -> int | str | None:
    if not all(isinstance(size, int) for size in sizes):
        texts = {size.value if isinstance(size, ir.SymbolicDim) else None for size in sizes}
        return texts.pop() if len(texts) == 1 else None
    numbers = tuple(size for size in sizes if isinstance(size, int))
    if len(set(numbers)) == 1:
        return numbers[0]
    if numbers not in packed.symbols:
        symbol = f"size_{len(packed.made_up)}"
        packed.symbols[numbers] = symbol
        packed.made_up[symbol] = dict(zip(names, numbers, strict=True))
    return packed.symbols[numbers]


def _shared_weights(packed: Packed, graphs: Mapping[str, ir.Model]) -> dict[str, ir.Value]:
    """The initializers that are one tensor in every graph, as initializers of the whole."""
    models = list(graphs.values())
    shared: dict[str, ir.Value] = {}
    for name, value in models[0].graph.initializers.items():
        others = [model.graph.initializers.get(name) for model in models]
        if any(other is None or other.const_value is not value.const_value for other in others):
            continue
        shared[name] = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
        packed.model.graph.register_initializer(shared[name])
    return shared


def _pin(branch: ir.Graph, pins: Sequence[tuple[ir.Value, list[int]]], owner: str) -> None:
    """Makes the branch that is taken last refuse inputs of other sizes: a Reshape to the size that it must have."""
    builder = Builder(branch, owner)
    for value, shape in pins:
        uses = [use for use in value.uses() if _within(use.node, branch)]
        tensor = ir.Tensor(np.asarray(shape, np.int64), name=f"{builder.owner}/{value.name}_size")
        target = builder.op("Constant", [], f"{value.name}_size", {"value": tensor}, [len(shape)])
        pinned = builder.op("Reshape", [value, target], f"{value.name}_pinned", None, shape, value.dtype)
        builder.place_before(branch[0])
        for use in uses:
            use.node.replace_input_with(use.idx, pinned)


def _within(node: ir.Node, branch: ir.Graph) -> bool:
    """Whether a node stands in a graph or in a body inside it."""
    return any(node.graph is scope for scope in (branch, *branch.subgraphs()))


def _nest(
    packed: Packed, branches: Sequence[ir.Graph], sizes: Sequence[Sequence[int]], chosen: Sequence[tuple[int, int]]
) -> None:
    """Puts the branches into nested Ifs, the last one in the innermost else."""
    graph = packed.model.graph
    builder = Builder(graph, packed.owner)
    conditions = [
        _condition(builder, graph, chosen, wanted, branch.name or "")
        for branch, wanted in zip(branches[:-1], sizes, strict=False)
    ]
    builder.place_front()
    rest = branches[-1]
    for at in range(len(branches) - 2, -1, -1):
        outer = at == 0
        name = f"{packed.owner}/{branches[at].name}_or_not"
        holder = graph if outer else ir.Graph([], [], nodes=[], name=f"{branches[at].name}_or_not")
        inside = builder if outer else Builder(holder, packed.owner)
        taken = {"then_branch": branches[at], "else_branch": rest}
        outputs = inside.ops("If", [conditions[at]], f"{branches[at].name}_or_not", len(graph.outputs), taken)
        for mine, output in zip(outputs, graph.outputs, strict=True):
            mine.name = output.name if outer else f"{name}/{output.name}"
            mine.type, mine.shape = output.type, output.shape
        inside.place_end()
        holder.outputs[:] = outputs
        rest = holder


def _condition(
    builder: Builder, graph: ir.Graph, chosen: Sequence[tuple[int, int]], wanted: Sequence[int], name: str
) -> ir.Value:
    """True where the inputs have these sizes: a BOOL scalar."""
    found: ir.Value | None = None
    for (at, axis), size in zip(chosen, wanted, strict=True):
        value = graph.inputs[at]
        length = builder.dims([(value, axis)], f"{value.name}_length")
        scalar = builder.op("Squeeze", [length], f"{value.name}_{name}_length", shape=())
        same = builder.op(
            "Equal", [scalar, builder.ints(size, f"{size}")], f"is_{name}_{at}_{axis}", None, (), ir.DataType.BOOL
        )
        found = same if found is None else builder.op("And", [found, same], f"is_{name}", None, (), ir.DataType.BOOL)
    assert found is not None, "several graphs differ in some axis"
    return found
