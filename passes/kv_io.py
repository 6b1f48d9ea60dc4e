"""kv-io lets carried states enter and leave the graph as integers."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.core.errors import PassRefused
from ..ir.manifests.custom_io_yaml import CUSTOM_IO, write_custom_io
from ..ir.program.contracts.interface import Grid, QuantizedIO
from ..ir.program.program import Program
from ..ir.quantization.decide import Decider, taken_of
from ..ir.quantization.qdq import MARK, plain_pairs
from ..ir.states import State, find_states
from .base import GraphResult, Pass, Report
from .emit_manifest import ARGUMENTS, EmitManifest

_BITS = {
    ir.DataType.INT8: 8,
    ir.DataType.UINT8: 8,
    ir.DataType.INT16: 16,
    ir.DataType.UINT16: 16,
}


@dataclass(frozen=True)
class KvIo(Pass):
    """Makes the inputs and outputs of states integers: the pair at each is cut where the graph begins or ends.

    Before → after::

        past (float) → Q → DQ → …        →  past (int8) → DQ → …
        … → Q → DQ → present (float)     →  … → Q → present (int8)

    1. Past and present must be on one grid; then a cache goes from run to run without being rounded again.
    2. A host fills unused rows with the zero point: 0 on the symmetric signed grids of tie-states.
    3. A present without a past (a prefill graph that only gives its cache) is known by what insert-qdq noted.
    4. States that are integers already, and those only read (cross-attention), are left alone.
    5. What custom-io and emit-manifest wrote before is written again: an integer has no precision to choose.

    Refused: a state that no pair stands at (insert-qdq first), or whose grid has another width.

    6. With a recipe its rules of caches say which states are integers, and of what width; the others stay.

    Attributes:
        bits: 8 or 16.
        recipe: A shipped recipe's name, or a file of rules.
    """

    name: ClassVar[str] = "kv-io"

    bits: Literal[8, 16] = 8
    recipe: str | None = None

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; PassRefused, naming the state, before anything is changed."""
        with plain_pairs(model):
            found = find_states(model)
        states = [state for state in found if state.axis is not None and _is_float(state)]
        widths = self._widths(model, found)
        states = [state for state in states if state.layout.value not in ("fixed", "recurrent")]
        plans = [self._plan(s, widths.get(s.name, 0)) for s in states if self.recipe is None or s.name in widths]
        plans += self._marked(model, {id(node) for plan in plans for node in plan}, widths)
        passed = _passed(plans)
        for past, present in plans:
            if past is not None:
                _cut_input(past)
            if present is not None:
                _cut_output(model, present)
        counts = {"states": len(plans)} if plans else {}
        return GraphResult(model, bool(plans), counts=counts, contracts=passed)

    def run(self, program: Program) -> Report:
        """Changes every graph, and what was written of the states' precision before."""
        report = super().run(program)
        if report.modified:
            _unlist(program)
        return report

    def _widths(self, model: ir.Model, states: list[State]) -> dict[str, int]:
        """The bits of each state that the recipe puts on a grid, by name."""
        taken = taken_of(self.recipe)
        return Decider.of(model, taken, states).widths() if taken is not None else {}

    def _plan(self, state: State, bits: int = 0) -> tuple[ir.Node | None, ir.Node | None]:
        """The first node behind the past, and the last before the present."""
        bits = bits or self.bits
        past = self._behind(state, bits) if state.input is not None else None
        present = self._before(state, bits) if state.output is not None else None
        if past is not None and present is not None and _grid(past) != _grid(present):
            raise PassRefused(
                f"state {state.name!r} enters and leaves on different grids",
                where=self.name,
                found=f"{past.name} and {present.name}",
                hint="Run tie-states before insert-qdq.",
            )
        return past, present

    def _marked(
        self, model: ir.Model, planned: Container[int], widths: Mapping[str, int]
    ) -> list[tuple[None, ir.Node]]:
        """Presents that have no past, which the pairs hide from the search: insert-qdq left a mark at them."""
        found: list[tuple[None, ir.Node]] = []
        for node in model.graph:
            if node.op_type != "QuantizeLinear" or MARK not in node.metadata_props or id(node) in planned:
                continue
            if any(user.outputs[0].is_graph_output() for user, _ in node.outputs[0].uses()):
                state = node.metadata_props[MARK]
                found.append((None, self._wide(state, node, widths.get(state, self.bits))))
        return found

    def _behind(self, state: State, bits: int) -> ir.Node:
        assert state.input is not None
        readers = [node for node, _ in state.input.uses() if node.op_type != "Shape"]
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            raise self._bare(state, ", ".join(node.op_type for node in readers[:4]) or "nothing")
        return self._wide(state.name, readers[0], bits)

    def _before(self, state: State, bits: int) -> ir.Node:
        assert state.output is not None
        back = state.output.producer()
        source = back.inputs[0] if back is not None and back.op_type == "DequantizeLinear" else None
        node = source.producer() if source is not None else None
        if node is None or node.op_type != "QuantizeLinear":
            raise self._bare(state, back.op_type if back is not None else "nothing")
        return self._wide(state.name, node, bits)

    def _wide(self, state: str, node: ir.Node, bits: int) -> ir.Node:
        dtype = _integers(node)
        if _BITS.get(dtype) != bits:
            raise PassRefused(
                f"state {state!r} is on a grid of another width",
                where=self.name,
                found=dtype.name,
                wanted=f"{bits} bits",
                hint=f"tie-states{{bits={bits}}} before insert-qdq, or kv-io with the width that it has.",
            )
        return node

    def _bare(self, state: State, found: str) -> PassRefused:
        return PassRefused(
            f"no pair of QuantizeLinear and DequantizeLinear stands at state {state.name!r}",
            where=self.name,
            found=found,
            hint="Run tie-states and insert-qdq first.",
        )


