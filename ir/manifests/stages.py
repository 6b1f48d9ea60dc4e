"""Dataflow between consecutive states says which nodes belong to which layer, and so to which pipeline stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import networkx as nx
import onnx_ir as ir

from ..core.errors import PassRefused
from ..core.scopes import holders
from ..states import State
from .layers import layer_bounds, layer_of, stage_of

_BEFORE = -1  # the layer of what depends on no state's update
_SOURCE, _SINK = -1, -2


@dataclass(frozen=True)
class Stages:
    """The nodes of each stage in the graph's order, and how many nodes' names tell another stage than the dataflow."""

    nodes: list[list[str]]
    layers: int
    disputed: tuple[str, ...] = ()


def split_stages(model: ir.Model, states: Sequence[State], stages: int) -> Stages:
    """Spreads the nodes of the main graph over ``stages``, never against the flow of data.

    PassRefused where the graph has fewer layers than stages, or a node has no name to be listed under.
    """
    nodes = list(model.graph)
    updates = _updates(model, states)
    if len(updates) < stages:
        raise PassRefused(
            "has too few layers", where=f"graph {model.graph.name!r}", found=f"{len(updates)} layers with states",
            wanted=f"at least {stages}, one a stage",
        )  # fmt: skip
    unnamed = sum(not node.name and node.op_type != "Constant" for node in nodes)
    if unnamed:
        raise PassRefused("nodes without names cannot be listed", where=f"graph {model.graph.name!r}", found=unnamed)
    number = _numbers(model, nodes)
    following = [sorted({number[use.node] for value in node.outputs for use in value.uses()}) for node in nodes]
    names = [node.name or "" for node in nodes]
    layers = _layers(following, [[number[node] for node in group] for group in updates], names)
    bounds = layer_bounds(len(updates), stages)
    found = [stage_of(layer, bounds) if layer != _BEFORE else stages for layer in layers]
    _settle_early(found, following, stages)
    lists: list[list[str]] = [[] for _ in range(stages)]
    for node, stage in zip(nodes, found, strict=True):
        if node.name:
            lists[stage].append(node.name)
    return Stages(lists, len(updates), _disputed(nodes, found, bounds))


def _updates(model: ir.Model, states: Sequence[State]) -> list[list[ir.Node]]:
    """The nodes of the main graph that update states, a list a layer, in the order of the layers."""
    found: dict[int, set[ir.Node]] = {}
    order = {node: index for index, node in enumerate(model.graph)}
    for state in states:
        inside = state.update is not None and state.update in order
        node = state.update if inside else state.output.producer() if state.output is not None else None
        if node is not None and node in order:
            found.setdefault(state.layer if state.layer is not None else order[node], set()).add(node)
    groups = {min(group, key=order.__getitem__): group for group in found.values()}  # one node may hold several layers
    return [sorted(groups[first], key=order.__getitem__) for first in sorted(groups, key=order.__getitem__)]


def _numbers(model: ir.Model, nodes: Sequence[ir.Node]) -> dict[ir.Node, int]:
    """Each node of the main graph by its place; a node inside a subgraph has the place of the node that holds it."""
    found = {node: index for index, node in enumerate(nodes)}
    return found | {inner: found[outer] for inner, outer in holders(model.graph).items()}


def _layers(following: Sequence[Sequence[int]], updates: Sequence[Sequence[int]], names: Sequence[str]) -> list[int]:
    """The layer of each node: after its layer's updates, up to the one value through which all goes on."""
    reach = [_BEFORE] * len(following)
    for layer, group in enumerate(updates):
        for node in group:
            reach[node] = max(reach[node], layer)
    for node, users in enumerate(following):  # the graph's order is topological
        for user in users:
            reach[user] = max(reach[user], reach[node])
    layers = list(reach)
    members: dict[int, list[int]] = {}
    for node, layer in enumerate(reach):
        members.setdefault(layer, []).append(node)
    for layer in range(len(updates) - 1):
        for node in _past_the_neck(members.get(layer, []), following, updates[layer], names):
            layers[node] = layer + 1
    return layers


def _past_the_neck(
    members: Sequence[int], following: Sequence[Sequence[int]], updates: Sequence[int], names: Sequence[str]
) -> set[int]:
    """Those members of a layer that come after the last node which all its paths to later layers pass.

    Where that node's own name tells a later layer, it goes there too, and so do such nodes right before it.
    """
    own = set(members)
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_edges_from((_SOURCE, node) for node in updates)
    for node in members:
        graph.add_edges_from((node, user if user in own else _SINK) for user in following[node])
    if _SINK not in graph or _SINK not in _reached(graph, _SOURCE):
        return set()
    necks = cast("dict[int, int]", nx.immediate_dominators(graph, _SOURCE))  # pyright: ignore[reportUnknownMemberType]
    neck, here = necks[_SINK], layer_of(names[updates[0]])
    later: set[int] = set()
    while neck != _SOURCE and here is not None and (layer_of(names[neck]) or 0) > here:
        later = {neck}
        neck = necks[neck]
    start = next(iter(later), neck)
    return later if start == _SOURCE else (later | _reached(graph, start)) & own


def _reached(graph: nx.DiGraph[int], start: int) -> set[int]:
    return nx.descendants(graph, start)  # pyright: ignore[reportUnknownMemberType]


def _settle_early(stages: list[int], following: Sequence[Sequence[int]], open_stage: int) -> None:
    """What depends on no state goes to the first stage that uses it; what nothing uses, to the first of all."""
    for node in reversed(range(len(stages))):
        if stages[node] == open_stage:
            stages[node] = min((stages[user] for user in following[node]), default=0)


def _disputed(nodes: Sequence[ir.Node], stages: Sequence[int], bounds: Sequence[int]) -> tuple[str, ...]:
    named = ((node.name or "", layer_of(node.name or ""), stage) for node, stage in zip(nodes, stages, strict=True))
    return tuple(name for name, layer, stage in named if layer is not None and stage_of(layer, bounds) != stage)
