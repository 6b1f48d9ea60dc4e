"""Computes what each query of an attention sees of a cache written in place, in numbers for small sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..core.operators.walks import CACHE_MOVED, ROWS_TOGETHER
from ..states.attention import path_to_softmax, products
from ..states.base import State
from ..states.signatures import Signatures
from ..symbolic.dims import Dim, Expr
from ..symbolic.symbols import dims_of
from .concrete import Array, Concrete, Unknown, opaque
from .roles import Role

HIDDEN = -5000.0  # a score so far below the others weighs nothing: exporters write -1e4 (GPT-2) and lower
CAUSAL = "rows written at their positions, each query seeing rows up to its own position and no others"
MAX_VISITS = 200
MAX_ROWS = 64  # of a cache of fixed length that is still looked into


@dataclass(frozen=True)
class Run:
    """One run: ``count`` tokens from position ``start`` on, a cache of ``rows`` rows."""

    start: int
    count: int
    rows: int


RUNS = (Run(0, 4, 6), Run(2, 2, 6), Run(3, 1, 6), Run(2, 2, 9))
_SAME_ROWS = {Run(2, 2, 9): Run(2, 2, 6)}
_SAME_TOKENS = {Run(2, 2, 6): Run(0, 4, 6), Run(3, 1, 6): Run(0, 4, 6)}


def contradictions(
    model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], *, chunks: bool
) -> Iterator[tuple[State, str]]:
    """The written states whose mask, positions or reads are not what a causal cache needs, each with the reason.

    A query at position p may see rows 0 … p and must see one; a token is written to the row of its position; reads
    keep the order of rows. The same for any length of the cache, and with ``chunks`` for any number of tokens a run.
    What numbers cannot decide is no contradiction.
    """
    signatures, seen = Signatures(model), set[tuple[int, ...]]()
    for state in states:
        if why := _beside(state):
            yield state, why
            continue
        keys = [p for p, role in products(state.carried, signatures.reads) if role == "key"] if state.carried else []
        marks = (id(state.positions), *sorted(_mask_marks(keys)))
        if marks in seen and not state.readers:
            continue  # layers share their masks
        seen.add(marks)
        why = _written(model, state, roles) or _read(model, state, roles, signatures)
        why = why or next((w for p in keys if (w := _seen(model, state, roles, p, chunks))), "")
        if why:
            yield state, why


def _beside(state: State) -> str:
    """Which operator takes rows of the cache together that is no attention: unwritten and rejected rows count there."""
    work = [value for value in (state.input, state.carried) if value is not None]
    seen = {id(value) for value in work}
    while work and len(seen) < MAX_VISITS:
        for node, index in work.pop().uses():
            if node.op_type in ROWS_TOGETHER:
                return f"{node.op_type} {node.name!r} takes rows of {state.name!r} together outside of attention"
            for output in node.outputs if node.op_type in CACHE_MOVED and not node.domain and index == 0 else ():
                if id(output) not in seen:
                    seen.add(id(output))
                    work.append(output)
    return ""


def _mask_marks(keys: Sequence[ir.Node]) -> Iterator[int]:
    for product in keys:
        path = path_to_softmax(product)
        inner = {id(product), *map(id, path)}
        yield from (id(v) for n in path for v in n.inputs if v is not None and id(v.producer()) not in inner)


def _runs(state: State) -> Sequence[Run]:
    rows = state.length
    if not isinstance(rows, int):
        return RUNS
    return tuple(run for run in (Run(0, 4, rows), Run(2, 2, rows), Run(3, 1, rows)) if 6 <= rows <= MAX_ROWS)


def _written(model: ir.Model, state: State, roles: Mapping[str, Role]) -> str:
    """Why the rows of a run's tokens are not those of their positions."""
    if state.update is None or state.update.op_type == "TensorScatter":
        return ""
    for run in _runs(state):
        try:
            found = _concrete(model, state, roles, run).value(state.positions)
        except Unknown:
            return ""
        wanted = np.arange(run.start, run.start + run.count)
        if found.size and found.size % run.count == 0 and not (found.reshape(-1, run.count) == wanted).all():
            return (
                f"positions {wanted.tolist()} are written to rows {found.reshape(-1, run.count)[0].tolist()} "
                f"of {state.name!r}"
            )
    return ""


