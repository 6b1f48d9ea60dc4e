"""Names what a walk along a graph may pass on its way, made of families of rows; a new row takes part by its columns.

All but ``SCORES_END`` are operators of the standard's domain. What is named one by one changes numbers, and is passed
for what it means on that way: a scale between a product and its softmax is none between positions and their rows.
"""

from __future__ import annotations

from . import MS, keys, names

PAIRS = keys(lambda row: row.quantizes or row.dequantizes)
SIZES = names(lambda row: row.sizes)
SAME_PLACE = names(lambda row: row.keeps_all and row.elementwise)
"""Each item stays where it is, perhaps under another type: Identity, Cast."""
IN_ORDER = SAME_PLACE | names(lambda row: row.reshapes)
"""Items keep their order, perhaps under another shape."""
LAYOUT = names(lambda row: row.keeps_all and not row.repeats)
"""Every item once."""
VIEWS = names(lambda row: row.keeps_all)
PICKS = names(lambda row: row.moves and not row.keeps_all)
"""Some of the items."""
PARTS = names(lambda row: row.moves and not row.keeps_all and row.reads is None)
"""Whole parts along an axis."""
ORDERS = names(lambda row: row.orders)
SCORES_END = names(lambda row: row.softmax or row.attention, None)
"""Where scores become weights, or are never seen: masks end there."""


def _and(*families: frozenset[str], more: str) -> frozenset[str]:
    return frozenset(more.split()).union(*families)


# attention, spelled out
CACHE_TO_PRODUCT = _and(VIEWS, PICKS, more="CastLike Concat Where Mul Pad")
"""From a cached tensor to the product it enters: heads repeated, scaled, read by index."""
PRODUCT_TO_SOFTMAX = _and(LAYOUT, more="Mul Div Add Sub Where Max Min Clip Tanh Slice Concat")
"""From a product with the query to the softmax: scale, mask, soft-cap, sinks."""
SOFTMAX_TO_PRODUCT = _and(LAYOUT, more="Expand Dropout Where Mul Slice")
WEIGHTS_CHANGED = _and(SOFTMAX_TO_PRODUCT, more="Div Sub Add")
WEIGHTS_OF_HIDDEN = _and(more="ReduceMean ReduceMin ReduceProd")
"""What gives something else where weights of 0 are among those it takes together."""
MASK_TO_SOFTMAX = _and(LAYOUT, more="And Or Not Xor Where Expand Add Mul Sub Slice Gather")
SCORES_SCALED = _and(SAME_PLACE, more="Mul Div Add Sub")
ENCODER_TO_KEYS = _and(LAYOUT, more="MatMul Gemm FusedMatMul Add Mul Split Slice Gather")
"""From an encoder's rows to keys: a product with a weight, its bias, a scale, heads."""

# positions, row numbers, sizes
ROWS_TO_CONDITION = _and(ORDERS, LAYOUT, more="Equal Not And Or ReduceSum ReduceMax OneHot Expand")
"""From row numbers to a condition that chooses rows."""
ROWS_COMPARED = _and(ORDERS, more="Equal Sub Add Where Max Min Mul")
"""What row numbers may enter where positions in any order take their place."""
SIZE_TAKEN = _and(IN_ORDER, more="Gather Slice")
"""From a Shape to one of its dimensions."""
SIZE_CHOSEN = _and(SIZE_TAKEN, more="Concat Max Min")
SIZE_ARITHMETIC = _and(SIZE_TAKEN, SIZES, more="Concat Add Mul")
SIZE_LISTS = _and(SIZES, more="Concat Gather Unsqueeze Cast Slice")
"""What gives a list of sizes."""
INDEX_CARRIED = _and(VIEWS - {"Transpose"}, more="Add Sub Mul Where Max Min Concat Gather Slice")
"""From an index that was found to what takes rows by it, through sums that make room for a batch."""
NUMBER_TO_BOUND = _and(more="Range Neg Sub Max Min Concat")
"""What makes bounds of a number, besides sums and moves."""
INDEX_VIEWS = _and(IN_ORDER, more="Expand")
SHIFTED = _and(names(lambda row: row.adds), more="Sub")
"""What moves positions before a mask compares them: the distance is a window's size."""
COUNTED = _and(names(lambda row: row.truth or row.numbers), more="CumSum ReduceProd")
"""Operators by which integers are counted on: what they give of integers are integers, or the outcome of a test."""

