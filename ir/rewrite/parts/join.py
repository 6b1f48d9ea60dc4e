"""Parts of a graph become one graph again: what one hands on is what the next one takes, by its name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir


def join(parts: Sequence[ir.Model], name: str, inner: Collection[str]) -> ir.Model:
    """One graph of copies of the parts' nodes; inputs of one name are one, inner names are made unlike.

    ``inner`` is what parts hand on and the whole graph does not give; outputs keep their order, part by part.
    """
    inputs: dict[str, ir.Value] = {}
    given: dict[str, ir.Value] = {}
    weights: dict[str, ir.Value] = {}
    taken_names: set[str] = {value.name or "" for part in parts for value in (*part.graph.inputs, *part.graph.outputs)}
    node_names = set[str]()
    nodes: list[ir.Node] = []
    outputs: dict[str, ir.Value] = {}
    functions: dict[ir.OperatorIdentifier, ir.Function] = {}
    opsets: dict[str, int] = {}
    for part in parts:
        copy = part.clone().graph
        for value in list(copy.inputs):
            known = given.get(value.name or "") or inputs.setdefault(value.name or "", value)
            if known is not value:
                ir.convenience.replace_all_uses_with(value, known)
        for value in list(copy.initializers.values()):
            _weight(copy, value, weights, taken_names)
        results = {value: value.name or "" for value in copy.outputs}
        copy.outputs.clear()
        copy.inputs.clear()
        symbols = {str(dim) for value in part.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
        moved = list(copy)
        copy.remove(moved)
        for node in moved:
            node.name = _free(node.name, node_names) if node.name else None  # onnxruntime refuses a name that is twice
            for value in node.outputs:
                if value not in results:
                    value.name = _free(value.name, taken_names) if value.name else value.name
                    _forget_made_up(value, symbols)
        nodes += moved
        given |= {name: value for value, name in results.items()}
        outputs |= {name: value for value, name in results.items() if name not in inner}
        functions |= part.functions
        opsets = {**part.opset_imports, **opsets}
    graph = ir.Graph(
        list(inputs.values()), list(outputs.values()), nodes=nodes, initializers=list(weights.values()),
        opset_imports=opsets, name=name,
    )  # fmt: skip
    first = parts[0]
    return ir.Model(
        graph, ir_version=first.ir_version, producer_name=first.producer_name, functions=list(functions.values()),
        metadata_props=dict(first.metadata_props),
    )  # fmt: skip


def _forget_made_up(value: ir.Value, known: Collection[str]) -> None:
    """Drops a shape with symbols that inference made up: it made up the same ones for other parts."""
    if any(not isinstance(dim, int) and str(dim) not in known for dim in value.shape or ()):
        value.shape = None


def _weight(graph: ir.Graph, value: ir.Value, weights: dict[str, ir.Value], taken: set[str]) -> None:
    """An initializer becomes the whole graph's: that of an earlier part where it has the name and the tensor."""
    name = value.name or ""
    del graph.initializers[name]
    first = weights.get(name)
    if first is not None and first.const_value is value.const_value:
        ir.convenience.replace_all_uses_with(value, first)
        return
    value.name = name if name not in taken else _free(name, taken)
    taken.add(value.name)
    weights[value.name] = value


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found
