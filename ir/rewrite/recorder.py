"""A recorder keeps new nodes on a tape, named and owned, until they are put at an insertion point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import onnx_ir as ir
from onnx_ir.tape import Tape

from ..core.scopes import Scope
from .names import FreshNames
from .ownership import OWNER


class Recorder:
    """Records nodes on an :class:`onnx_ir.tape.Tape`; a ``place_…`` method puts what was recorded into a graph.

    Each node carries the pass in its metadata, and a name ``<pass>/<name>`` that is free in the scope; its first
    output has the same name.

    Attributes:
        graph: The main graph, or the function's body; nodes can be placed in the bodies of its nodes as well.
        owner: The pass's kebab name.
    """

    def __init__(self, scope: Scope, owner: str) -> None:
        """For the main graph, or a function."""
        self._scope = scope
        self.graph = scope.graph if isinstance(scope, ir.Function) else scope
        self.owner = owner
        self._names = FreshNames(scope)
        self._tape = Tape()
        self._last_at_front: ir.Node | None = None

    def aside(self) -> Self:
        """A recorder of the same pass with a tape of its own: for what goes elsewhere, before the rest is placed."""
        other = type(self)(self._scope, self.owner)
        other._names = self._names
        return other

    def fresh(self, name: str, *, exact: bool = False) -> str:
        """``<pass>/<name>``, or ``name`` itself where it is ``exact``, made unique and taken from now on."""
        return self._names.take(name if exact else f"{self.owner}/{name}")

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        count: int,
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        exact: bool = False,
    ) -> Sequence[ir.Value]:
        """The ``count`` outputs of a new node, nothing declared; those behind the first are named ``<name>/1`` ….

        ``exact`` leaves the pass out of the names. A domain that the graph does not import is imported, version 1.
        """
        name = self.fresh(name, exact=exact)
        metadata = {OWNER: self.owner}
        outputs = self._tape.op_multi_out(
            op_type, inputs, attributes, num_outputs=count, domain=domain, name=name, metadata_props=metadata
        )
        outputs[0].name = name
        for place, value in enumerate(outputs[1:], 1):
            value.name = self.fresh(f"{name}/{place}", exact=True)
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        return outputs

    def place_front(self) -> None:
        """Puts what was recorded at the front of the graph, behind what was put there before."""
        nodes, last = self._take(self.graph), self._last_at_front
        if not nodes:
            return
        if last is not None and last.graph is self.graph:
            self.graph.insert_after(last, nodes)
        elif len(self.graph):
            self.graph.insert_before(self.graph[0], nodes)
        else:
            self.graph.extend(nodes)
        self._last_at_front = nodes[-1]

    def place_end(self) -> None:
        """Puts what was recorded at the end of the graph."""
        self.graph.extend(self._take(self.graph))

    def place_before(self, anchor: ir.Node) -> None:
        """Puts what was recorded before ``anchor``, in the graph or body that it stands in."""
        scope = _scope_of(anchor)
        scope.insert_before(anchor, self._take(scope))

    def place_after(self, anchor: ir.Node | ir.Value) -> None:
        """Puts what was recorded behind a node, or behind the one that makes a value; at the front where none does."""
        node = anchor.producer() if isinstance(anchor, ir.Value) else anchor
        if node is None:
            self.place_front()
            return
        scope = _scope_of(node)
        scope.insert_after(node, self._take(scope))

    def replace(self, node: ir.Node, values: Sequence[ir.Value | None]) -> None:
        """Puts what was recorded in the place of ``node``, whose outputs hand names, types and uses on to ``values``.

        Each value is the first thing to bear its name: an output of a recorded node. None stands for an output that
        nothing reads.
        """
        self.place_before(node)
        for old, new in zip(node.outputs, values, strict=True):
            if new is not None:
                new.type, new.shape = old.type or new.type, old.shape or new.shape
                ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
                old.name, new.name = None, old.name or new.name
        _scope_of(node).remove(node, safe=True)

    def _take(self, scope: Scope) -> list[ir.Node]:
        """Takes the recorded nodes off the tape, to be put into ``scope``."""
        nodes, self._tape = list(self._tape.nodes), Tape()
        return nodes


def narrow_node(node: ir.Node, inputs: Sequence[ir.Value | None], outputs: Sequence[ir.Value]) -> None:
    """Leaves a node only these inputs, and those of its outputs; all else about it, its metadata too, stays.

    onnx_ir 1.1 changes the number of a node's outputs at their end alone (``Node.resize_outputs``), so that it is a
    node of its own that takes the place, names, types and uses.
    """
    narrow = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes.values(),
        overload=node.overload,
        num_outputs=len(outputs),
        name=node.name,
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    for old, new in zip(outputs, narrow.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    _scope_of(node).insert_before(node, narrow)
    _scope_of(node).remove(node, safe=True)


def _scope_of(node: ir.Node) -> ir.Graph:
    if node.graph is None:
        raise ValueError(f"node {node.name!r} stands in no graph")
    return node.graph


def loose_node(op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any]) -> ir.Node:
    """A node of no graph and no owner, to ask a table about."""
    return ir.node(op_type, inputs, attributes)