def _unlist(program: Program) -> None:
    """Takes integers off the list of precisions, and out of the files that hold it."""
    ports = {v.name: v for model in program.graphs.values() for v in (*model.graph.inputs, *model.graph.outputs)}
    before = program.custom_io
    program.custom_io = {
        name: kind
        for name, kind in before.items()
        if (value := ports.get(name)) is None or value.dtype is None or value.dtype.is_floating_point()
    }
    if program.custom_io == before:
        return
    for file in [name for name in program.artifacts if name == CUSTOM_IO or name.endswith(f".{CUSTOM_IO}")]:
        graph = file.removesuffix(CUSTOM_IO).removesuffix(".")
        clone = program.clones.get(graph)
        model = program.graphs[clone.base if clone is not None else graph or program.names[0]]
        own = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
        left = {name: kind for name, kind in program.custom_io.items() if name in own}
        del program.artifacts[file]
        program.artifacts |= {file: write_custom_io(left)} if left else {}
    if ARGUMENTS in program.artifacts:
        EmitManifest(json.loads(program.artifacts[ARGUMENTS])["target"]).run(program)


def _is_float(state: State) -> bool:
    value = state.input if state.input is not None else state.output
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def _integers(node: ir.Node) -> ir.DataType:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = zero.const_value if zero is not None else None
    return tensor.dtype if tensor is not None else ir.DataType.UINT8


def _grid(node: ir.Node) -> tuple[object, ...]:
    """Scale and zero point as numbers: two initializers of one content are one grid."""
    tensors = [value.const_value for value in node.inputs[1:] if value is not None]
    return tuple((t.dtype, t.shape.numpy(), t.tobytes()) if t is not None else None for t in tensors)


def _passed(plans: Sequence[tuple[ir.Node | None, ir.Node | None]]) -> tuple[QuantizedIO, ...]:
    """The inputs and outputs that become integers, each with the grid of its node."""
    ports: dict[str, Grid] = {}
    for past, present in plans:
        if past is not None and past.inputs[0] is not None:
            ports[past.inputs[0].name or ""] = _contract_grid(past)
        for user, _ in present.outputs[0].uses() if present is not None else ():
            if present is not None and user.outputs[0].is_graph_output():
                ports[user.outputs[0].name or ""] = _contract_grid(present)
    return (QuantizedIO(tuple(ports), tuple(ports.values())),) if ports else ()


def _contract_grid(node: ir.Node) -> Grid:
    """The grid of a QuantizeLinear as numbers; its axis where there are several."""
    scale, zero = (
        value.const_value if value is not None else None for value in (node.inputs[1], (*node.inputs, None, None)[2])
    )
    assert scale is not None, "insert-qdq's scales are constants"
    axis = node.attributes.get("axis")
    scales = tuple(float(number) for number in scale.numpy().reshape(-1))
    zeros = tuple(int(number) for number in zero.numpy().reshape(-1)) if zero is not None else (0,)
    several = len(scales) > 1 or len(zeros) > 1
    return Grid(_integers(node).name, scales, zeros, (axis.as_int() if axis is not None else 1) if several else None)


def _cut_input(node: ir.Node) -> None:
    past = node.inputs[0]
    assert past is not None and node.graph is not None
    past.type = ir.TensorType(_integers(node))
    node.outputs[0].replace_all_uses_with(past)
    node.graph.remove(node, safe=True)


def _cut_output(model: ir.Model, node: ir.Node) -> None:
    """The integers take the output's name; what still reads the floats reads them under another one."""
    integers = node.outputs[0]
    back = next(user for user, _ in integers.uses() if user.outputs[0].is_graph_output())
    floats = back.outputs[0]
    name, shape = floats.name, floats.shape
    outputs = model.graph.outputs
    outputs[:] = [integers if output is floats else output for output in outputs]
    floats.name = f"kv-io/{name}/float"
    integers.name, integers.type, integers.shape = name, ir.TensorType(_integers(node)), shape
    if not floats.uses():
        model.graph.remove(back, safe=True)
