"""Models without a cache or with a fixed one get their specializations here: embedding, classification, CTC, speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.specialization import SpecRole
from .base import Entry, FamilyError, positive

MANY = 15  # lengths from which compilers begin to fail


@dataclass(frozen=True)
class Encoder:
    """One kind of encoder: what its specializations are called, their role, and the length where none is given."""

    tag: str
    role: SpecRole
    length: int


ENCODERS: dict[str, Encoder] = {
    "embedding": Encoder("Embedding", SpecRole.EMBED, 32),
    "sequence-classification": Encoder("SeqClassification", SpecRole.CLASSIFY, 32),
    "ctc": Encoder("CTC", SpecRole.TRANSCRIBE, 480_000),
}


def encoder(kind: str, lengths: Sequence[int] = (), batch: int = 1) -> list[Entry]:
    """One specialization a length, two for one that stands twice; FamilyError for a length or batch that is no size."""
    row = ENCODERS[kind]
    positive("batch", batch)
    return [
        Entry(row.role, {"batch_size": batch, "seq_len": positive("length", length)}, row.tag)
        for length in lengths or (row.length,)
    ]


def speech(ctx: int = 150, encoder_ctx: int = 1500, batch: int = 1) -> list[Entry]:
    """Encode and decode of one graph that does both: a feature length of 1 switches cross-attention's input off."""
    for name, given in (("ctx", ctx), ("encoder_ctx", encoder_ctx), ("batch", batch)):
        positive(name, given)
    if encoder_ctx == 1:
        raise FamilyError("would make the encode look like a decode", where="encoder_ctx", found=1, wanted="≥ 2")
    shared = {"batch_size": batch, "seq_len": 1, "encoder_ctx_len": encoder_ctx, "decoder_ctx_len": ctx}
    # two frames of features become one row of the encoder's output
    return [
        Entry(SpecRole.ENCODE, {**shared, "feature_len": 2 * encoder_ctx}, "Encoder"),
        Entry(SpecRole.DECODE, {**shared, "feature_len": 1}, "Decode"),
    ]
