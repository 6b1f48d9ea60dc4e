"""The language-model head is found, and given fewer or more rows."""

from .find import InFunction, LmHead, Tokens, find_head, find_logits, head_tokens, mark_words
from .kept import Kept, kept_rows
from .padding import answers_end_of_run
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
    "answers_end_of_run",
    "before_quantization",
    "find_head",
    "find_logits",
    "head_tokens",
    "kept_rows",
    "mark_words",
    "validity_of",
]
