"""The table lists families: models of pictures and text, and text models with a symbol of their own."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .vision import Fixed, Geometry, Pad, Resize


class Packaging(enum.Enum):
    """Whether vision and language are one compiled program or two."""

    DUAL = "dual"
    SINGLE = "single"


class Single(enum.Enum):
    """What the specializations of a single program hold."""

    LANGUAGE = "language"  # those of the language side
    MERGED = "merged"  # each of them with each picture's symbols


class Batching(enum.Enum):
    """How a family batches."""

    PLAIN = "plain"
    CONTINUOUS = "continuous"


_NO_PICTURE = Fixed()


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        vision: Symbols of the vision specialization; empty for a text model.
        language: Symbols of prefill and decode beyond batch, sequence and context.
        dropped: Those of ``language`` that a single program does not have.
        single: What a single program's specializations hold.
        constants: Symbols that the model's own configuration fixes; options may replace them.
        geometry: What measures the pictures.
        lengths: Prefill and context where none is given.
        packagings: What the family can be packaged as.
        batchings: How the family can batch.
        refused: Options that the picture's size decides, and that must not be given.
        longest: Rows of the longest context that the model's positions reach; None where no limit is known.
        whole_context: Whether a prefill without chunks needs a context as long as itself.
    """

    vision: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ("vision_size",)
    single: Single = Single.LANGUAGE
    constants: tuple[tuple[str, int], ...] = ()
    geometry: Geometry = _NO_PICTURE
    lengths: tuple[int, int] = (128, 4096)
    packagings: frozenset[Packaging] = frozenset(Packaging)
    batchings: frozenset[Batching] = frozenset(Batching)
    refused: tuple[str, ...] = ()
    whole_context: bool = False
    longest: int | None = None


_QWEN = ("batch_size", "vision_size", "grid_height", "grid_width", "grid_h", "grid_w")
_QWEN3 = Family(
    (*_QWEN, "time", "num_feature_layers"),
    ("vision_size", "vision_batch_size", "num_feature_layers"),
    constants=(("num_feature_layers", 3),),
    geometry=Resize(patch=16),
)
_QWEN3_5 = Family(
    (*_QWEN, "time"),
    ("vision_size", "vision_batch_size"),
    ("vision_size", "vision_batch_size"),
    geometry=Resize(patch=16),
)
_PATCHES = ("image_size_height", "image_size_width", "num_patches", "max_num_images", "img_size")
_MOLMO = ("img_size", "img_tile", "num_images", "num_patch")

FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": Family(_QWEN, ("vision_size", "vision_batch_size"), geometry=Resize(patch=14)),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "qwen3_5": _QWEN3_5,
    "qwen3_5_moe": _QWEN3_5,
    "kimi_k25": Family(
        ("num_patches", "grid_h", "grid_w", "num_image_tokens"),
        ("num_image_tokens",),
        (),
        Single.MERGED,
        geometry=Pad(),
        lengths=(32, 4096),
        refused=("height", "width", "h", "w", "grid_h", "grid_w", "num_patches", "num_image_tokens"),
    ),
    "internvl": Family(
        ("batch_size", "num_patches", "img_size", "batched_num_patches"),
        ("num_patches", "img_size", "vision_size"),
        geometry=Fixed(
            (("num_patches", 13), ("img_size", 448)),
            (
                ("batched_num_patches", lambda q: q["batch_size"] * q["num_patches"]),
                ("vision_size", lambda q: q["batched_num_patches"] * (q["img_size"] // 14 // 2) ** 2),
            ),
            pinned=("img_size",),
        ),
        lengths=(3840, 4096),
    ),
    "llava": Family(
        ("batch_size", "max_num_images", "img_size"),
        ("max_num_images", "img_size", "vision_size", "vision_batch_size"),
        geometry=Fixed(
            (("max_num_images", 1), ("img_size", 336)), (("vision_size", lambda q: (q["img_size"] // 14) ** 2),)
        ),
        lengths=(592, 1024),
    ),
    "llava_next": Family(
        ("batch_size", *_PATCHES),
        (*_PATCHES, "vision_size", "vision_batch_size"),
        geometry=Fixed(
            (
                ("image_size_height", 1109),
                ("image_size_width", 1610),
                ("num_patches", 10),
                ("max_num_images", 1),
                ("img_size", 384),
            ),
            (("vision_size", lambda _: 5239),),
            pinned=("image_size_height", "image_size_width", "num_patches", "img_size"),
        ),
        lengths=(5500, 6000),
        packagings=frozenset({Packaging.DUAL}),
    ),
    "llama4": Family(
        ("batch_size", "max_num_tiles", "img_size"),
        ("max_num_tiles", "img_size", "vision_size", "chunk_length", "chunk_ctx_len"),
        geometry=Fixed(
            (("max_num_tiles", 17), ("img_size", 336)),
            (("vision_size", lambda q: (q["img_size"] // 14) ** 2 // 4 * q["max_num_tiles"]),),
        ),
        lengths=(32, 4096),
        longest=65536,
    ),
    "gemma3": Family(
        ("batch_size", "img_size", "seq_len", "ctx_len"),
        ("sliding_window", "img_size", "vision_size", "vision_batch_size"),
        (),
        constants=(("sliding_window", 512),),
        geometry=Fixed((("img_size", 896),), (("vision_size", lambda _: 256),)),
        lengths=(32, 4096),
    ),
    "gemma4": Family(
        ("batch_size", "max_patches"),
        ("sliding_window", "vision_batch_size", "vision_size"),
        (),
        constants=(("sliding_window", 512),),
        geometry=Fixed((("max_patches", 2520),), (("vision_size", lambda q: q["max_patches"] // 9),)),
        lengths=(32, 4096),
    ),
    "gemma4_text": Family(language=("sliding_window",), constants=(("sliding_window", 512),), lengths=(32, 128)),
    "mistral3": Family(
        ("batch_size", "seq_len", "ctx_len", "image_size", "vision_size"),
        ("image_size", "vision_size"),
        geometry=Fixed(
            (("img_size", 1540),),
            (
                ("image_size", lambda q: q["img_size"]),
                ("vision_size", lambda q: (q["img_size"] // 14) ** 2 * q["batch_size"] // 4),
            ),
        ),
    ),
    "mllama": Family(
        ("batch_size", "max_num_images", "img_size"),
        ("max_num_images", "img_size"),
        geometry=Fixed((("max_num_images", 1), ("img_size", 448))),
        lengths=(32, 128),
        batchings=frozenset({Batching.PLAIN}),
    ),
    "molmo": Family(
        ("batch_size", "seq_len", "ctx_len", *_MOLMO, "valid_size"),
        (*_MOLMO, "valid_size", "vision_batch_size"),
        _MOLMO,
        geometry=Fixed(
            (("img_size", 588), ("img_tile", 576), ("num_images", 5), ("num_patch", 144), ("valid_size", 544)),
            pinned=("img_size", "img_tile", "num_patch"),
        ),
        lengths=(1024, 4096),
    ),
    "gpt_oss": Family(
        language=("sliding_window",), constants=(("sliding_window", 128),), lengths=(32, 128), whole_context=True
    ),
}
