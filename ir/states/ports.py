"""Operators that carry a state inside them: which input is the past, which output the present.

Generated from the operator schemas of onnxruntime and onnx; ``tests/test_ports.py`` derives it again and compares.
"""

from __future__ import annotations

from typing import NamedTuple


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


PORTS: dict[tuple[str, str], tuple[Port, ...]] = {
    ("", "Attention"): (Port(4, 1, True), Port(5, 2, True)),
    ("", "CausalConvWithState"): (Port(3, 1, True),),
    ("", "LinearAttention"): (Port(3, 1, True),),
    ("com.microsoft", "Attention"): (Port(4, 1, True),),
    ("com.microsoft", "CausalConvWithState"): (Port(3, 1, True),),
    ("com.microsoft", "DecoderAttention"): (Port(6, 1, True), Port(7, 2, True)),
    ("com.microsoft", "DecoderMaskedMultiHeadAttention"): (Port(5, 1, True), Port(6, 2, True)),
    ("com.microsoft", "DecoderMaskedSelfAttention"): (Port(4, 1, False),),
    ("com.microsoft", "DynamicSparseAttention"): (Port(3, 1, True), Port(4, 2, True)),
    ("com.microsoft", "GatedDeltaNet"): (Port(6, 1, True),),
    ("com.microsoft", "GroupQueryAttention"): (Port(3, 1, True), Port(4, 2, True)),
    ("com.microsoft", "LinearAttention"): (Port(3, 1, True),),
    ("com.microsoft", "MultiHeadAttention"): (Port(6, 1, True), Port(7, 2, True)),
    ("com.microsoft", "NGramHashMapping"): (Port(3, 1, True),),
    ("com.microsoft", "PackedSparseAttentionIndexer"): (Port(12, 2, False), Port(13, 3, False), Port(14, 4, True)),
    ("com.microsoft", "PagedAttention"): (Port(3, 1, False), Port(4, 2, True)),
    ("com.microsoft", "QAttention"): (Port(8, 1, True),),
    ("com.microsoft", "SparseAttention"): (Port(3, 1, False), Port(4, 2, False)),
    ("com.microsoft", "SparseAttentionIndexer"): (Port(7, 1, False), Port(13, 2, True)),
    ("com.microsoft", "SparsePagedAttention"): (Port(3, 1, False), Port(4, 2, False)),
    ("com.microsoft", "VarlenCausalConvWithState"): (Port(4, 1, False),),
    ("com.microsoft", "VarlenNGramHashMapping"): (Port(4, 1, True), Port(8, 2, True)),
}

RECURRENT = frozenset(("CausalConvWithState", "LinearAttention", "GatedDeltaNet", "VarlenCausalConvWithState"))
"""Operators whose state has a fixed size and starts as zeros, where the others start with length 0."""

PAGED = frozenset(("PagedAttention", "SparsePagedAttention"))
"""Operators whose cache is a pool of blocks for all texts: no axis of it grows with one."""

GROWING_AXIS: dict[tuple[str, str], int] = {
    ("com.microsoft", "Attention"): 3,  # past [2, B, H, P, D]
    ("com.microsoft", "DecoderMaskedSelfAttention"): 3,
    ("com.microsoft", "QAttention"): 3,
}
"""The axis on which the state grows, where it is not axis 2 of [B, H, P, D]."""

CACHE_ATTRIBUTES: dict[tuple[str, str], tuple[str, ...]] = {
    ("com.microsoft", "GroupQueryAttention"): ("sliding_window_cache",),
}
"""Attributes that speak of the cache and go with it: with them and no past the operator fails at run time."""

KEY_VALUE_INPUTS: dict[tuple[str, str], tuple[int, int]] = {
    ("", "Attention"): (1, 2),
    ("com.microsoft", "DecoderMaskedMultiHeadAttention"): (1, 2),
    ("com.microsoft", "GroupQueryAttention"): (1, 2),
    ("com.microsoft", "MultiHeadAttention"): (1, 2),
    ("com.microsoft", "SparseAttention"): (1, 2),
    ("com.microsoft", "PagedAttention"): (1, 2),
}
"""Where an attention operator takes its new key and value."""

MASK_INPUTS: dict[tuple[str, str], tuple[int, ...]] = {
    ("", "Attention"): (3,),
    ("com.microsoft", "DecoderMaskedMultiHeadAttention"): (3, 4),
    ("com.microsoft", "MultiHeadAttention"): (4, 5),
}
"""Where an attention operator takes what hides keys: a mask of keys, or what is added to the scores."""

NEEDS_CACHE = frozenset(("DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DecoderAttention"))
"""Operators that decode one token against a cache; without one they compute nothing useful."""

SHARES_BUFFER = frozenset(
    ("GroupQueryAttention", "SparseAttention", "DecoderMaskedSelfAttention", "DecoderMaskedMultiHeadAttention")
)
"""Attentions that write the new rows into the past they were given."""
