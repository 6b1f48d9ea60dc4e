"""A row of the table of operators says in columns what is known of it, and nothing where it says nothing."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_ir as ir

Key = tuple[str, str]
MS = "com.microsoft"  # onnxruntime's own operators (onnxruntime docs/ContribOperators.md, 1.32)
ALL = (-1,)
"""Every operand, however many there are."""


class Port(NamedTuple):
    """One carried tensor of an operator.

    Attributes:
        past: The input's index.
        present: The output's index.
        optional: True where leaving the input out means the initial value; where not, the operator needs its cache.
    """

    past: int
    present: int
    optional: bool


class Addressing(enum.Enum):
    """How an operator says which rows of its first operand it writes or reads."""

    ND = "index tuples"  # ScatterND, GatherND: the last axis of the indices has one column for each leading axis
    ELEMENTS = "one index an element"  # ScatterElements, GatherElements
    WINDOW = "first row"  # TensorScatter: consecutive rows from write_indices on


class Grids(enum.Enum):
    """Which of an operator's float tensors lie on a grid in a quantized graph."""

    ALL = "all"  # what it reads and what it gives
    OUTPUTS = "outputs"  # it reads floats as they are
    STATES = "states"  # its insides stay floats; only the carried tensors and its answer are tied


class Product(NamedTuple):
    """Sums of products of two operands.

    Attributes:
        rows: The operand whose rows are multiplied, each alone; None where that is not so (Einsum, ConvTranspose).
        weight: The operand that is the weight, where one is.
        channel: The weight's axis that makes output channels; None where an attribute says it.
        pairs: Both operands may be computed: with these an attention is spelled out.
        any_rank: It takes rows of a tensor of any rank.
        integers: It multiplies integers, what it is given or what it makes of it.
        packed: Its weight is no tensor of floats as they are: words of 4 bits, 8-bit floats.
        slides: The weight is a kernel that slides along axes.
    """

    rows: int | None = 0
    weight: int = 1
    channel: int | None = None
    pairs: bool = False
    any_rank: bool = True
    integers: bool = False
    packed: bool = False
    slides: bool = False


class SkipNorm(NamedTuple):
    """A sum of the first two operands and the norm of it, as one operator.

    Attributes:
        norm: The operator that is the norm alone.
        weights: Which operands it takes over from this one.
        bias: The operand that is added to the sum, where it is given.
        total: The result that is the sum.
    """

    norm: str
    weights: tuple[int, ...]
    bias: int
    total: int = 3


