"""Builds the inputs of a graph for one case, each from its role: tokens, positions, masks, empty caches, images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from ...ir.core.constants import constant_of
from ...ir.core.errors import OnnxPassesError
from ...ir.interface.roles import Role
from ...ir.states import Layout, State
from ...ir.symbolic.dims import parse, substitute
from ..session.subject import Subject, dim_of, static
from .caches import batch_axis
from .cases import Case
from .step import Interface, Step, Writing, embedded

SPARE_SLOTS = 4  # how much longer than the longest row a written cache is made
GRID = 4  # patches along each side of an image
MAX_ELEMENTS = 1 << 22  # of a guessed input; larger guesses are not tried


class UnknownSize(OnnxPassesError):
    """A dimension that no role and no other input tells."""


@dataclass(eq=False)
class _Maker:
    """Builds one graph's inputs for one case."""

    subject: Subject
    case: Case
    binding: dict[str, int] = field(default_factory=dict[str, int])
    guessed: bool = False

    def __post_init__(self) -> None:
        states, case = self.subject.states, self.case
        written = any(s.in_place and s.axis is not None and s.input is not None for s in states)
        grown = [s for s in states if s.inside in (Layout.APPEND, Layout.FUSED) and s.axis is not None]
        past = max((static(dim_of(s, s.axis)) or 0 for s in grown if s.axis is not None), default=0)
        room = (self.subject.capacity or case.length + SPARE_SLOTS) if written else past
        self.interface = Interface(self.subject, Writing.POSITIONS if written else Writing.BEHIND, room)
        step = Step.at(np.zeros_like(case.positions), case.positions, np.zeros(case.batch, np.int64), self._rows())
        self.step = replace(step, logits=int(min(3, case.rows.min())))
        self.slots = self.interface.keys(self.step).shape[1]  # a written cache's rows, or a fixed past and the new ones

    def _rows(self) -> np.ndarray | None:
        """Rows of the cache in another order, where an input chooses them."""
        names = [value.name or "" for value in self.subject.inputs(Role.BATCH_INDEX)]
        rows = [static(dim_of(s, 0)) for s in self.subject.states if s.selector is not None]
        reordered = any(s.reorder is not None for s in self.subject.states)
        limit = next((row for row in rows if row is not None), self.case.batch if reordered else self.cache_rows)
        return self.random(names[0]).permutation(limit)[: self.case.batch] if names else None

    def told(self, value: ir.Value) -> np.ndarray:
        """An input that a step tells; the sizes it has are those of its symbols."""
        made = self.interface.feed(value, self.step)
        for dim, size in zip(value.shape or (), made.shape, strict=False):
            if isinstance(dim, ir.SymbolicDim) and dim.value:
                self.binding.setdefault(dim.value, size)
        return made

    @property
    def cache_rows(self) -> int:
        """The batch of caches whose rows an input chooses: more rows than the batch, so that the choice shows."""
        return self.case.batch + 2

    def random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.case.seed, zlib.crc32(name.encode()), self.case.batch, self.case.length])

    def lasting(self, name: str) -> np.random.Generator:
        """The same numbers at every size: what no chunk of a text tells is the same in runs of other lengths."""
        return np.random.default_rng([self.case.seed, zlib.crc32(name.encode())])

    def shape(self, value: ir.Value, *preferred: int | None) -> tuple[int, ...]:
        """The declared shape, every symbol as a number: declared, else preferred, else bound before, else guessed."""
        dims = list(value.shape) if value.shape is not None else [None] * len(preferred)
        wanted = [*preferred, *[None] * (len(dims) - len(preferred))]
        sizes = tuple(self._size(dim, want) for dim, want in zip(dims, wanted, strict=False))
        if self.guessed and np.prod(sizes, dtype=np.int64) > MAX_ELEMENTS:
            raise UnknownSize(f"nothing tells the size of input {value.name!r}", found=str(value.shape))
        return sizes

    def _size(self, dim: int | ir.SymbolicDim | None, wanted: int | None) -> int:
        number = static(dim)
        if number is not None:
            return number
        name = dim.value if isinstance(dim, ir.SymbolicDim) else None
        known = substitute(parse(name), dict(self.binding)) if name else None
        size = wanted if wanted is not None else known if isinstance(known, int) else self._guess()
        if name and name not in self.binding:
            self.binding[name] = size
        return size

    def _guess(self) -> int:
        self.guessed = True
        return self.subject.guess


def build_inputs(subject: Subject, case: Case) -> dict[str, np.ndarray]:
    """Every input of the graph for this case, the same for the same seed; states hold what a first run starts from."""
    maker, roles = _Maker(subject, case), subject.roles
    built: dict[str, np.ndarray] = {}
    for value in sorted(subject.model.graph.inputs, key=lambda value: _ORDER.index(roles[value.name or ""])):
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        built[value.name or ""] = _BUILDERS[roles[value.name or ""]](maker, value).astype(dtype)
    return {value.name or "": built[value.name or ""] for value in subject.model.graph.inputs}


def _rank(value: ir.Value, unknown: int) -> int:
    return len(value.shape) if value.shape is not None else unknown


