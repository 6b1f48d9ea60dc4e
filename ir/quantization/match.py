"""Tensors of two graphs are matched by name where the producers agree, else by how they are computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.errors import PassRefused
from ..interface.roles import find_roles
from ..shapes.float_values import element_types
from ..states import find_states

SHAPE_ATTRIBUTES = frozenset(("shape", "allowzero", "value", "value_ints", "value_int"))


@dataclass
class Matched:
    """Source name -> target name, and the targets and sources that found no partner, in graph order."""

    names: dict[str, str] = field(default_factory=dict[str, str])
    by_structure: int = 0
    open_sources: list[str] = field(default_factory=list[str])


class Prints:
    """A fingerprint for every value of the main graph: what computes it, from what, whatever the names and sizes."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.types = element_types(model)
        self.whole: dict[ir.Value, str] = {}
        self.local: dict[ir.Value, str] = {}
        self._digests: dict[int, str] = {}
        states = find_states(model)
        self.carried = {(v, s.kind, s.layer) for s in states for v in (s.input, s.output) if v is not None}
        roles = find_roles(model, states)
        for value in model.graph.inputs:
            self.whole[value] = f"input {roles[value.name].value}" if value.name in roles else "input"
        for value in model.graph.initializers.values():
            self.whole[value] = self._constant(value.const_value)
        for node in model.graph:
            self._node(node)

    def is_state(self, value: ir.Value) -> tuple[str, int | None] | None:
        """The kind and layer of the state that enters or leaves here."""
        return next(((kind, layer) for own, kind, layer in self.carried if own is value), None)

    def named(self) -> dict[str, ir.Value]:
        """Every value by name; PassRefused where a name stands twice."""
        found: dict[str, ir.Value] = {}
        for value in self.whole:
            name = value.name or ""
            if name in found and found[name] is not value:
                raise PassRefused(f"two values are named {name!r}", where=f"graph {self.model.graph.name!r}")
            found[name] = value
        return found

    def _node(self, node: ir.Node) -> None:
        tensor = constant_of(node.outputs[0]) if node.op_type == "Constant" and node.outputs else None
        if tensor is not None:
            self.whole[node.outputs[0]] = self._constant(tensor)
            return
        attributes = sorted((a.name, _attribute(a)) for a in node.attributes.values() if a.name not in SHAPE_ATTRIBUTES)
        operands = [self._operand(value) for value in node.inputs]
        weights = [self.whole[v] for v in node.inputs if v is not None and v.is_initializer() and v in self.whole]
        for index, value in enumerate(node.outputs):
            own = f"{node.domain}:{node.op_type}:{index}:{attributes}"
            self.local[value] = _digest(f"{own}:{weights}".encode())
            self.whole[value] = _digest(f"{own}:{operands}".encode())

    def _operand(self, value: ir.Value | None) -> str:
        """What an operand adds: shape arithmetic and conditions are "int", whatever they compute."""
        if value is None:
            return "none"
        dtype = self.types.get(value, value.dtype)
        inner = value.producer() is not None or value.is_initializer()
        if inner and dtype is not None and not dtype.is_floating_point():
            return "int"
        return self.whole.get(value, "outer")

    def _constant(self, tensor: ir.TensorProtocol | None) -> str:
        if tensor is None:
            return "unknown"
        if not tensor.dtype.is_floating_point():
            return "int"
        if id(tensor) not in self._digests:
            shape = tensor.shape.numpy()
            self._digests[id(tensor)] = f"{tensor.dtype.name}{shape}{_digest(tensor.tobytes())}"
        return self._digests[id(tensor)]


def match(source: ir.Model, target: ir.Model, wanted: Iterable[str]) -> Matched:
    """Finds the target's tensor for each ``wanted`` name of the source.

    A name that both graphs have counts where the operators that compute it agree (weights included), or where it is the
    same state; PassRefused where they do not. Other names are matched by fingerprint, in graph order, only where both
    graphs have equally many.
    """
    before, after = Prints(source), Prints(target)
    old, new = before.named(), after.named()
    result = Matched()
    rest: list[str] = []
    for name in wanted:
        if name in new and name in old:
            _check_same(name, before, after, old[name], new[name])
            result.names[name] = name
        elif name in old:
            rest.append(name)
        else:
            result.open_sources.append(name)
    taken = {new[name] for name in result.names.values()}
    by_print = _by_print(after, {value for value in after.whole if value not in taken})
    matched = set(result.names)
    sources = _by_print(before, {value for name, value in old.items() if name not in matched})
    for name in rest:
        print_of = before.whole[old[name]]
        candidates, peers = by_print.get(print_of, []), sources.get(print_of, [])
        if old[name].is_graph_input() or len(candidates) != len(peers):
            result.open_sources.append(name)
            continue
        result.names[name] = candidates[peers.index(old[name])].name or ""
        result.by_structure += 1
    return result


def _check_same(name: str, before: Prints, after: Prints, old: ir.Value, new: ir.Value) -> None:
    state = before.is_state(old)
    if state is not None and state == after.is_state(new):
        return  # another layout updates it by other operators
    # a constant has no local print: its own numbers count
    found = [p.local.get(v, p.whole[v]) for p, v in ((before, old), (after, new))]
    if found[0] != found[1]:
        makers = [value.producer() for value in (old, new)]
        kinds = [maker.op_type if maker is not None else "no operator" for maker in makers]
        raise PassRefused(
            f"tensor {name!r} is computed in another way, or from other weights, in the two graphs",
            found=f"{kinds[0]} and {kinds[1]}",
            hint="Encodings are carried between graphs of one model only.",
        )


def _by_print(prints: Prints, allowed: set[ir.Value]) -> dict[str, list[ir.Value]]:
    found: dict[str, list[ir.Value]] = {}
    for value, text in prints.whole.items():
        if value in allowed:
            found.setdefault(text, []).append(value)
    return found


def _attribute(attribute: ir.Attr) -> str:
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "graph"
    if attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
        return "tensor"
    return str(attribute.value)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
