"""Answers the cases that ask for encoders, speech, picture-and-text models and diffusers."""

from __future__ import annotations

import re
from typing import Any, cast

from ...ir.core.errors import UsageError
from ...ir.specialize.families import (
    ENCODERS,
    FAMILIES,
    Transformers,
    VideoKind,
    encoder,
    latents,
    multimodal,
    phases,
    picture,
    speech,
    video,
)
from ...ir.specialize.families.base import check_options
from ...ir.specialize.naming import to_named
from .cases import Answer, Case, numbers
from .causal import tagged

_KINDS = {"emb": "embedding", "seqcls": "sequence-classification", "seq": "sequence-classification", "ctc": "ctc"}
_TEST_MODEL = {"temporal_patch_size": 1}  # of the small models that the tool's own tests build


def ask_encoder(case: Case) -> Answer:
    """Embedding, classification, CTC: the id tells the lengths, the recorded answer the batch, which no key does."""
    words = str(case["id"]).split(" ", 1)
    kind = next((kind for start, kind in _KINDS.items() if words[0].lower().startswith(start)), None)
    if kind is None:
        raise UsageError("is no encoder", where="id", found=words[0], wanted=", ".join(ENCODERS))
    given = re.search(r"\[[\d, \"']*\]|\([\d, ]*\)|(?<![\w.])\d+(\s*,\s*\d+)*", words[1]) if len(words) > 1 else None
    lengths = [int(number) for number in re.findall(r"\d+", given[0])] if given else []
    recorded = case.get("named")
    batch = int(recorded[0]["symbols"]["batch_size"]) if recorded else 1
    return tagged(encoder(kind, lengths, batch)), recorded


def ask_speech(case: Case) -> Answer:
    """Speech encoder-decoders."""
    given: dict[str, Any] = {key: value for key, value in numbers(case["in"]).items() if value is not None}
    check_options(given, ("batch_size", "ctx_len", "encoder_ctx_len", "prefill_seq_len", "feature_len"), "speech")
    entries = speech(given.get("ctx_len", 150), given.get("encoder_ctx_len", 1500), given.get("batch_size", 1))
    return tagged(entries), case.get("named")


def ask_multimodal(case: Case) -> Answer:
    """A family of the table; two lists where it is packaged in two."""
    spelled = str(case["id"]).replace(" ", "_")
    name = max((name for name in FAMILIES if spelled.startswith(name)), key=len, default=spelled)
    options: dict[str, Any] = _own_options(name, dict(case["in"]))
    takes = FAMILIES[name].geometry.options if name in FAMILIES else ()
    if "test" in str(case["id"]).split() and "temporal_patch_size" in takes:
        options.update(_TEST_MODEL)
    lists = multimodal(name, options)
    language = tagged(lists["lang"])
    if not options.get("kv_offload") or "vision" not in lists:
        return language, case.get("named")
    vision = to_named([dict(entry.symbols) for entry in lists["vision"]], "Vision")
    return {"vision": vision, "lang": language}, case.get("named")


def _own_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options without sizes that only other families measure pictures by: the tool passes them on unread."""
    family = FAMILIES.get(name)
    if family is None:
        return options
    others = {option for other in FAMILIES.values() for option in other.geometry.options}
    own = {*family.geometry.options, *family.refused, *(key for key, _ in family.constants), *_MEASURES}
    return {key: value for key, value in options.items() if key in own or key not in others}


_MEASURES = ("num_frames", "vision_size", "height", "width")  # refused by name where a family does not take them


def ask_pipeline(case: Case) -> Answer:
    """A diffusion pipeline, or the latents of a film alone."""
    words, numbers = str(case["id"]).lower().split(), [int(found) for found in re.findall(r"\d+", _sizes_in(case))]
    if "dims" in words:
        found = latents(*numbers)
        sides = [found.rows, found.height, found.width]
        return (sides if len(numbers) == 2 else [*sides, found.frames]), case.get("out")
    if words[0] == "flux":
        made = picture(*numbers)
    else:
        kind = VideoKind.IMAGE if "i2v" in words else VideoKind.TEXT
        apart = Transformers.SEPARATE if "non-unified" in words else Transformers.UNIFIED
        made = video(*numbers, kind=kind, transformers=apart)
    return {module: tagged(entries) for module, entries in made.items()}, case.get("out")


def _sizes_in(case: Case) -> str:
    found = re.search(r"\(\s*\d+(\s*,\s*\d+)+\s*\)|\d+(x\d+)+", str(case["id"]))
    if found is None:
        raise UsageError("tells no size", where="id", found=case["id"])
    return found[0]


def ask_phases(case: Case) -> Answer:
    """The oldest writer's prefill and decode."""
    sizes = (case["batch_size"], case["prompt_len"], case["ctx_len"], case.get("full_batch_size"))
    entries = phases(*(numbers(size) for size in sizes))
    recorded = cast("object", case.get("file"))
    return {"specializations": tagged(entries)}, recorded