def _tokens(make: _Maker, value: ir.Value) -> np.ndarray:
    name = value.name or ""
    shape = make.shape(value, make.case.batch, make.case.length)
    ids = make.random(name).integers(0, make.subject.tables.get(name, 64), shape)
    if make.subject.inputs(Role.PIXELS) and len(shape) == 2:
        for special in _compared_with(value)[:1]:
            ids[:, : max(0, min(2, shape[1] - 1))] = special  # so that image rows are really read
    return ids


def _compared_with(value: ir.Value) -> list[int]:
    """The constants that tokens are compared with: placeholders for images and the like."""
    others = [use.node.inputs[1 - use.idx] for use in value.uses() if use.node.op_type == "Equal"]
    tensors = [constant_of(other) for other in others]
    return [int(tensor.numpy().reshape(-1)[0]) for tensor in tensors if tensor is not None and tensor.size == 1]


def _encoder_mask(make: _Maker, value: ir.Value) -> np.ndarray:
    """Every row of the encoder but the last, where there are more: a mask that hides nothing would not show."""
    rank, (batch, length) = _rank(value, 2), (make.case.batch, make.case.length)
    shape = make.shape(value, *((batch,) if rank == 2 else (batch, 1, length)))
    seen = np.broadcast_to(np.arange(shape[-1]) < max(shape[-1] - 1, 1), shape)
    if value.dtype is not None and value.dtype.is_floating_point() and rank > 2:
        return np.where(seen, 0, np.finfo(value.dtype.numpy()).min)
    return seen


def _state(make: _Maker, value: ir.Value) -> np.ndarray:
    """What a first run starts from: no rows, or all of a buffer; a state that is only read holds the encoder's."""
    state = make.subject.by_input[value.name or ""]
    sizes: list[int | None] = [None] * _rank(value, 0)
    if sizes:
        lines = make.cache_rows if state.selector is not None else make.case.batch
        sizes[batch_axis(make.subject.model, state)] = lines
        if state.axis is not None and state.layout is not Layout.FIXED:
            sizes[state.axis] = _rows_of(make, state)
    shape = make.shape(value, *sizes)
    return make.lasting(value.name or "").standard_normal(shape) if state.layout is Layout.FIXED else np.zeros(shape)


def _rows_of(make: _Maker, state: State) -> int | None:
    """How many rows a first run is given on the axis that holds them."""
    if state.layout is Layout.RECURRENT:
        return state.conv_rows  # of the convolution that reads it
    if state.in_place:
        return make.slots
    return state.window or 0 if state.layout is Layout.FUSED and state.is_ring else 0  # a ring is never shorter


def _grid(make: _Maker, value: ir.Value) -> np.ndarray:
    rank = _rank(value, 2)
    if rank >= 3:  # only its shape is used: [batch, time, rows, columns]
        return np.zeros(make.shape(value, make.case.batch, *[1] * (rank - 3), GRID, GRID))
    return np.broadcast_to(np.asarray([1, GRID, GRID]), make.shape(value, make.case.batch, 3))


def _pixels(make: _Maker, value: ir.Value) -> np.ndarray:
    rank, images, batch = _rank(value, 4), make.subject.images, make.case.batch
    side = tuple(GRID * size for size in images.kernel[-2:]) or (GRID, GRID)
    wanted = {2: (batch * GRID * GRID, images.patch), 4: (batch, images.channels, *side)}
    return make.random(value.name or "").standard_normal(make.shape(value, *wanted.get(rank, (batch,))))


def _hidden(make: _Maker, value: ir.Value) -> np.ndarray:
    """Rows of random tokens."""
    shape = make.shape(value, make.case.batch, make.case.length)
    return embedded(shape[-1], make.random(value.name or "").integers(0, 64, shape[:-1]))


def _features(make: _Maker, value: ir.Value) -> np.ndarray:
    return make.lasting(value.name or "").standard_normal(make.shape(value, make.case.batch))


def _other(make: _Maker, value: ir.Value) -> np.ndarray:
    """Zeros, or random floats; unknown dimensions are taken for batch and length, as those of token types are."""
    usual = (make.case.batch, make.case.length)
    known = [isinstance(dim, ir.SymbolicDim) and dim.value in make.binding for dim in value.shape or ()]
    shape = make.shape(value, *(None if bound else size for bound, size in zip(known, usual, strict=False)))
    if value.dtype is not None and value.dtype.is_floating_point():
        return make.lasting(value.name or "").standard_normal(shape)
    return np.zeros(shape)


_BUILDERS: Mapping[Role, Callable[[_Maker, ir.Value], np.ndarray]] = {
    Role.TOKEN_IDS: _tokens,
    Role.EMBEDDINGS: _hidden,
    **dict.fromkeys((Role.POSITIONS, Role.ATTENTION_MASK, Role.BATCH_INDEX, Role.LOGITS_TO_KEEP), _Maker.told),
    Role.PIXELS: _pixels,
    Role.IMAGE_INDEX: _other,
    Role.IMAGE_GRID: _grid,
    Role.FEATURES: _features,
    Role.STATE: _state,
    Role.ENCODER_MASK: _encoder_mask,
    Role.BRANCH: _other,
    Role.CONTEXT_LENGTHS: _Maker.told,
    **dict.fromkeys((Role.ADAPTER, Role.SAMPLING, Role.OTHER), _other),
}
_ORDER = tuple(_BUILDERS)  # what binds the common symbols comes first
