"""Makes a copy of a graph that gives the ranges of its float tensors instead of their numbers: two scalars each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.constants import constant_of
from ...ir.core.errors import PassRefused
from ...ir.core.operators import names, of
from ...ir.core.operators.walks import SCORES_SCALED
from ...ir.shapes.float_values import element_types, float_values
from ...ir.states import State
from .tail import Tail

OWNER = "calibrate"
HIDDEN = -40.0  # a score this far below loses its weight: exp(-40) is nothing to any grid
MASK_FLOOR = -120.0  # what a mask's huge fill is clamped to
SCORE_ROOM = 20.0  # how far below the smallest valid score a masked one may be put: exp(-20)
BINS = 2048
SCATTER_ADDS = 16  # the opset from which ScatterElements can add
_MIXERS = names(lambda row: row.product or row.attention, None)
BIG = float(np.finfo(np.float32).max)


@dataclass(eq=False)
class Watch:
    """What is watched, in order: ``names[i]`` has the outputs ``low(i)`` and ``high(i)``, and perhaps ``counts(i)``.

    Attributes:
        model: The copy; its outputs are the carried states' and the reductions.
        names: The watched tensors.
        masks: Those that hold mask arithmetic: their huge fills are clamped.
        sound: Output that tells a NaN -> the tensor it would be in.
        added: Of these, what is added to scores: it reaches down to the clamp whether a run masked anything or not.
        scores: Those that hold scores after masking: they get room below for the masked ones.
    """

    model: ir.Model
    names: list[str]
    masks: set[str] = field(default_factory=set[str])
    scores: set[str] = field(default_factory=set[str])
    added: set[str] = field(default_factory=set[str])
    sound: dict[str, str] = field(default_factory=dict[str, str])


def low(index: int) -> str:
    """The output that holds the smallest number of a tensor."""
    return f"{OWNER}/{index}/low"


def high(index: int) -> str:
    """The output that holds the largest number of a tensor."""
    return f"{OWNER}/{index}/high"


def counts(index: int) -> str:
    """The output that holds a tensor's histogram, ``int64[BINS + 1]``, the last for what is masked."""
    return f"{OWNER}/{index}/counts"


def watch(
    model: ir.Model,
    states: Sequence[State],
    edges: Sequence[tuple[float, float]] | None = None,
    *,
    envelope: bool = False,
) -> Watch:
    """A copy of ``model`` whose extra outputs tell ranges, or with ``edges`` histograms between them.

    Masked scores are left out. ``envelope`` watches, for keys ``[.., 2h]``, the norms of the rotated pairs as well.
    Raises PassRefused where the opset is too old for histograms.
    """
    copy = model.clone()
    if edges is not None and copy.graph.opset_imports.get("", SCATTER_ADDS) < SCATTER_ADDS:
        raise PassRefused(
            "the graph is too old for histograms",
            where="calibrate",
            found=f"opset {copy.graph.opset_imports.get('')}",
            wanted=f"opset {SCATTER_ADDS}",
            hint="Use --method minmax, or raise the model's opset.",
        )
    carried = {state.output.name for state in states if state.output is not None}
    given = {state.input.name for state in states if state.input is not None}
    watched = [value for value in float_values(copy) if value.name not in given]
    context = _Context(copy)
    if envelope:
        watched += [pairs for name in _keys(states) for pairs in context.pair_norms(name)]
    plan = Watch(copy, [value.name or "" for value in watched], context.masks(), context.masked, context.added)
    kept = [value for value in copy.graph.outputs if value.name in carried]
    answer = next((value for value in copy.graph.outputs if value.name not in carried), None)
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(kept)
    for index, value in enumerate(watched):
        if edges is None:
            context.ranges(index, value)
        else:
            context.histogram(index, value, *edges[index])
    leaving = [*kept, answer] if answer is not None else kept
    for index, value in enumerate(leaving):
        plan.sound[nan(index)] = value.name or ""
        context.not_a_number(value, nan(index))
    if answer is not None:
        context.tail.output(context.tail.op("Shape", [answer], ir.DataType.INT64), ROWS, [None])
    context.tail.place()
    return plan


