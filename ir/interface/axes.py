"""What each dimension of a graph input or state is (batch, sequence, past, heads …) follows from its role."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..states import Layout, Pairing, State
from ..symbolic.dims import Dim
from ..symbolic.symbols import dims_of
from .roles import Role


class Axis(enum.StrEnum):
    """The meaning of a dimension, whatever an exporter calls it."""

    BATCH = "batch"
    CACHE_BATCH = "cache batch"  # rows of a cache that an input chooses from
    SEQ = "seq"
    PAST = "past"
    TOTAL = "total"  # past and new
    CTX = "ctx"
    WINDOW = "window"
    KEYS = "keys"  # what a mask covers; resolved to total, ctx or seq
    ATTENDED = "attended ctx"  # the part of ctx that is attended to (CCL)
    LOGITS = "logits rows"
    HEADS = "heads"
    HEAD_DIM = "head dim"
    HIDDEN = "hidden"
    VOCABULARY = "vocabulary"
    ENCODER = "encoder length"
    FRAMES = "frames"
    CHANNELS = "channels"
    IMAGES = "images"
    PATCHES = "patches"
    PATCH_WIDTH = "patch width"
    HEIGHT = "height"
    WIDTH = "width"
    TIME = "time"
    GRID_HEIGHT = "grid height"
    GRID_WIDTH = "grid width"
    STATE_ROWS = "state rows"
    SECTIONS = "position sections"
    OTHER = "other"


@dataclass(frozen=True)
class Place:
    """One dimension of one graph input or output; ``group`` parts states whose lengths need not be equal."""

    value: str
    axis: int
    dim: Dim
    meaning: Axis
    group: str = ""

    def __str__(self) -> str:
        return f"{self.value}[{self.axis}]"


class Buffers(enum.Enum):
    """How the caller holds the caches of a fused attention that takes both."""

    GROWN = "grown"  # the past is what was there, the present is longer by the new rows
    SHARED = "shared"  # past and present are one buffer of the whole context


@dataclass(eq=False)
class AxisContext:
    """What is asked of the whole graph to name its dimensions."""

    model: ir.Model
    states: Sequence[State]
    roles: Mapping[str, Role]
    buffers: Buffers = Buffers.GROWN
    tokens: tuple[Dim | None, ...] = ()
    by_input: dict[str, State] = field(default_factory=dict[str, State])

    @classmethod
    def of(
        cls, model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], buffers: Buffers = Buffers.GROWN
    ) -> AxisContext:
        """Looks for the tokens (ids, embeddings, else positions) whose batch and length the others are held against."""
        setting = cls(model, states, roles, buffers)
        setting.by_input = {s.input.name or "": s for s in states if s.input is not None}
        for role, rank in ((Role.TOKEN_IDS, 2), (Role.EMBEDDINGS, 3), (Role.POSITIONS, 2)):
            for value in model.graph.inputs:
                dims = dims_of(value) if roles.get(value.name or "") is role else None
                if dims is not None and len(dims) == rank and not setting.tokens:
                    setting.tokens = dims[:2]
        return setting

    def is_batch(self, dim: Dim | None) -> bool:
        """The tokens' batch, as declared."""
        return dim is not None and bool(self.tokens) and dim == self.tokens[0]

    def is_length(self, dim: Dim | None) -> bool:
        """The tokens' length, as declared."""
        return dim is not None and bool(self.tokens) and dim == self.tokens[1]


def places_of(setting: AxisContext) -> Iterator[Place]:
    """Every known dimension of the graph's inputs, then of its state outputs."""
    for value in setting.model.graph.inputs:
        if value.is_initializer():
            continue
        name, dims = value.name or "", dims_of(value)
        if dims is None:
            continue
        state = setting.by_input.get(name)
        if state is not None:
            yield from _named(value, state_axes(setting, state, dims), group_of(state))
        else:
            yield from _named(value, _MEANINGS[setting.roles.get(name, Role.OTHER)](setting, value, dims))
    for state in setting.states:
        dims = dims_of(state.output) if state.output is not None else None
        if state.output is not None and dims is not None:
            axes = state_axes(setting, state, dims)
            after = _NEW_ROWS if state.layout is Layout.DELTA else _OUT
            yield from _named(state.output, [after.get(axis, axis) for axis in axes], group_of(state))


