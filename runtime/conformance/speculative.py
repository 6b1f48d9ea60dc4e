"""Answers the conformance cases on helpers of speculative decoding, which the runtime holds."""

from __future__ import annotations

from ..speculate.plan import select_k
from ..speculate.proposers import lookup_candidates
from .cases import Answer, Case, Form, Section

_LOOKUP = ("ids", "fill_tok", "max_ngram_size", "num_pred_tokens")


def _ask_lookup(case: Case) -> Answer:
    """What prompt lookup proposes, and whether that is nothing."""
    tokens, empty = lookup_candidates(
        case["ids"],
        num_pred_tokens=case["num_pred_tokens"],
        max_ngram_size=case["max_ngram_size"],
        fill=case["fill_tok"],
    )
    return (tokens, empty), (case.get("out"), case.get("has_empty", empty))


def _ask_select_k(case: Case) -> Answer:
    """The K that covers the longest proposal."""
    return select_k(case["actual_proposals"], case["decode_ks"]), case.get("out")


SECTIONS = (
    Section(
        "14",
        "speculative helpers",
        (
            Form(
                _LOOKUP,
                "runtime.speculate.proposers.ngram.lookup_candidates",
                _ask_lookup,
                ("out", "has_empty", "raises"),
            ),
            Form(
                ("actual_proposals", "decode_ks"), "runtime.speculate.plan.select_k", _ask_select_k, ("out", "raises")
            ),
        ),
    ),
)
