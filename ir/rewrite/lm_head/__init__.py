"""The language-model head of a graph: where it is, which rows reach it, and giving it fewer or more of them."""

from .find import InFunction, LmHead, Tokens, find_head, find_logits, head_tokens
from .kept import Kept, kept_rows
from .rewrite import Rewrite, before_quantization
from .rows import Count, Selector, Valid, Validity, validity_of

__all__ = [
    "Count",
    "InFunction",
    "Kept",
    "LmHead",
    "Rewrite",
    "Selector",
    "Tokens",
    "Valid",
    "Validity",
    "before_quantization",
    "find_head",
    "find_logits",
    "head_tokens",
    "kept_rows",
    "validity_of",
]
