"""Computes what each query of an attention sees of a cache written in place, in numbers for small sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..states.attention import path_to_softmax, products
from ..states.base import State
from ..states.signatures import Signatures
from ..symbolic.dims import Dim, Expr
from ..symbolic.symbols import dims_of
from .cache_reads import before_written, beside_attention, otherwise_weighed
from .concrete import Array, Concrete, Unknown, opaque
from .roles import Role
from .usage import origins

HIDDEN = -5000.0  # a score so far below the others weighs nothing: exporters write -1e4 (GPT-2) and lower
CAUSAL = "rows written at their positions, each query seeing rows up to its own position and no others"
MAX_ROWS = 4096  # of a cache of fixed length that is still looked into
MAX_LONG = 64  # of one whose last rows are looked into as well


@dataclass(frozen=True)
class Run:
    """One run: ``count`` tokens from position ``start`` on, a cache of ``rows`` rows."""

    start: int
    count: int
    rows: int


@dataclass(frozen=True)
class Runs:
    """Runs that are held against each other: ``whole`` at once, ``parts`` of it, and one in a ``longer`` cache."""

    whole: Run
    parts: tuple[Run, ...]
    longer: Run | None = None

    def __iter__(self) -> Iterator[Run]:
        yield from (self.whole, *self.parts, *([self.longer] if self.longer is not None else []))


def _of_length(count: int, rows: int, longer: int = 0) -> Runs:
    """A text of ``count`` tokens at once, its last two, and its last."""
    parts = (Run(count - 2, 2, rows), Run(count - 1, 1, rows))
    return Runs(Run(0, count, rows), parts, Run(count - 2, 2, longer) if longer else None)


SHORT, LONG = _of_length(4, 6, 9), _of_length(40, 44, 60)
"""A few rows, which stored tables hold, and more than a window, a remainder or a limit in small graphs."""


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
        if why := beside_attention(model, state) or before_written(state, signatures):
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


def _mask_marks(keys: Sequence[ir.Node]) -> Iterator[int]:
    for product in keys:
        path = path_to_softmax(product)
        inner = {id(product), *map(id, path)}
        yield from (id(v) for n in path for v in n.inputs if v is not None and id(v.producer()) not in inner)


def _runs(state: State) -> Sequence[Runs]:
    rows = state.length
    if not isinstance(rows, int):
        return SHORT, LONG
    short = (_of_length(4, rows),) if 6 <= rows <= MAX_ROWS else ()
    return (*short, _of_length(rows - 1, rows)) if 8 <= rows <= MAX_LONG else short


def _written(model: ir.Model, state: State, roles: Mapping[str, Role]) -> str:
    """Why the rows of a run's tokens are not those of their positions."""
    if state.update is None or state.is_ring:
        return ""
    first_alone = state.update.op_type == "TensorScatter"
    for run in (run for runs in _runs(state) for run in runs):
        try:
            found = _concrete(model, state, roles, run).value(state.positions)
        except Unknown:
            continue
        wanted = np.arange(run.start, run.start + (1 if first_alone else run.count))
        axes = [axis for axis, size in enumerate(found.shape) if size == len(wanted)]
        lines = [np.moveaxis(found, axis, -1).reshape(-1, len(wanted)) for axis in axes]
        if lines and not any((line == wanted).all() for line in lines):
            line = next(line.tolist() for line in lines[-1] if (line != wanted).any())
            wrong = next(at for at, row in enumerate(line) if row != wanted[at])
            shown = slice(max(0, wrong - 3), wrong + 4)
            return f"positions {wanted[shown].tolist()} are written to rows {line[shown]} of {state.name!r}"
    return ""