class Lookup(NamedTuple):
    """Rows of a table, chosen by indices: the operands with each."""

    indices: int
    table: int


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What is known of one operator; operands and results are given by their index.

    Attributes:
        dtype: The first result's element type, or the operand that has it; None where an attribute says it.
        bends: It is an activation, as stands on the gate's way in a feed-forward block.
        elementwise: Each item of the result depends on the items of the operands that stand at its place alone.
        moves: The result holds nothing but items of the first operand.
        keeps_all: And every one of them, so that their range is the result's.
        repeats: Some of them several times.
        reshapes: They keep their order, under another shape.
        ranks: 1 where the result has one axis more for each that the second operand names, -1 for one fewer.
        sizes: It gives the sizes of its operand, and none of its items.
        spreads: It can make a large tensor of a few numbers.
        grows: It can give more items than one operand has.
        by_value: An attribute may hold what it gives.
        default: The element type where neither an attribute nor an operand says one.
        index_results: Every result but the first holds indices.
        random: What it gives of the same operands is not the same again.
        bodies: It holds graphs of its own.
        decides: The operand that chooses between the others, or between its graphs.
        numbers: The operands whose numbers stay recognizable in the result (positions shifted, ids reshaped).
        truth: The further operands whose truth or count does, on the way to a mask.
        tells: What an operand is for, by what the operator does with it (``angle``, ``extreme``, …).
        norm: It normalizes rows: what enters it is hidden states.
        skip_norm: And sums two operands first.
        by_row: It computes each row of its axis from that row alone.
        folds: It takes an axis together to one item: a sum, an extreme, its place.
        reduces: And does so along any axes: ReduceSum and its like.
        orders: It tells which of two numbers is larger.
        adds: It is the sum of its operands.
        product: It sums products of two operands.
        softmax: It makes weights of scores.
        attention: It is an attention, fused into one operator.
        mixes: It carries content from one token to another, as every attention does.
        lookup: It reads rows of a table, as embeddings do.
        quantizes: It puts numbers on a grid; with ``dequantizes`` it takes them off.
        dequantizes: It takes numbers off a grid.
        whole_scale: It takes one scale from a whole tensor, so that all rows of it decide together.
        rounds: It rounds activations to 8 bits on the way.
        writes: How it says which rows of the first operand it writes.
        reads: How it says which rows of the first operand it reads.
        slots: The operand that says which rows.
        carries: Its past and present operands.
        ends: The results that initial states end as, by the states' operands, where it runs over a whole sequence.
        key_value: The operands with a run's new keys and values.
        masks: The operands that hide keys: a mask of them, or what is added to the scores.
        lengths: The operands that count the keys that are there.
        rotates: The operand with the positions that turn into angles.
        row_axis: The axis on which its carried tensors grow.
        fixed_size: They do not grow, and start as zeros, where others start with no rows.
        paged: They are a pool of blocks for all texts: no axis of them grows with one.
        appends: The present is the past with the new rows behind it.
        ends_at: The operand that says, one number a sequence, which row of the cache is a run's last.
        needs_cache: It decodes one token against a cache; without one it computes nothing useful.
        one_token: It decodes exactly one token a run.
        caution: What is not certain where it takes several tokens on a past.
        shares_buffer: It writes the new rows into the past it was given.
        cache_attributes: Attributes that speak of the cache and go with it.
        grids: Which of its float tensors lie on a grid in a quantized graph.
    """

    dtype: int | ir.DataType | None = None
    bends: bool = False
    elementwise: bool = False
    moves: bool = False
    keeps_all: bool = False
    repeats: bool = False
    reshapes: bool = False
    ranks: int = 0
    sizes: bool = False
    spreads: bool = False
    grows: bool = False
    by_value: bool = False
    default: ir.DataType | None = None
    index_results: bool = False
    random: bool = False
    bodies: bool = False
    decides: int | None = None
    numbers: tuple[int, ...] = ()
    truth: tuple[int, ...] = ()
    tells: Mapping[int, str] = field(default_factory=dict[int, str])
    norm: bool = False
    skip_norm: SkipNorm | None = None
    by_row: bool = False
    folds: bool = False
    reduces: bool = False
    orders: bool = False
    adds: bool = False
    product: Product | None = None
    softmax: bool = False
    attention: bool = False
    mixes: bool = False
    lookup: Lookup | None = None
    quantizes: bool = False
    dequantizes: bool = False
    whole_scale: bool = False
    rounds: bool = False
    writes: Addressing | None = None
    reads: Addressing | None = None
    slots: int | None = None
    carries: tuple[Port, ...] = ()
    ends: Mapping[int, int] = field(default_factory=dict[int, int])
    key_value: tuple[int, int] | None = None
    masks: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    rotates: int | None = None
    row_axis: int = 2
    fixed_size: bool = False
    paged: bool = False
    appends: bool = False
    ends_at: int | None = None
    needs_cache: bool = False
    one_token: bool = False
    caution: str = ""
    shares_buffer: bool = False
    cache_attributes: tuple[str, ...] = ()
    grids: Grids | None = None

    @property
    def hands_on(self) -> tuple[int, ...]:
        """The operands whose numbers the result holds as they are, or with others: no function of one alone."""
        return self.numbers if self.moves or self.numbers == ALL or len(self.numbers) > 1 else ()

    @property
    def mixes_tokens(self) -> bool:
        """Whether content of one token gets to another: by attention, a kernel, a recurrence."""
        return self.mixes or self.attention

    def uses(self) -> dict[int, str]:
        """What each operand is for, as far as the row tells: ``tells`` and the columns that name an operand's use."""
        found = dict(self.tells)
        found.update(dict.fromkeys((*self.masks, *self.lengths), "mask"))
        if self.rotates is not None:
            found[self.rotates] = "angle"
        if self.writes is not None and self.slots is not None:
            found[self.slots] = "slot"
        return found