def nan(index: int) -> str:
    """The output that tells whether a NaN left the graph: reductions may lose one on the way."""
    return f"{OWNER}/{index}/nan"


ROWS = f"{OWNER}/rows"  # the output that holds the shape of the first answer: how many tokens it speaks of


def envelope_of(name: str) -> str:
    """What the norms of a key's rotated pairs are called."""
    return f"{OWNER}/{name}/pairs"


def _keys(states: Sequence[State]) -> list[str]:
    return [state.output.name or "" for state in states if state.kind == "key" and state.output is not None]


class _Context:
    """The copy under work: what masks what, and the nodes that are added at its end."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.tail = Tail(model.graph, OWNER)
        self.types = element_types(model)
        self.mixed: dict[ir.Value, bool] = {}
        self.valid: dict[ir.Value, ir.Value] = {}
        self.masked: set[str] = set()
        self.operands: list[ir.Value] = []
        self.added: set[str] = set()
        for node in list(model.graph):
            if node.op_type == "Softmax" and not node.domain and node.inputs[0] is not None:
                self._follow(node.inputs[0])

    def masks(self) -> set[str]:
        """Mask operands and the values that only masks are made of."""
        found: set[str] = set()
        work = list(self.operands)
        while work:
            value = work.pop()
            if value.name in found or self._is_mixed(value):
                continue
            found.add(value.name or "")
            node = value.producer()
            work.extend(v for v in (node.inputs if node is not None else ()) if v is not None)
        return found

    def _follow(self, value: ir.Value) -> None:
        """From a softmax back to the product of queries and keys: every score on the way is valid where all masks are.

        The scores before a mask are computed for entries that it hides too: those are not seen either.
        """
        chain, conditions = [value], list[ir.Value]()
        while (step := self._before(chain[-1])) is not None:
            source, condition = step
            if condition is not None:
                conditions.append(condition)
                self.masked.update(v.name or "" for v in chain)
            chain.append(source)
        if conditions:
            valid = conditions[0]
            for other in conditions[1:]:
                valid = self.tail.op("And", [valid, other], ir.DataType.BOOL)
            self.valid.update(dict.fromkeys(chain, valid))

    def _before(self, value: ir.Value) -> tuple[ir.Value, ir.Value | None] | None:
        """The scores that ``value`` is made of, and where they are valid if a mask is applied here; None at the end."""
        node = value.producer()
        if node is None or node.domain:
            return None
        if node.op_type == "Where":
            return self._where(node)
        if node.op_type in SCORES_SCALED:
            source = next((v for v in node.inputs if v is not None and self._is_mixed(v)), None)
            others = [v for v in node.inputs if v is not None and v is not source]
            if source is None or any(self._is_mixed(v) for v in others):
                return None
            return source, self._added(node, others)
        return None

    def _added(self, node: ir.Node, others: Sequence[ir.Value]) -> ir.Value | None:
        if node.op_type != "Add" or constant_of(others[0]) is not None:
            return None
        self.operands.append(others[0])
        self.added.add(others[0].name or "")
        return self.tail.op("Greater", [self._float(others[0]), self.tail.scalar(HIDDEN)], ir.DataType.BOOL)

    def _where(self, node: ir.Node) -> tuple[ir.Value, ir.Value | None] | None:
        condition, first, second = node.inputs[0], node.inputs[1], node.inputs[2]
        if condition is None or first is None or second is None or self._is_mixed(first) == self._is_mixed(second):
            return None
        if self._is_mixed(first):
            self.operands.append(second)
            return first, condition
        self.operands.append(first)
        return second, self.tail.op("Not", [condition], ir.DataType.BOOL)

    def _is_mixed(self, value: ir.Value) -> bool:
        """Whether a product (or an unknown operator) stands anywhere before ``value``."""
        work = [value]
        while work:
            current = work[-1]
            node = current.producer()
            if node is not None and of(node).sizes:
                self.mixed[current] = False  # how large a product is is no number of it
            elif current not in self.mixed and node is not None and node.op_type not in _MIXERS and not node.domain:
                unknown = [v for v in node.inputs if v is not None and v not in self.mixed]
                if unknown:
                    work.extend(unknown)
                    continue
                self.mixed[current] = any(self.mixed[v] for v in node.inputs if v is not None)
            self.mixed.setdefault(current, node is not None)
            work.pop()
        return self.mixed[value]

    def ranges(self, index: int, value: ir.Value) -> None:
        """The two outputs of a tensor."""
        for op_type, name, away in (("ReduceMin", low(index), BIG), ("ReduceMax", high(index), -BIG)):
            seen = self._float(value)
            if value in self.valid:
                seen = self.tail.op("Where", [self.valid[value], seen, self.tail.scalar(away)])
            self.tail.output(self.tail.op(op_type, [seen], keepdims=0), name, [])

    def not_a_number(self, value: ir.Value, name: str) -> None:
        """One output: 1 where a NaN is in the tensor."""
        if self.types.get(value, value.dtype) in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
            found = self.tail.op("Cast", [self.tail.op("IsNaN", [value], ir.DataType.BOOL)], to=int(ir.DataType.FLOAT))
            self.tail.output(self.tail.op("ReduceMax", [found], keepdims=0), name, [])

    def histogram(self, index: int, value: ir.Value, first: float, last: float) -> None:
        """The counts of a tensor between two edges: bin numbers, then one added at each."""
        t = self.tail
        scale = BINS / (last - first) if last > first and np.isfinite(BINS / (last - first)) else 0.0
        at = t.op("Mul", [t.op("Sub", [self._float(value), t.scalar(first)]), t.scalar(scale)])
        at = t.op("Max", [t.op("Min", [t.op("Floor", [at]), t.scalar(BINS - 1.0)]), t.scalar(0.0)])
        if value in self.valid:
            at = t.op("Where", [self.valid[value], at, t.scalar(float(BINS))])
        integer = {"to": int(ir.DataType.INT64)}
        bins = t.op("Cast", [t.op("Reshape", [at, t.ints([-1])])], ir.DataType.INT64, **integer)
        ones = t.op("Cast", [t.op("Equal", [bins, bins], ir.DataType.BOOL)], ir.DataType.INT64, **integer)
        zeros = t.constant(np.zeros(BINS + 1, np.int64))
        total = t.op("ScatterElements", [zeros, bins, ones], ir.DataType.INT64, axis=0, reduction="add")
        t.output(total, counts(index), [BINS + 1])

    def pair_norms(self, name: str) -> list[ir.Value]:
        """The norm of each rotated pair ``(d, d + h)`` of a present key ``[B,H,T,2h]`` or ``[B,H,2h,T]``."""
        value = next(v for v in self.graph.outputs if v.name == name)
        dims = [dim if isinstance(dim, int) else None for dim in value.shape or ()]
        axis = next((a for a in (len(dims) - 1, len(dims) - 2) if a > 1 and dims[a] is not None), None)
        size = dims[axis] if axis is not None else None
        if axis is None or size is None or size % 2:
            return []
        t, half = self.tail, size // 2
        parts = [t.op("Slice", [value, t.ints([start]), t.ints([start + half]), t.ints([axis])]) for start in (0, half)]
        norm = t.op("Sqrt", [t.op("Add", [t.op("Mul", [part, part]) for part in parts])])
        norm.name = envelope_of(name)
        return [norm]

    def _float(self, value: ir.Value) -> ir.Value:
        if self.types.get(value, ir.DataType.FLOAT) is ir.DataType.FLOAT:
            return value
        return self.tail.op("Cast", [value], to=int(ir.DataType.FLOAT))