def _read(model: ir.Model, state: State, roles: Mapping[str, Role], signatures: Signatures) -> str:
    """Why the rows that are read back are not in the cache's order."""
    for reader in state.readers:
        access = signatures.gather(reader)
        for run in (run for runs in _runs(state) for run in runs) if access is not None else ():
            try:
                found = _concrete(model, state, roles, run).value(access.positions if access is not None else None)
            except Unknown:
                continue
            rows = found.reshape(-1, found.shape[-1])[0] if found.ndim else found.reshape(-1)
            held = run.start + run.count
            if len(rows) >= held and not (rows[:held] == np.arange(held)).all():
                shown = f"{rows[: min(held, 8)].tolist()}{' …' * (held > 8)}"
                return f"rows 0 … {held - 1} of {state.name!r} are read as {shown}"
    return ""


def _seen(model: ir.Model, state: State, roles: Mapping[str, Role], product: ir.Node, chunks: bool) -> str:
    """Why a query sees what it must not, or other rows in another run."""
    path = path_to_softmax(product)
    why = otherwise_weighed(model, state, path[-1]) if path else ""
    told = (_in_runs(model, state, roles, product, runs, chunks) for runs in _runs(state) if path)
    return why or next(filter(None, told), "")


def _in_runs(
    model: ir.Model, state: State, roles: Mapping[str, Role], product: ir.Node, runs: Runs, chunks: bool
) -> str:
    found: dict[Run, Array] = {}
    for run in runs:
        try:
            found[run] = _scores(model, state, roles, product, run)
        except Unknown:
            return ""
        if why := _looks_ahead(found[run], run):
            return f"{why} of {state.name!r}"
    others = [(run, runs.whole, "in another run") for run in (runs.parts if chunks else ())]
    others += [(runs.longer, runs.parts[0], "with a longer cache")] if runs.longer is not None else []
    for run, other, case in others:
        if not _agree(found[run], run, found[other], other):
            return f"a query sees other rows of {state.name!r}, or weighs them otherwise, {case}"
    return ""


def _looks_ahead(scores: Array, run: Run) -> str:
    seen = scores > HIDDEN
    lines = np.any(seen, axis=0), np.all(np.any(seen, axis=-1), axis=0).tolist()
    for query, (rows, some) in enumerate(zip(*lines, strict=True)):
        position = run.start + query
        if not some:
            return f"the query at position {position} sees no row"
        if (last := int(np.flatnonzero(rows)[-1])) > position:
            return f"the query at position {position} sees row {last}, which is not written yet,"
    return ""


def _agree(ours: Array, run: Run, theirs: Array, other: Run) -> bool:
    """Whether queries of both runs weigh the rows of both caches alike: a softmax takes no note of a common term."""
    rows, first = min(run.rows, other.rows), run.start - other.start
    if len(ours) != len(theirs):
        return True
    a, b = ours[:, :, :rows], theirs[:, first : first + run.count, :rows]
    hidden = (a <= HIDDEN) & (b <= HIDDEN)
    a, b = (scores - scores.max(-1, keepdims=True) for scores in (a, b))
    return bool((hidden | np.isclose(a, b, rtol=1e-5, atol=1e-5)).all())


def _scores(model: ir.Model, state: State, roles: Mapping[str, Role], product: ir.Node, run: Run) -> Array:
    """``[masks, count, rows]``: what scores that differ by row have become before the softmax, a mask a head or one."""
    softmax = path_to_softmax(product)[-1]
    concrete = _concrete(model, state, roles, run)
    scores = 1 + np.cos(np.arange(run.rows, dtype=np.float32)) / 8
    concrete.put(product.outputs[0], np.broadcast_to(scores, (1, 1, run.count, run.rows)))
    found = concrete.value(softmax.inputs[0])
    if found.ndim < 2 or found.shape[-2:] != (run.count, run.rows) or np.isnan(found).any():
        raise Unknown
    return found.reshape(-1, run.count, run.rows).astype(np.float64)


def _concrete(model: ir.Model, state: State, roles: Mapping[str, Role], run: Run) -> Concrete:
    """The graph's inputs in one run of batch 1; caches hold anything."""
    assert state.input is not None
    past, length = dims_of(state.input), state.length
    starts = origins([state.positions])  # of TensorScatter: where this run's rows begin

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
        if role is Role.OTHER and value in starts and value.dtype.is_integer():
            return np.full(shape, run.start)
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
