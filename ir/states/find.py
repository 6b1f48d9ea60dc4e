"""Finds the carried states of a graph by structure: which input comes back as which output, and how it is updated."""

from __future__ import annotations

from collections.abc import Container, Iterator

import onnx_ir as ir

from ..core.dataflow import reached
from ..core.errors import ONE_GRAPH, expect
from ..core.operators.walks import PARTS
from ..core.scopes import bodies, holders
from . import append, cells, delta, fixed, fused, recurrent, scatter, stacked, window
from .attention import attends
from .base import Branch, Pairing, State
from .control_flow_outputs import branch_of, branch_outputs, cache_functions, inline_cache_functions
from .entries import apply_entries, entry_axis
from .layouts import Layout
from .names import kind_of, label, layer_of
from .signatures import Signatures
from .trace import backward, forward


def find_states(model: ir.Model) -> list[State]:
    """All states of the graph, paired ones by input order, then those found in one direction only; changes nothing.

    A renamed graph gives the same states: names only tell the layer and confirm the kind. States inside local
    functions and If branches are found too; ``State.function`` or ``State.branch`` says where they live.
    """
    expect(ir.Model, model, "find_states", ONE_GRAPH)
    if model.functions and cache_functions(model):
        return _through_functions(model)
    return find_in(model, model.graph)


def find_in(model: ir.Model, graph: ir.Graph) -> list[State]:
    """The states of one graph of the model: the main graph, or the body of a function whose inputs have their types."""
    search = _Search(model, graph)
    states = search.paired_and_inputs()
    states += search.outputs_alone(states)
    label(states)
    return states


def _through_functions(model: ir.Model) -> list[State]:
    """The states of a copy whose cache functions are inlined, as values of ``model`` itself."""
    names = ", ".join(sorted(f"{domain}::{name}" for domain, name, _ in cache_functions(model)))
    copy = model.clone()
    inline_cache_functions(copy)
    values = {v.name: v for v in (*model.graph.inputs, *model.graph.outputs)}
    states: list[State] = []
    for found in find_states(copy):
        state = State(found.layout, found.pairing, found.layer, found.kind, axis=found.axis, evidence=found.evidence)
        state.input = values.get(found.input.name) if found.input is not None else None
        state.output = values.get(found.output.name) if found.output is not None else None
        state.function, state.conv_rows, state.recurrent = names, found.conv_rows, found.recurrent
        states.append(state)
    return states


