"""What a program's specializations claim to cover, as the pipelines that made them were told."""

from __future__ import annotations

from ..ir.core.errors import OnnxPassesError
from ..ir.program.program import Program
from ..ir.proof import Claims
from .pipeline import parse_pipeline

DECODERS = ("causal-lm", "peft")
ENDS = ("bind", "extract-layer")  # what is left is a part: nothing more is claimed


def claims_of(program: Program) -> Claims:
    """The prefill and the K that the passes which made specializations were asked for; none where no pass did."""
    claims = Claims()
    for text in (*(item.pipeline for item in program.earlier), program.pipeline):
        try:
            passes = parse_pipeline(text) if text else []
        except OnnxPassesError:
            continue  # another version's text, or a pass that is not installed here
        for item in passes:
            if item.name in ENDS:
                claims = Claims()
            elif item.name == "clone-decode" or getattr(item, "family", "") in DECODERS:
                claims = _claims(item)
    return claims


def _claims(item: object) -> Claims:
    """A prompt of one token is a decode; phases say where only half was asked for."""
    phases = getattr(getattr(item, "phases", None), "value", "both")
    prompt: object = getattr(item, "prefill", None)
    ks: object = getattr(item, "k", ())
    numbers = tuple(k for k in ks if isinstance(k, int)) if isinstance(ks, tuple) else ()  # pyright: ignore[reportUnknownVariableType]
    return Claims(
        prefill=phases != "decode" and isinstance(prompt, int) and prompt > 1,
        ks=numbers if phases != "prefill" else (),
    )
