"""Operators that carry a cache or state inside them have their rows here, and those that write a cache's rows.

Ports are those of the schemas of onnx 1.23 and onnxruntime 1.32; ``tests/test_ports.py`` derives them again from the
installed schemas and compares.
"""

from __future__ import annotations

from .base import MS, Addressing, Grids, Key, Operator, Port

_UNKNOWN = "not known to take several tokens on a past on every runtime"
# GroupQueryAttention of 1.32: "batch_size must be 1 when sequence_length > 1 and past context is given."
_ONE_ROW = "onnxruntime's CPU kernel takes several tokens on a past in batch 1 only"
_ALIGNED = "with is_causal the runtime must align the mask to the bottom right"
_PAST_4_5 = (Port(4, 1, True), Port(5, 2, True))

CACHES: dict[Key, Operator] = {
    # Attention-24 added nonpad_kv_seqlen, operand 6: how many keys of each sequence are no padding
    ("", "Attention"): Operator(
        attention=True,
        caution=_ALIGNED,
        carries=_PAST_4_5,
        key_value=(1, 2),
        masks=(3,),
        lengths=(6,),
        appends=True,
        grids=Grids.STATES,
    ),
    ("", "CausalConvWithState"): Operator(mixes=True, carries=(Port(3, 1, True),), fixed_size=True),
    ("", "LinearAttention"): Operator(attention=True, carries=(Port(3, 1, True),), fixed_size=True),
    # past and present are one tensor [2, B, H, P, D]; mask_index and past_sequence_length besides
    (MS, "Attention"): Operator(
        attention=True,
        carries=(Port(4, 1, True),),
        masks=(3,),
        lengths=(6,),
        row_axis=3,
        appends=True,
        grids=Grids.STATES,
    ),
    (MS, "CausalConvWithState"): Operator(mixes=True, carries=(Port(3, 1, True),), fixed_size=True),
    (MS, "DecoderAttention"): Operator(
        attention=True, caution=_UNKNOWN, carries=(Port(6, 1, True), Port(7, 2, True)), needs_cache=True
    ),
    (MS, "DecoderMaskedMultiHeadAttention"): Operator(
        attention=True,
        one_token=True,
        carries=(Port(5, 1, True), Port(6, 2, True)),
        key_value=(1, 2),
        masks=(3, 4),
        needs_cache=True,
        shares_buffer=True,
        grids=Grids.STATES,
    ),
    (MS, "DecoderMaskedSelfAttention"): Operator(
        attention=True,
        one_token=True,
        carries=(Port(4, 1, False),),
        row_axis=3,
        needs_cache=True,
        shares_buffer=True,
    ),
    (MS, "DynamicSparseAttention"): Operator(attention=True, carries=(Port(3, 1, True), Port(4, 2, True))),
    (MS, "GatedDeltaNet"): Operator(mixes=True, carries=(Port(6, 1, True),), fixed_size=True),
    # seqlens_k and total_sequence_length, which genai 0.18 computes from the mask; position_ids; attention_bias.
    # sliding_window_cache makes the cache a ring; with it and no past the kernel of 1.32 fails at run time
    (MS, "GroupQueryAttention"): Operator(
        attention=True,
        caution=_ONE_ROW,
        carries=(Port(3, 1, True), Port(4, 2, True)),
        key_value=(1, 2),
        masks=(10,),
        lengths=(5, 6),
        rotates=9,
        ends_at=5,
        shares_buffer=True,
        cache_attributes=("sliding_window_cache",),
        grids=Grids.STATES,
    ),
    (MS, "LinearAttention"): Operator(attention=True, carries=(Port(3, 1, True),), fixed_size=True),
    # key_padding_mask and attention_bias
    (MS, "MultiHeadAttention"): Operator(
        attention=True,
        carries=(Port(6, 1, True), Port(7, 2, True)),
        key_value=(1, 2),
        masks=(4, 5),
        appends=True,
        grids=Grids.STATES,
    ),
    (MS, "NGramHashMapping"): Operator(carries=(Port(3, 1, True),)),
    (MS, "PackedSparseAttentionIndexer"): Operator(
        attention=True, carries=(Port(12, 2, False), Port(13, 3, False), Port(14, 4, True))
    ),
    (MS, "PagedAttention"): Operator(
        attention=True, carries=(Port(3, 1, False), Port(4, 2, True)), key_value=(1, 2), paged=True
    ),
    (MS, "QAttention"): Operator(attention=True, rounds=True, carries=(Port(8, 1, True),), row_axis=3, appends=True),
    (MS, "SparseAttention"): Operator(
        attention=True,
        caution=_UNKNOWN,
        carries=(Port(3, 1, False), Port(4, 2, False)),
        key_value=(1, 2),
        shares_buffer=True,
        grids=Grids.STATES,
    ),
    (MS, "SparseAttentionIndexer"): Operator(attention=True, carries=(Port(7, 1, False), Port(13, 2, True))),
    (MS, "SparsePagedAttention"): Operator(attention=True, carries=(Port(3, 1, False), Port(4, 2, False)), paged=True),
    (MS, "VarlenCausalConvWithState"): Operator(mixes=True, carries=(Port(4, 1, False),), fixed_size=True),
    (MS, "VarlenNGramHashMapping"): Operator(carries=(Port(4, 1, True), Port(8, 2, True))),
    # attentions that carry nothing from one run to the next
    **{
        (MS, name): Operator(attention=True)
        for name in (
            *("LinearAttentionGate", "LongformerAttention", "PackedAttention", "PackedMultiHeadAttention"),
            *("PackedSparseAttentionIndexerMerge", "QOrderedAttention", "QOrderedLongformerAttention"),
        )
    },
    # position_ids: operand 1 of onnxruntime's operator; the standard's (opset 23) has the tables first
    ("", "RotaryEmbedding"): Operator(rotates=3, grids=Grids.ALL),
    (MS, "RotaryEmbedding"): Operator(rotates=1, grids=Grids.ALL),
    # rows by position; Scatter is what ScatterElements was called before opset 11
    ("", "Scatter"): Operator(writes=Addressing.ELEMENTS, slots=1),
    ("", "ScatterElements"): Operator(dtype=0, writes=Addressing.ELEMENTS, slots=1, grids=Grids.ALL),
    ("", "ScatterND"): Operator(dtype=0, truth=(0, 2), writes=Addressing.ND, slots=1, grids=Grids.ALL),
    ("", "TensorScatter"): Operator(writes=Addressing.WINDOW, slots=2, grids=Grids.ALL),
}
