"""Rules on a graph's inputs and outputs ask that states keep shape and type, and outputs are what they declare."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..interface.axes import Axis, kept_whole
from ..manifests.precisions import refusal
from ..states import Layout, Pairing, State
from ..symbolic.dims import Dim, free_symbols
from ..symbolic.symbols import dims_of
from .case import Case, Failure, View


def state_types(case: Case) -> Iterator[Failure]:
    """A state's input and output have one element type and one rank."""
    for state in _paired(case):
        old, new = state.input, state.output
        if old is None or new is None:
            continue
        if old.dtype is not None and new.dtype is not None and old.dtype is not new.dtype:
            what = f"state {state.name!r} enters as {old.dtype.name} and leaves as {new.dtype.name} in {new.name!r}"
            yield Failure("states", state.name, what, nearest=f"{old.dtype.name} for both")
        if old.shape is not None and new.shape is not None and len(old.shape) != len(new.shape):
            what = f"state {state.name!r} enters with {len(old.shape)} dimensions and leaves with {len(new.shape)}"
            yield Failure("states", state.name, what)


def state_pairs(case: Case) -> Iterator[Failure]:
    """A state that enters leaves too, in its own type and rank, where others of its kind do."""
    kinds = {state.kind for state in _paired(case)}
    leaving = {id(value) for value in case.used.model.graph.outputs}
    for state in case.used.states:
        if state.pairing is not Pairing.INPUT_ONLY or state.layout is Layout.FIXED or state.input is None:
            continue
        after = state.carried if id(state.carried) in leaving else None
        if after is not None:
            what = f"state {state.name!r} enters as {_type(state.input)} and leaves as {_type(after)} in {after.name!r}"
            yield Failure("states", state.name, what, nearest=f"{_type(state.input)} for both")
        elif state.kind in kinds:
            what = f"state {state.name!r} enters as {_type(state.input)} and no output of that type carries it on"
            yield Failure("states", state.name, what, chain=(state.evidence,))


def _type(value: ir.Value) -> str:
    return f"{value.dtype.name if value.dtype is not None else 'an unknown type'}{value.shape}"


def defaults_fit(view: View) -> Iterator[Failure]:
    """An optional input's default has the sizes that its type gets: a runtime loads no graph where it has not."""
    for value in view.case.used.model.graph.inputs:
        tensor = value.const_value if value.is_initializer() else None
        if tensor is None:
            continue
        held = [int(size) for size in tensor.shape.numpy()]
        given = [view.value(dim) if dim is not None else None for dim in dims_of(value) or ()]
        if any(size is not None and size != own for size, own in zip(given, held, strict=False)):
            name = value.name or ""
            what = f"optional input {name!r} gets the shape {given}, and its default has {held}"
            yield view.fail(
                "optional inputs",
                name,
                what,
                chain=view.chain(sorted({n for dim in dims_of(value) or () for n in free_symbols(dim)})),
                nearest=f"{held}, or a graph exported with {name!r} as an input without a default",
            )


def state_shapes(view: View) -> Iterator[Failure]:
    """What leaves a state fits into what enters it; where it grows it has the new rows beside."""
    for state in _paired(view.case):
        if state.input is None or state.output is None:
            continue
        pairs = list(zip(view.case.dims(state.input) or (), view.case.dims(state.output) or (), strict=False))
        for axis, (old, new) in enumerate(pairs):
            before = view.value(old) if old is not None else None
            after = view.value(new) if new is not None else None
            wanted = _after(view, state, axis, before)
            if wanted is not None and after is not None and wanted != after:
                names = sorted({*free_symbols(old), *free_symbols(new)})
                yield view.fail(
                    "states",
                    state.name,
                    f"state {state.name!r} has {before} on axis {axis} and leaves as {state.output.name!r}: {after}",
                    shapes=(str(state.input.shape), str(state.output.shape)),
                    chain=view.chain(names),
                    nearest=f"{wanted} on axis {axis}",
                )
                break


def _after(view: View, state: State, axis: int, before: int | None) -> int | None:
    if before is None:
        return None
    if axis != state.axis or state.traits.keeps_size:
        return before
    seq = view.size(Axis.SEQ)
    if state.layout is Layout.DELTA:
        return seq
    if state.is_ring or kept_whole(state, view.canonical.buffers):
        return before
    return None if state.layout is Layout.WINDOW or seq is None else before + seq


def outputs_as_declared(view: View) -> Iterator[Failure]:
    """Sizes that an output declares are those that come out."""
    demands, known = view.canonical.demands, dict[Dim | None, int | None]()
    for value in view.canonical.model.graph.outputs:
        declared, found = view.case.dims(value), demands.facts.shape(value)
        if declared is None or found is None:
            continue
        if len(declared) != len(found):
            what = f"output {value.name!r} declares {len(declared)} dimensions and has {len(found)}"
            yield view.fail("outputs", value.name or "", what)
            continue
        for axis, (said, real) in enumerate(zip(declared, found, strict=True)):
            declared = view.value(said) if said is not None else None
            if real not in known:
                known[real] = demands.value(real, view.reduced)
            actual = known[real]
            if declared is not None and actual is not None and declared != actual:
                names = sorted({*free_symbols(said), *free_symbols(real)})
                yield view.fail(
                    "outputs",
                    value.name or "",
                    f"output {value.name!r} declares {said} = {declared} on axis {axis} and comes out with {actual}",
                    shapes=(f"{declared} from {said}", f"{actual} from {real}"),
                    chain=view.chain(names),
                )
                break


def custom_io(case: Case) -> Iterator[Failure]:
    """Each listed name exists, its precision can be held, and a state has the same in and out."""
    graph = case.used.model.graph
    values = {value.name or "": value for value in (*graph.inputs, *graph.outputs)}
    for name, precision in case.custom_io.items():
        why = refusal(name, precision, values, case.custom_io, case.used.states)
        if why is not None:
            yield Failure("custom I/O", name, why.what, nearest=why.hint)
    for state in _paired(case):
        if state.input is None or state.output is None:
            continue
        old, new = (case.custom_io.get(value.name or "") for value in (state.input, state.output))
        if old != new:
            sides = f"{old or 'nothing'} and its output {state.output.name!r} as {new or 'nothing'}"
            what = f"state {state.name!r} is listed as {sides}"
            yield Failure("custom I/O", state.name, what, nearest=f"{old or new} for both")


def _paired(case: Case) -> list[State]:
    return [state for state in case.used.states if state.pairing is Pairing.BOTH]
