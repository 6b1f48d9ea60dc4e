"""insert-qdq puts activations and weights onto their grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UnknownNameError, UsageError
from ..ir.program.program import Program
from ..ir.quantization import Encoding, EncodingsInvalid, EncodingTable, Kind, encoding_groups, print_encodings
from ..ir.quantization.carried import put_table, table_of
from ..ir.quantization.choose import activations_of, as_held, check_tied, encoding_for, inside_sum, weights_of
from ..ir.quantization.decide import Choice, Decider, Taken, taken_of
from ..ir.quantization.grid import plain
from ..ir.quantization.qdq import (
    MARK,
    PAIR,
    check_grid,
    grid_type,
    lazily_quantized,
    on_grid,
    pair,
    plain_pairs,
    weight,
)
from ..ir.quantization.variants import Ports, Rules, Variant
from ..ir.quantization.weight_grids import weight_encoding
from ..ir.rewrite.builder import Builder
from ..ir.shapes.float_values import element_types
from ..ir.states import State, find_states
from .base import GraphResult, Pass, Report, merge_results

ACTIVATION_BITS = {"a8": 8, "a16": 16}
WEIGHT_BITS = {"w4": 4, "w8": 8}


@dataclass(frozen=True)
class InsertQdq(Pass):
    """Puts QuantizeLinear and DequantizeLinear onto activations, and quantizes weights once for all graphs.

    Before → after::

        y = MatMul(x, w)  →  y = MatMul(DQ(Q(x)), DQ(w as integers)), and what reads y reads DQ(Q(y))

    1. An activation takes its encoding of the program, else the grid of what was watched, asymmetric, of the asked
       width. States must be tied (tie-states): members of one state on different grids are refused.
    2. Weights of MatMul, Gemm and Conv take symmetric grids, one a channel of the output, or the program's encoding,
       which may have a scale for each block of a matrix (opset 21).
       Graphs that share a weight share its integers; its float form goes where nothing else reads it.
    3. Left in float: what depends on positions and masks alone, embedding tables, normalization weights, insides of
       fused attention, of local functions and of branches, ``keep``, and a product without evidence that only the sum
       with a bias reads: AIMET and NPUs take the two as one.
    4. Widths other than 8 use com.microsoft's operators below opset 21.
    5. What was applied becomes the program's encodings, and ``encodings.json`` (AIMET 1.0.0) beside the graphs.
    6. With a recipe its rules decide, tensor by tensor: bits, symmetry, granularity, method; later rules win, every
       rule tells how many tensors it took, and one that takes none is refused. What no rule takes stays in float.
       A grid of other bits that a file brought is made anew.
    7. An operator goes by a rule of exactly the asked variant, else by a common one, else it is refused: prefill and
       decode have none of their own until somebody opts in (``rules`` here, ``add_rule`` in Python).

    Refused, naming it: a float tensor without evidence, and an operator that no rule covers.

    Attributes:
        activations: a16, a8, or none; auto is a16, or what the recipe says.
        weights: w8, w4, or none; auto is w8, or what the recipe says.
        per_channel: One grid a channel of a weight, or one a weight.
        recipe: A shipped recipe's name, or a file of rules; `onnx-passes recipe` shows both.
        keep: Nodes that stay in float, by name or operator type; `*` and `?` stand for any characters.
        variant: Whose rules count where an operator has some of its own: common, prefill, decode.
        rules: Operator type -> all (what it reads and gives), outputs (it reads floats) or states, for this variant.
    """

    name: ClassVar[str] = "insert-qdq"

    activations: Literal["auto", "a16", "a8", "none"] = "auto"
    weights: Literal["auto", "w8", "w4", "none"] = "auto"
    per_channel: bool = True
    recipe: str | None = None
    keep: tuple[str, ...] = ()
    variant: Variant = Variant.COMMON
    rules: Mapping[str, str] = field(default_factory=dict[str, str])

    def call(self, model: ir.Model) -> GraphResult:
        """Runs on a program of this one graph."""
        report = self.run(Program(graphs={"graph": model}))
        return GraphResult(model, report.modified, counts=report.counts, notes=report.notes, warnings=report.warnings)

    def run(self, program: Program) -> Report:
        """Plans every graph first, so that a refusal changes nothing; then edits them."""
        table = table_of(program)
        rules = self._rules()
        rules.check_keep(program.graphs.values(), where=self.name)
        taken = self._taken()
        plans = [(name, self._plan(model, table, rules, taken)) for name, model in program.graphs.items()]
        if taken is not None:
            taken.check(KINDS, optional=any(_is_quantized(model) for model in program.graphs.values()))
        shared: _Shared = {}
        for _, plan in plans:
            for value, (axis, choice) in plan.weights.items():
                plan.integers[value] = self._integers(plan, value, axis, choice, table, shared)
        # grids are made: what they were chosen from has done its work
        ranges = {name: replace(seen, method="", histogram=None) for name, seen in table.ranges.items()}
        applied = EncodingTable(dict(table.encodings), ranges)
        results = [(name, self._apply(plan, applied)) for name, plan in plans]
        if any(result.modified for _, result in results):
            put_table(program, applied)
            stated = EncodingTable({n: e for n, e in applied.encodings.items() if e.kind is not None and not e.turned})
            program.artifacts["encodings.json"] = print_encodings(stated, "aimet-1.0.0")
        report = merge_results(results)
        widths = Counter(encoding.bits for _, plan in plans for encoding, _ in plan.activations.values())
        notes = taken.notes(KINDS) if taken is not None else ()
        return replace(report, notes=(*report.notes, *notes), warnings=(*report.warnings, *self._other_widths(widths)))

    def _taken(self) -> Taken | None:
        """What the rules of the recipe take, nothing yet; UsageError where it stands beside options that it decides."""
        if self.recipe is not None and (self.activations != "auto" or self.weights != "auto" or not self.per_channel):
            raise UsageError(
                "a recipe decides bits and granularity: activations, weights and per_channel do not stand beside it",
                where=self.name,
                hint="Write it as the recipe's last rule.",
            )
        return taken_of(self.recipe)

    @property
    def _asked(self) -> tuple[int, int]:
        """The bits of activations and of weights, 0 for float."""
        activations = {"auto": "a16"}.get(self.activations, self.activations)
        weights = {"auto": "w8"}.get(self.weights, self.weights)
        return ACTIVATION_BITS.get(activations, 0), WEIGHT_BITS.get(weights, 0)

    def _other_widths(self, widths: Counter[int]) -> tuple[str, ...]:
        """A warning where the program's encodings decided for other widths than were asked for; states are apart."""
        asked, _ = self._asked
        wider = sum(number for bits, number in widths.items() if bits > asked)
        if self.recipe is not None or not asked or not wider:
            return ()
        counts = ", ".join(f"a{bits} {number}" for bits, number in sorted(widths.items()))
        return (
            f"activations=a{asked} was asked, and the encodings hold grids of more bits, which count: "
            f"{counts}; calibrate with --bits {asked}, or with --format native, which leaves the width open",
        )

    def _rules(self) -> Rules:
        """What this run goes by; UnknownNameError where ``rules`` names no kind of ports."""
        known = {ports.value: ports for ports in Ports}
        unknown = next((kind for kind in self.rules.values() if kind not in known), None)
        if unknown is not None:
            raise UnknownNameError("kind of ports", unknown, known, where=self.name)
        return Rules(self.variant, {op: known[kind] for op, kind in self.rules.items()}, self.keep)

    def _plan(self, model: ir.Model, table: EncodingTable, rules: Rules, taken: Taken | None) -> _GraphPlan:
        types = element_types(model)
        plan = _GraphPlan(model, rules, {})
        if taken is None and not self._asked[0]:
            plan.weights = self._weights(model, rules, None)
            return plan
        with plain_pairs(model):
            states = find_states(model)
            decider = Decider.of(model, taken, states) if taken is not None else None
            plan.weights = self._weights(model, rules, decider)
            _refuse_functions(states)
            plan.states = {v: s.name for s in states if s.keeps_rows for v in (s.input, s.output) if v is not None}
            groups = decider.groups if decider is not None else encoding_groups(model, states)
            check_tied([group for group in groups if decider is None or decider.group(group) is not None], table)
        for value, choice in self._activations(activations_of(model, states, rules), decider).items():
            if not any(rules.reads(node) for node, _ in value.uses()) and not value.is_graph_output():
                continue
            if on_grid(value):
                continue
            if inside_sum(table, value):
                plan.inner += 1
                continue
            name, dtype = value.name or "", types.get(value, ir.DataType.FLOAT)
            encoding = as_held(encoding_for(table, value, choice), dtype, Kind.ACTIVATION)
            if encoding.block is not None or encoding.levels:
                raise EncodingsInvalid(f"tensor {name!r} is computed, and has scales of blocks", where=self.name)
            shape = [dim if isinstance(dim, int) else None for dim in value.shape] if value.shape is not None else None
            check_grid(name, encoding, dtype, shape, plan.opset)
            plan.activations[value] = (encoding, dtype)
        return plan

    def _weights(self, model: ir.Model, rules: Rules, decider: Decider | None) -> dict[ir.Value, tuple[int, Choice]]:
        found = weights_of(model, rules) if decider is not None or self._asked[1] else {}
        if decider is not None:
            return {value: made for value, made in decider.weights(found).items() if _is_free(value, rules)}
        choice = Choice(self._asked[1], symmetric=True, block=0 if self.per_channel else None)
        return {value: (axis, choice) for value, axis in found.items()}

    def _activations(self, values: Sequence[ir.Value], decider: Decider | None) -> dict[ir.Value, Choice]:
        if decider is not None:
            return decider.activations(values)
        return dict.fromkeys(values, Choice(self._asked[0], symmetric=False))

    def _apply(self, plan: _GraphPlan, applied: EncodingTable) -> GraphResult:
        builder = Builder(plan.model.graph, self.name)
        for value, (stated, encoding, integers) in plan.integers.items():
            applied.encodings[value.name or ""] = stated
            _replace_weight(plan, builder, value, encoding, integers)
        for value, (encoding, dtype) in plan.activations.items():
            applied.encodings[value.name or ""] = encoding
            mark = plan.states.get(value)
            nodes = _insert(plan, builder, value, encoding, dtype)
            for node in nodes if mark is not None else ():
                node.metadata_props[MARK] = mark or ""
        counts = {"activations": len(plan.activations), "weights": len(plan.weights), "inside sums": plan.inner}
        counts = {what: number for what, number in counts.items() if number}
        return GraphResult(plan.model, bool(counts), counts=counts)

    def _integers(
        self, plan: _GraphPlan, value: ir.Value, axis: int, choice: Choice, table: EncodingTable, shared: _Shared
    ) -> _Integers:
        """A weight's encoding, its grid, and its integers; made once where graphs share it."""
        tensor = value.const_value
        assert tensor is not None, "weights_of gives initializers"
        key, name = _same_bytes(tensor), value.name or ""
        if key not in shared:
            array = tensor.numpy()
            given = table.encodings.get(name)
            if given is not None and choice.strict and given.bits != choice.bits:
                given = None
            made = given or weight_encoding(name, array, choice, axis)
            stated = as_held(made, tensor.dtype, Kind.PARAM)
            encoding = as_held(plain(stated), tensor.dtype, Kind.PARAM)
            check_grid(name, encoding, tensor.dtype, array.shape, plan.opset)
            kind = grid_type(name, encoding)
            shared[key] = stated, encoding, lazily_quantized(tensor, encoding, kind)
        found = shared[key]
        if choice.strict and found[0].bits != choice.bits:
            raise PassRefused(
                f"weight {name!r} stands in several graphs or under several names, and rules give it different bits",
                where=self.name,
                found=f"{found[0].bits} and {choice.bits}",
                hint="Let one rule take it by its name.",
            )
        return found