# rows of a cache
CACHE_MOVED = _and(LAYOUT, PARTS, more="CastLike Mul")
CACHE_COMPUTED = _and(CACHE_MOVED, names(lambda row: row.elementwise), more="Expand")
"""From a cache to what takes its rows together: each row moved, or changed for itself."""
ROWS_TOGETHER = _and(names(lambda row: row.folds), SIZES - {"Shape"}, more="CumSum TopK")
"""What takes rows together: rows that were never written count there."""
CHAIN_MOVED = _and(SAME_PLACE, more="Transpose Concat")
"""What may stand between a state's update and the output that carries it, for the rows' axis to stay known."""
STATE_SUMMED = _and(more="Add Sub Mul Neg Concat Where")
"""Sums and products of a state, before something compares it."""
EXTREMES = _and(more="Max Min")
NO_ZERO = _and(more="Log Reciprocal")
"""What gives no number of a zero."""
RANK_KEPT = _and(SAME_PLACE, more="CastLike Transpose")
STATE_KEPT = _and(more="Div Pad")
"""What a recurrence does to its state besides sums and products: it decays, or is filled up to its size."""
CONVOLUTION_WINDOW = _and(more="Slice Pad Concat")
"""What the end of a convolution's input is cut and joined by."""

# numbers of tokens
FIRST_ALONE = _and(VIEWS, PICKS, names(lambda row: row.reduces), more="Pad TopK CumSum Clip Trilu Dropout OneHot")
"""Further operands say a shape, an axis, an index or a bound: numbers come from the first."""
NUMBERS_END = _and(
    SIZES,
    ORDERS,
    names(lambda row: row.bodies),
    more=("Range ConstantOfShape Equal And Or Not Xor IsNaN IsInf NonZero"),
)
"""Sizes, conditions and bodies: what they give is no number of a token."""

# weights, tables, heads
WEIGHT_DERIVED = _and(SAME_PLACE, more="Transpose DequantizeLinear")
"""What may stand between a stored weight and the product it enters."""
WEIGHT_PICKED = WEIGHT_DERIVED | _and(LAYOUT, more="Gather")
"""And where it is one of a stack, as experts' weights are."""
ACTIVATED = _and(
    more="Sigmoid Tanh Erf Gelu Relu Elu Swish HardSwish HardSigmoid LeakyRelu Softplus Mish Selu"
) | names(lambda row: row.elementwise and not row.quantizes and not row.dequantizes, MS)
"""What an MLP's gate goes through; onnxruntime's own operators of one number each are all of this kind."""
WORDS_CHOSEN = PICKS - {"Split", "GatherND"}
"""What chooses rows or words behind a head, along one axis and with one result."""
POSITIONS_TO_EXTREME = _and(IN_ORDER, more="Gather Slice")
"""From positions to the ArgMax that finds the last."""

# half precision
ADDED_UP = names(lambda row: row.softmax, None) | _and(
    more="ReduceSum ReduceMean ReduceSumSquare ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceProd CumSum "
    "LogSoftmax AveragePool GlobalAveragePool LpNormalization"
)
"""What adds up along an axis: in half precision the sum is lost before the result is."""
BOUNDED = names(lambda row: row.softmax, None) | _and(more="LogSoftmax Sigmoid Tanh HardSigmoid Erf Clip Exp")
"""Whatever enters, no huge number leaves: the fill of a mask ends there."""
FILLS_KEPT = _and(VIEWS, PICKS, more="Concat ConstantOfShape Pad Trilu")
TAKES_HALVES = names(lambda row: row.elementwise or (row.product is not None and not row.product.integers), MS) | _and(
    more="RotaryEmbedding"
)
"""onnxruntime's operators whose schema (1.32) has float16 for every float operand."""

# types
INT32_KERNELS = _and(
    more="Abs Add ArgMax ArgMin Cast Clip Concat CumSum Div Equal Expand Flatten Gather GatherElements Greater "
    "GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Range ReduceMax ReduceMin ReduceSum "
    "Reshape Slice Split Squeeze Sub Tile Transpose Unsqueeze Where"
)
"""Operators that have 32-bit kernels in onnxruntime 1.32 wherever they have 64-bit ones."""