class _Search:
    """One search over one graph."""

    def __init__(self, model: ir.Model, graph: ir.Graph) -> None:
        self.graph = graph
        self.signatures = Signatures(model)
        self.bridges = branch_outputs(graph)
        self.outputs = {id(value) for value in graph.outputs}
        self.inputs = {id(value) for value in graph.inputs}
        self.taken: set[int] = set()
        self.holders: dict[ir.Node, ir.Node] | None = None

    def paired_and_inputs(self) -> list[State]:
        """The states that start at an input: first the certain layouts, then recurrences among what is left."""
        values = [value for value in self.graph.inputs if not value.is_initializer()]
        found: dict[int, State] = {}
        for value in values:
            state = self._certain(value)
            if state is not None:
                found[id(value)] = state
                self.taken.add(id(state.output))
        free = [output for output in self.graph.outputs if id(output) not in self.taken]
        optional = [
            value
            for value in self.graph.inputs
            if value.is_initializer() and any(recurrent.may_be_same(value, output) for output in free)
        ]  # files of old IR versions list every weight as an input
        for value in (*values, *optional):
            state = self._recurrent(value) if id(value) not in found else None  # claimed outputs are no hidden rows
            if state is not None:
                found[id(value)] = state
                self.taken.add(id(state.output))
        return [self._finish(found[id(value)]) for value in self.graph.inputs if id(value) in found]

    def outputs_alone(self, states: list[State]) -> list[State]:
        """The outputs that are some state's present though no input is its past."""
        claimed = {id(state.output) for state in states if state.output is not None}
        found = (self._from_output(value) for value in self.graph.outputs if id(value) not in claimed)
        return [self._finish(state) for state in found if state is not None]

    def _certain(self, value: ir.Value) -> State | None:
        candidates = list(self._updates(value))
        for state in candidates:
            if (output := self._end_of(state)) is not None:
                state.output = output
                return state
        for state in candidates:
            narrowed = self._windowed(state) or delta.match(state, self.outputs)
            if narrowed is not None:
                return narrowed
        for state in candidates:  # updated, but never leaves: only a real key or value is reported
            attended = state.carried is not None and self._attends(state.carried)
            if state.layout is Layout.FUSED or (attended and _is_all_cache(value, state, self.outputs)):
                state.pairing = Pairing.INPUT_ONLY
                return state
        if (stack := stacked.match(value, self.outputs)) is not None:
            return stack
        found = fixed.match(value, self.outputs, self.signatures.reads, self.bridges)
        kept = found is None or found.output is not None
        return found if kept else self._of_parts(value) or found

    def _of_parts(self, value: ir.Value) -> State | None:
        alone = min(len(self.graph.inputs), len(self.graph.outputs)) < 2  # what is all there is, is carried nowhere
        if alone or self._has_row_per_token(value):
            return None
        return cells.match(value, self.graph.outputs, self.taken, self._reaches)

    def _reaches(self, value: ir.Value, output: ir.Value) -> bool:
        if self.holders is None:
            self.holders = holders(self.graph)
        return output in reached([value], self.holders)

    def _recurrent(self, value: ir.Value) -> State | None:
        if self._is_embedding(value):  # unless it is read by a product with a computed tensor, as no hidden rows are
            found = recurrent.match(value, self.outputs, self.taken)
            return found if found is not None and recurrent.is_read_out(found.output) else self._of_parts(value)
        return (
            recurrent.match_counter(value, self.outputs)
            or recurrent.match_scan(value, self.outputs)
            or recurrent.match(value, self.outputs, self.taken, self._attends)
            or self._of_parts(value)
        )

    def _from_output(self, value: ir.Value) -> State | None:
        root, cut = _uncut(self._inside(backward(value)[0]))
        if id(root) in self.inputs or (value.shape is not None and len(value.shape) < 2):
            return None
        port = _present_port(root)
        kind = self._attends(root)
        if port is None and kind is None:
            if not recurrent.is_final_state(value):
                return None
            state = State(Layout.RECURRENT, Pairing.OUTPUT_ONLY, output=value, carried=root)
            state.evidence = "a recurrence or convolution ends in it, and no input is its past"
            return state
        layout = Layout.FUSED if port else Layout.WINDOW if cut else Layout.APPEND
        state = State(layout, Pairing.OUTPUT_ONLY, output=value, carried=root)
        state.kind = kind or "state"
        state.evidence = "an attention takes it as key or value, and no input is its past"
        return state

    def _updates(self, value: ir.Value) -> Iterator[State]:
        for path in forward(value, entry=entry_axis):
            for node, index in path.value.uses():
                state = (
                    fused.match(path, node, index)
                    or append.match(path, node, index)
                    or scatter.match(path, node, index, self.signatures)
                )
                if state is None:
                    continue
                state.input = value
                if apply_entries(state, path) is None:
                    continue
                if node.graph is not self.graph:
                    state.branch = self._branch_of(node)
                yield state

    def _end_of(self, state: State) -> ir.Value | None:
        """The graph output that holds ``carried``, moved or as it is, of the input's rank and, if one is, its type."""
        if state.carried is None or state.input is None:
            return None
        ends = [t.value for t in forward(state.carried, self.bridges) if id(t.value) in self.outputs]
        same = (value for value in ends if _comparable(state.input, value))
        return next(same, next((value for value in ends if _cast_between(state.input, value)), None))

    def _windowed(self, state: State) -> State | None:
        """``state`` as a window, where only the last rows of its Concat reach an output."""
        if state.carried is None or state.layout not in (Layout.APPEND, Layout.WINDOW):
            return None
        for path in forward(state.carried):
            for node in window.last_rows(path):
                for end in forward(node.outputs[0], self.bridges):
                    if (
                        id(end.value) in self.outputs
                        and state.input is not None
                        and _comparable(state.input, end.value)
                    ):
                        state.output = end.value
                        return window.narrow(state, node)
        return None

    def _attends(self, value: ir.Value) -> str | None:
        return attends(value, self.signatures.reads)

    def _inside(self, value: ir.Value) -> ir.Value:
        """The value of a branch that an If hands out as ``value``, else ``value``."""
        for branch in (g for n in (value.producer(),) if n is not None and n.op_type == "If" for g in bodies(n)):
            inner = backward(branch.outputs[value.index() or 0])[0]
            if self._attends(inner):
                return inner
        return value

    def _branch_of(self, node: ir.Node) -> Branch:
        """The If of this graph whose branch holds ``node``, and the input that switches it."""
        if self.holders is None:
            self.holders = holders(self.graph)
        holder = self.holders.get(node)
        return branch_of(holder) if holder is not None else Branch()

    def _is_embedding(self, value: ir.Value) -> bool:
        """True for hidden rows: the batch and sequence axes of an output of other width, or of an integer input."""
        shape = [str(d) for d in value.shape or ()]
        free = (v for v in self.graph.outputs if v.shape is not None and id(v) not in self.taken)
        others = ([str(d) for d in output.shape or ()] for output in free)
        return len(shape) == 3 and (
            any(len(o) == 3 and o[:2] == shape[:2] and o != shape for o in others) or self._has_row_per_token(value)
        )

    def _has_row_per_token(self, value: ir.Value) -> bool:
        """True for rank 3 on the batch and sequence axes of an integer input."""
        shape = [str(d) for d in value.shape or ()]
        rows = ([str(d) for d in v.shape or ()][:2] for v in self.graph.inputs if v.dtype and v.dtype.is_integer())
        return len(shape) == 3 and shape[:2] in list(rows)

    def _finish(self, state: State) -> State:
        state.layer = layer_of(state.name)
        if state.layout is Layout.RECURRENT and state.carried is not None and self._attends(state.carried):
            state.layout = Layout.WINDOW  # keys and values that are shifted or rolled in place: a ring
        if state.pairing is Pairing.OUTPUT_ONLY and kind_of(state.name) == "cross":
            state.kind = "cross"
        if state.kind == "state":
            source = state.carried if state.carried is not None else state.input
            by_structure = self._attends(source) if source is not None else None
            state.kind = kind_of(state.name) or by_structure or _port_kind(state) or "state"
        if state.axis is None and state.layout is not Layout.RECURRENT and not state.recurrent:
            state.axis = _differing_axis(state.input, state.output)
        elif state.axis is not None and state.axis < 0 and state.input is not None:
            state.axis += _rank(state.input) or 0
        return state


