"""Diffusion pipelines get one list of specializations for each network, from the picture's or film's size."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ...core.specialization import SpecRole
from .base import Entry, FamilyError, Symbols, positive

SPATIAL = 8  # pixels of a latent's side
TEMPORAL = 4  # frames of a latent after the first
PATCH = 2  # latents of a patch's side
TEXT_TO_VIDEO_CHANNELS, IMAGE_TO_VIDEO_CHANNELS = 16, 36


class VideoKind(enum.Enum):
    """What a video pipeline starts from."""

    TEXT = "t2v"
    IMAGE = "i2v"


class Transformers(enum.Enum):
    """Whether the two transformers of a video pipeline are one graph with a switch, or two graphs."""

    UNIFIED = "unified"
    SEPARATE = "separate"


@dataclass(frozen=True)
class Latents:
    """A film in latents: rows of the transformer, height, width, frames."""

    rows: int
    height: int
    width: int
    frames: int


def latents(height: int, width: int, frames: int = 1) -> Latents:
    """The latents of ``frames`` pictures of ``height`` by ``width`` pixels; FamilyError where one side has none.

    A patch takes two latents of each side; the odd one out belongs to none, so each side is halved for itself.
    """
    for name, given in (("height", height), ("width", width), ("frames", frames)):
        positive(name, given)
    tall, wide, long = height // SPATIAL, width // SPATIAL, (frames - 1) // TEMPORAL + 1
    rows = (tall // PATCH) * (wide // PATCH) * long
    if not rows:
        least = SPATIAL * PATCH
        raise FamilyError("is too small for one patch", where=f"{height}x{width}", wanted=f"at least {least}x{least}")
    return Latents(rows, tall, wide, long)


def picture(height: int, width: int, batch: int = 1) -> dict[str, list[Entry]]:
    """A text-to-image pipeline with two text encoders, a transformer and a decoder."""
    found = latents(height, width)
    size = {"latent_height": found.height, "latent_width": found.width}
    return {
        "text_encoder": [_module("text_encoder", {"batch_size": batch, "seq_len": 77})],
        "text_encoder_2": [_module("text_encoder_2", {"batch_size": batch, "seq_len": 256})],
        "transformer": [_module("transformer", {"batch_size": batch, "seq_len": 256, "steps": 1, "cl": found.rows})],
        "vae_decoder": [_module("vae_decoder", {"batch_size": batch, "channels": 16, **size})],
    }


def video(
    height: int,
    width: int,
    frames: int = 81,
    *,
    kind: VideoKind = VideoKind.TEXT,
    transformers: Transformers = Transformers.UNIFIED,
    batch: int = 1,
) -> dict[str, list[Entry]]:
    """A video pipeline: one or two transformers, a decoder, and an encoder where it starts from an image."""
    found = latents(height, width, frames)
    size = {"latent_height": found.height, "latent_width": found.width, "latent_frames": found.frames}
    channels = IMAGE_TO_VIDEO_CHANNELS if kind is VideoKind.IMAGE else TEXT_TO_VIDEO_CHANNELS
    core = {"batch_size": batch, "num_channels": channels, "steps": 1, "sequence_length": 512, "cl": found.rows, **size}
    modules = _transformers(core, transformers)
    modules["vae_decoder"] = [_module("vae_decoder", {"batch_size": batch, "num_channels": 16, **size})]
    if kind is VideoKind.IMAGE:
        given = {"batch_size": batch, "num_channels": 16, "num_frames": frames, "height": height, "width": width}
        modules["vae_encoder"] = [_module("vae_encoder", given)]
    return modules


def _transformers(core: Symbols, transformers: Transformers) -> dict[str, list[Entry]]:
    if transformers is Transformers.SEPARATE:
        return {name: [_module(name, core)] for name in ("transformer_high", "transformer_low")}
    both = [_module(f"transformer_model_type_{number}", {**core, "model_type": number}) for number in (1, 2)]
    return {"transformer": both}


def _module(tag: str, symbols: Symbols) -> Entry:
    return Entry(SpecRole.MODULE, dict(symbols), tag)