KINDS = ("weights", "activations")


def _is_quantized(model: ir.Model) -> bool:
    """Rules took their tensors in an earlier run: what is left of them may be nothing."""
    return any(node.op_type in PAIR for node in model.graph)


def _is_free(value: ir.Value, rules: Rules) -> bool:
    """A weight that something reads on a grid: not one whose readers are all kept."""
    return any(rules.reads(node) for node, _ in value.uses())


_Integers = tuple[Encoding, Encoding, ir.TensorProtocol]
_Shared = dict[object, _Integers]


def _same_bytes(tensor: ir.TensorProtocol) -> object:
    """What two tensors have in common that are one weight: the object, or their place in a file."""
    if isinstance(tensor, ir.ExternalTensor):
        return str(tensor.path), tensor.offset, tensor.dtype, tuple(tensor.shape.numpy())
    return id(tensor)


@dataclass
class _GraphPlan:
    """What is done to one graph."""

    model: ir.Model
    rules: Rules
    activations: dict[ir.Value, tuple[Encoding, ir.DataType]]
    weights: dict[ir.Value, tuple[int, Choice]] = field(default_factory=dict[ir.Value, "tuple[int, Choice]"])
    states: dict[ir.Value, str] = field(default_factory=dict[ir.Value, str])
    integers: dict[ir.Value, _Integers] = field(default_factory=dict[ir.Value, "_Integers"])
    inner: int = 0

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return self.model.graph.opset_imports.get("", 0)