def _is_all_cache(value: ir.Value, state: State, outputs: Container[int]) -> bool:
    """True where an input is used for the update, its shape and to leave as it came: rows that enter do more."""
    nodes = {id(node) for node in (*state.chain, state.update)}
    return all(
        id(node) in nodes or node.op_type == "Shape" or (node.op_type == "Identity" and id(node.outputs[0]) in outputs)
        for node, _ in value.uses()
    )


def _present_port(value: ir.Value) -> fused.Port | None:
    """The port of a carrying operator that ``value`` leaves by, its past left out."""
    node = value.producer()
    ports = fused.PORTS.get((node.domain, node.op_type), ()) if node is not None else ()
    return next((port for port in ports if port.present == value.index()), None)


def _uncut(value: ir.Value) -> tuple[ir.Value, bool]:
    """What ``value`` is a part of: the whole keys of which a window keeps the last rows, or packed keys and values.

    The second item is True for a window's last rows.
    """
    node = value.producer()
    source = node.inputs[0] if node is not None and node.inputs else None
    if node is None or source is None:
        return value, False
    if window.keeps_end(node):
        return backward(source)[0], True
    packed = node.op_type in PARTS and not node.domain and _present_port(source) is not None
    return (source if packed else value), False


def _port_kind(state: State) -> str | None:
    port = state.port
    if port is None or state.update is None:
        return None
    if state.recurrent:
        return "conv" if "Conv" in state.update.op_type else "recurrent"
    ports = fused.PORTS[state.update.domain, state.update.op_type]
    return "key" if port is ports[0] and len(ports) > 1 else "value" if len(ports) > 1 else None


def _rank(value: ir.Value) -> int | None:
    return len(value.shape) if value.shape is not None else None


def _comparable(past: ir.Value, present: ir.Value) -> bool:
    if past.dtype is not None and present.dtype is not None and past.dtype != present.dtype:
        return False
    ranks = (_rank(past), _rank(present))
    return None in ranks or ranks[0] == ranks[1]


def _cast_between(past: ir.Value, present: ir.Value) -> bool:
    """True for floats of two widths: an export in half precision that computes in another, and leaves in it."""
    types = [value.dtype for value in (past, present)]
    return _rank(past) == _rank(present) and all(dtype is not None and dtype.is_floating_point() for dtype in types)


def _differing_axis(past: ir.Value | None, present: ir.Value | None) -> int | None:
    """The one axis on which the two types differ; None where that is not exactly one."""
    if past is None or present is None or past.shape is None or present.shape is None:
        return None
    differ = [i for i, (a, b) in enumerate(zip(past.shape, present.shape, strict=False)) if str(a) != str(b)]
    return differ[0] if len(differ) == 1 and len(past.shape) == len(present.shape) else None