_OUT = {Axis.PAST: Axis.TOTAL}
_NEW_ROWS = {Axis.PAST: Axis.SEQ, Axis.CTX: Axis.SEQ}


def _named(value: ir.Value, meanings: Sequence[Axis], group: str = "") -> Iterator[Place]:
    for axis, (dim, meaning) in enumerate(zip(dims_of(value) or (), meanings, strict=False)):
        if dim is not None:
            own = group if meaning in _GROUPED else ""
            yield Place(value.name or "", axis, dim, meaning, own)


_GROUPED = (Axis.PAST, Axis.TOTAL, Axis.CTX, Axis.WINDOW)
_GROWS = {
    Layout.APPEND: Axis.PAST,
    Layout.FUSED: Axis.PAST,
    Layout.WINDOW: Axis.WINDOW,
    Layout.SCATTER: Axis.CTX,
}


def kept_whole(state: State, buffers: Buffers) -> bool:
    """True where a state's axis holds the whole context before and after a run."""
    return buffers is Buffers.SHARED and state.takes_shared_buffer


def group_of(state: State) -> str:
    """Empty for states as long as the text; those that keep a window are apart from them."""
    if state.window is not None and state.is_ring:
        return f"window {state.window}"
    return f"window of {state.name}" if state.layout is Layout.WINDOW else ""


def state_axes(setting: AxisContext, state: State, dims: Sequence[Dim | None]) -> list[Axis]:
    """What the dimensions of a state are: the batch, the axis that grows, heads and head size in what is left."""
    axes = [Axis.OTHER] * len(dims)
    if not dims:
        return axes
    grows = state.axis
    if state.layout is Layout.FIXED and len(dims) == 4 and grows is None:
        axes[2], grows = Axis.ENCODER, 2
    elif grows is not None and 0 <= grows < len(dims):
        axes[grows] = Axis.CTX if kept_whole(state, setting.buffers) else _GROWS.get(state.inside, Axis.STATE_ROWS)
    elif state.pairing is Pairing.OUTPUT_ONLY and len(dims) == 4 and state.kind in ("key", "value"):
        grows, axes[2] = 2, Axis.OTHER
    batch = next((i for i, dim in enumerate(dims) if i != grows and setting.is_batch(dim)), None)
    if batch is None and len(dims) > 1:
        batch = 1 if grows == 0 else 0
    if batch is not None:
        axes[batch] = Axis.CACHE_BATCH if state.selector is not None else Axis.BATCH
    rest = [i for i in range(len(dims)) if i not in (batch, grows)]
    if state.layout is not Layout.RECURRENT and grows is not None:
        for place, meaning in zip(rest, _REST.get(len(rest), ()), strict=False):
            axes[place] = meaning
    return axes


_REST = {1: (Axis.HIDDEN,), 2: (Axis.HEADS, Axis.HEAD_DIM)}
Meanings = Callable[[AxisContext, ir.Value, Sequence["Dim | None"]], Sequence[Axis]]


def by_rank(table: Mapping[int, Sequence[Axis]]) -> Meanings:
    """Meanings that the rank alone tells."""

    def meanings(setting: AxisContext, value: ir.Value, dims: Sequence[Dim | None]) -> Sequence[Axis]:
        return table.get(len(dims), (Axis.OTHER,) * len(dims))

    return meanings


def _by_tokens(setting: AxisContext, value: ir.Value, dims: Sequence[Dim | None]) -> Sequence[Axis]:
    """Rank 1 holds one number a row or one a token: the declared dimension tells."""
    if len(dims) == 1:
        return (Axis.BATCH if setting.is_batch(dims[0]) else Axis.SEQ if setting.is_length(dims[0]) else Axis.OTHER,)
    table = {2: (Axis.BATCH, Axis.SEQ), 3: (Axis.SECTIONS, Axis.BATCH, Axis.SEQ)}
    return table.get(len(dims), (Axis.OTHER,) * len(dims))


