"""The backward half of a round rewires what is still needed and removes the rest."""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from .replace_uses import turn
from .scope import Round


def live_nodes(state: Round) -> set[ir.Node]:
    """The nodes that some graph output needs, replacements made; ``homes`` keeps the constants that they use."""
    live: set[ir.Node] = set()
    used: set[ir.Value] = set()
    work: list[ir.Value] = [state.moved.get(value, value) for value in state.model.graph.outputs]
    moved = state.moved
    homes = state.homes
    while work:
        value = work.pop()
        node = value.producer()
        if node is None:
            if value in homes:
                used.add(value)
            continue
        if node in live:
            continue
        live.add(node)
        work.extend(given for given in state.read(node) if given is not None)
        for graph in state.bodies.get(node, ()):
            work.extend(moved.get(output, output) for output in graph.outputs)
    state.homes = {value: home for value, home in homes.items() if value in used}
    return live


def apply(state: Round) -> bool:
    """Makes the round's replacements; True where the model is another one than before."""
    live = live_nodes(state)
    changed = _outputs(state)
    for node in [node for graph in state.graphs for node in graph if node in live]:
        changed |= _rewire(state, node)
    dead = [[node for node in graph if node not in live] for graph in state.graphs]
    for node in [node for nodes in dead for node in nodes]:
        _detach(node)
    for graph, nodes in zip(state.graphs, dead, strict=True):
        graph.remove(nodes)
        state.count("nodes", len(nodes))
    _register(state)
    return changed or any(dead)


def _outputs(state: Round) -> bool:
    """An inner value that stands in for a graph output becomes that output, under its name and declared type."""
    for inner, output in state.names.items():
        graph = output.graph
        if graph is None:
            continue
        name, output.name = output.name, None
        for place, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[place] = inner
        inner.name = name
        inner.shape = output.shape if output.shape is not None else inner.shape
        inner.type = output.type if output.type is not None else inner.type
    return bool(state.names)


def _rewire(state: Round, node: ir.Node) -> bool:
    """Gives a live node its new inputs."""
    edited = state.inputs.get(node)
    if edited is not None and len(edited) != len(node.inputs):
        node.resize_inputs(len(edited))
    changed = False
    moved = state.moved
    for place, value in enumerate(node.inputs):
        new = edited[place] if edited is not None else None if value is None else moved.get(value)
        if new is not None and new is not value:
            node.replace_input_with(place, new)
            changed = True
    perm = state.perms.get(node)
    if perm is not None:
        node.attributes["perm"] = ir.AttrInt64s("perm", perm)
    if node in state.copying:
        node.attributes.pop("allowzero", None)
    if node in state.turned:
        turn(node)
    return changed or perm is not None or node in state.turned


def _detach(node: ir.Node) -> None:
    """Removes a dead node from the uses of all values; those in its bodies are dead too."""
    for place, value in enumerate(node.inputs):
        if value is not None:
            node.replace_input_with(place, None)


def _register(state: Round) -> None:
    """Used constants become initializers of their graphs; one whose name is still taken gets another."""
    if not state.homes:
        return
    taken = {value.name for graph in state.graphs for node in graph for value in node.outputs}
    taken |= {value.name for value in state.model.graph.inputs} | set(state.model.graph.initializers)
    for value, graph in state.homes.items():
        origin = state.origins[value]
        if value.name in taken or not value.name:
            value.name = unused_name(taken, f"{origin.name or 'value'}_constant")
        taken.add(value.name)
        graph.register_initializer(value)


def unused_name(taken: Container[str | None], wish: str) -> str:
    """``wish``, or with the first number that makes it new."""
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name