def _refuse_functions(states: Sequence[State]) -> None:
    """Pairs around a call would hide from everybody that the cache goes through it."""
    inside = [state for state in states if state.function]
    if inside:
        raise PassRefused(
            f"state {inside[0].name!r} is carried inside a local function",
            where="insert-qdq",
            found=inside[0].function,
            hint="Inline it first (pass ir-inline), then calibrate and quantize the inlined graph.",
        )


def _insert(
    plan: _GraphPlan, builder: Builder, value: ir.Value, encoding: Encoding, dtype: ir.DataType
) -> list[ir.Node]:
    """Everything that reads ``value`` reads it through a pair, but what reads floats, and shape arithmetic."""
    readers = [(node, index) for node, index in value.uses() if plan.rules.reads(node)]
    leaves = value.is_graph_output()
    if not readers and not leaves:
        return []
    integers, result = pair(builder, value, encoding, dtype)
    for node, index in readers:
        node.replace_input_with(index, result)
    if leaves and value.producer() is not None:
        _leave(builder, value, result)
    _place(builder, value.producer())
    return [node for made in (integers, result) if (node := made.producer()) is not None]


def _leave(builder: Builder, value: ir.Value, result: ir.Value) -> None:
    """The graph output keeps its name and type, and is the value on its grid now."""
    name = value.name or ""
    result.type, result.shape = value.type, value.shape
    outputs = builder.graph.outputs
    value.name = builder.fresh(f"{name}/float")
    result.name = name
    outputs[:] = [result if output is value else output for output in outputs]


def _place(builder: Builder, producer: ir.Node | None) -> None:
    """Behind what makes the tensor; what a graph starts with goes before its first node."""
    if producer is not None:
        builder.place_after(producer)
    elif len(builder.graph):
        builder.place_before(builder.graph[0])
    else:
        builder.place_end()


def _replace_weight(
    plan: _GraphPlan, builder: Builder, value: ir.Value, encoding: Encoding, integers: ir.TensorProtocol
) -> None:
    """The operators that multiply by the weight read its integers; anything else keeps the floats."""
    floats = weight(builder, value, encoding, integers)
    for reader, index in _multiplying(value, plan.rules, plan.weights[value][1].strict):
        reader.replace_input_with(index, floats)
    _place(builder, None)
    if not value.uses() and not value.is_graph_output():
        name = value.name or ""
        del builder.graph.initializers[name]
        floats.name = name


def _multiplying(value: ir.Value, rules: Rules, tables: bool) -> Iterable[tuple[ir.Node, int]]:
    """The uses of a weight whose node reads grids; ``tables`` says whether lookups in it are among them."""
    return [(node, index) for node, index in value.uses() if (tables or node.op_type != "Gather") and rules.reads(node)]