def _read(model: ir.Model, state: State, roles: Mapping[str, Role], signatures: Signatures) -> str:
    """Why the rows that are read back are not in the cache's order."""
    for reader in state.readers:
        access = signatures.gather(reader)
        for run in _runs(state) if access is not None else ():
            try:
                found = _concrete(model, state, roles, run).value(access.positions if access is not None else None)
            except Unknown:
                break
            rows = found.reshape(-1, found.shape[-1])[0] if found.ndim else found.reshape(-1)
            held = run.start + run.count
            if len(rows) >= held and not (rows[:held] == np.arange(held)).all():
                return f"rows 0 … {held - 1} of {state.name!r} are read as {rows[:held].tolist()}"
    return ""


def _seen(model: ir.Model, state: State, roles: Mapping[str, Role], product: ir.Node, chunks: bool) -> str:
    """Why a query sees what it must not, or other rows in another run."""
    found: dict[Run, Array] = {}
    for run in _runs(state) if path_to_softmax(product) else ():
        try:
            found[run] = _scores(model, state, roles, product, run)
        except Unknown:
            return ""
        if why := _looks_ahead(found[run], run):
            return f"{why} of {state.name!r}"
    for pairs, case in ((_SAME_ROWS, "with a longer cache"), (_SAME_TOKENS if chunks else {}, "in another run")):
        for run, other in pairs.items():
            if run in found and other in found and not _agree(found[run], run, found[other], other):
                return f"a query sees other rows of {state.name!r}, or weighs them otherwise, {case}"
    return ""


def _looks_ahead(scores: Array, run: Run) -> str:
    for line, position in zip(scores, range(run.start, run.start + run.count), strict=True):
        rows = np.flatnonzero(line > HIDDEN)
        if not rows.size:
            return f"the query at position {position} sees no row"
        if rows[-1] > position:
            return f"the query at position {position} sees row {rows[-1]}, which is not written yet,"
    return ""


def _agree(ours: Array, run: Run, theirs: Array, other: Run) -> bool:
    """Whether the queries of both runs weigh the rows of both caches alike."""
    rows = min(run.rows, other.rows)
    a, b = ours[:, :rows], theirs[run.start - other.start : run.start - other.start + run.count, :rows]
    hidden = (a <= HIDDEN) & (b <= HIDDEN)
    return bool((hidden | np.isclose(a, b, rtol=1e-5, atol=1e-5)).all())


def _scores(model: ir.Model, state: State, roles: Mapping[str, Role], product: ir.Node, run: Run) -> Array:
    """``[count, rows]``: what a score of 1 has become before the softmax."""
    softmax = path_to_softmax(product)[-1]
    concrete = _concrete(model, state, roles, run)
    concrete.put(product.outputs[0], np.ones((1, 1, run.count, run.rows), np.float32))
    found = concrete.value(softmax.inputs[0])
    if found.ndim < 2 or found.shape[-2:] != (run.count, run.rows) or np.isnan(found).any():
        raise Unknown
    lines = found.reshape(-1, run.count, run.rows)
    if not all((line == lines[0]).all() for line in lines):
        raise Unknown  # another mask for each head
    return lines[0].astype(np.float64)


def _concrete(model: ir.Model, state: State, roles: Mapping[str, Role], run: Run) -> Concrete:
    """The graph's inputs in one run of batch 1; caches hold anything."""
    assert state.input is not None
    past, length = dims_of(state.input), state.length

    def size(dim: Dim | None, axis: int, value: ir.Value) -> int:
        if isinstance(dim, int):
            return dim
        if dim is not None and dim == length:
            return run.rows
        if isinstance(dim, Expr) and (axis == 0 or (past and dim == past[0])):
            return 1
        return run.count

    def feed(value: ir.Value) -> Array:
        role, dims = roles.get(value.name or "", Role.OTHER), dims_of(value)
        if dims is None or value.dtype is None:
            raise Unknown
        shape = tuple(size(dim, axis, value) for axis, dim in enumerate(dims))
        if role is Role.POSITIONS and shape and shape[-1] == run.count:
            return np.broadcast_to(np.arange(run.start, run.start + run.count), shape)
        if role is Role.ATTENTION_MASK and len(shape) == 2:
            return np.broadcast_to(
                (np.arange(run.rows) < run.start + run.count).astype(value.dtype.numpy()), (1, run.rows)
            )
        if role is Role.TOKEN_IDS or role is Role.BATCH_INDEX:
            return np.zeros(shape, np.int64)
        if value.dtype.is_floating_point() and role is not Role.ATTENTION_MASK:
            return opaque(shape)
        raise Unknown

    concrete = Concrete(feed, {})
    if state.update is not None and state.carried is not None:
        concrete.put(state.carried, concrete.value(state.update.inputs[0]))
        for reader in state.readers:
            try:
                concrete.put(reader.outputs[0], concrete.value(reader.inputs[0]))
            except Unknown:
                continue
    return concrete
