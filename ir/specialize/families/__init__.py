"""A family of models says which specializations each model needs: one table and a few builders."""

from .base import Entry, FamilyError, named
from .causal import CausalSizes, EqualLengths, Phases, causal, context_lengths, phases
from .ccl import ContextLengths, automatic, settled
from .diffusers import Transformers, VideoKind, latents, picture, video
from .encoders import ENCODERS, encoder, speech
from .multimodal import multimodal
from .table import FAMILIES

__all__ = [
    "ENCODERS",
    "FAMILIES",
    "CausalSizes",
    "ContextLengths",
    "Entry",
    "EqualLengths",
    "FamilyError",
    "Phases",
    "Transformers",
    "VideoKind",
    "automatic",
    "causal",
    "context_lengths",
    "encoder",
    "latents",
    "multimodal",
    "named",
    "phases",
    "picture",
    "settled",
    "speech",
    "video",
]