def _context_lengths(setting: AxisContext, value: ir.Value, dims: Sequence[Dim | None]) -> Sequence[Axis]:
    only_shape = bool(value.uses()) and all(use.node.op_type == "Shape" for use in value.uses())
    return (Axis.ATTENDED if only_shape else Axis.BATCH, *[Axis.OTHER] * (len(dims) - 1))


def _features(setting: AxisContext, value: ir.Value, dims: Sequence[Dim | None]) -> Sequence[Axis]:
    """Frames where the last dimension is free ([B, mel, frames]), else hidden rows [B, length, width]."""
    if len(dims) == 2:
        return (Axis.BATCH, Axis.FRAMES)
    if len(dims) != 3:
        return (Axis.BATCH, *[Axis.OTHER] * (len(dims) - 1))
    mel = isinstance(dims[1], int) or not isinstance(dims[2], int)
    return (Axis.BATCH, Axis.CHANNELS, Axis.FRAMES) if mel else (Axis.BATCH, Axis.ENCODER, Axis.HIDDEN)


def _grid(setting: AxisContext, value: ir.Value, dims: Sequence[Dim | None]) -> Sequence[Axis]:
    first = Axis.BATCH if dims and setting.is_batch(dims[0]) else Axis.IMAGES
    tail = {4: (Axis.TIME, Axis.GRID_HEIGHT, Axis.GRID_WIDTH), 3: (Axis.GRID_HEIGHT, Axis.GRID_WIDTH)}
    return (first, *tail.get(len(dims), [Axis.OTHER] * (len(dims) - 1)))


_OTHERS = by_rank({})
_MEANINGS: dict[Role, Meanings] = {
    Role.TOKEN_IDS: by_rank({1: (Axis.SEQ,), 2: (Axis.BATCH, Axis.SEQ)}),
    Role.EMBEDDINGS: by_rank({2: (Axis.SEQ, Axis.HIDDEN), 3: (Axis.BATCH, Axis.SEQ, Axis.HIDDEN)}),
    Role.POSITIONS: _by_tokens,
    Role.ATTENTION_MASK: by_rank(
        {
            2: (Axis.BATCH, Axis.KEYS),
            3: (Axis.BATCH, Axis.SEQ, Axis.KEYS),
            4: (Axis.BATCH, Axis.HEADS, Axis.SEQ, Axis.KEYS),
        }
    ),
    Role.ENCODER_MASK: by_rank({2: (Axis.BATCH, Axis.ENCODER), 4: (Axis.BATCH, Axis.HEADS, Axis.SEQ, Axis.ENCODER)}),
    Role.BATCH_INDEX: by_rank({1: (Axis.BATCH,), 2: (Axis.BATCH, Axis.OTHER)}),
    Role.LOGITS_TO_KEEP: by_rank({1: (Axis.LOGITS,), 2: (Axis.LOGITS, Axis.OTHER)}),
    Role.CONTEXT_LENGTHS: _context_lengths,
    Role.PIXELS: by_rank(
        {
            2: (Axis.PATCHES, Axis.PATCH_WIDTH),
            3: (Axis.IMAGES, Axis.PATCHES, Axis.PATCH_WIDTH),
            4: (Axis.IMAGES, Axis.CHANNELS, Axis.HEIGHT, Axis.WIDTH),
        }
    ),
    Role.IMAGE_INDEX: _OTHERS,
    Role.IMAGE_GRID: _grid,
    Role.FEATURES: _features,
    Role.STATE: _OTHERS,
    Role.BRANCH: _OTHERS,
    Role.ADAPTER: _OTHERS,
    Role.SAMPLING: _OTHERS,
    Role.OTHER: _OTHERS,
}
