"""States how close logits of one text must come where graphs compute it in runs of other lengths, and which tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.core.operators import names
from ...ir.core.scopes import all_nodes
from .compare import Difference, compare, ulp_tolerance

OTHER_SUMS = 2e-6  # what another length of the cache, or another number of tokens a run, may change
ROUNDED = 0.05  # where activations are rounded to 8 bits on the way, a sum's last bit may decide how
_ROUNDS = names(lambda row: row.rounds, None)
INT8 = 4  # the accuracy level of MatMulNBits that takes activations of 8 bits


def sums_of(model: ir.Model) -> float:
    """The tolerance for logits of the graph: how far another order of its sums may carry."""
    return ROUNDED if any(_rounds(node) for node in all_nodes(model)) else OTHER_SUMS


def _rounds(node: ir.Node) -> bool:
    level = node.attributes.get("accuracy_level") if node.op_type == "MatMulNBits" else None
    return node.op_type in _ROUNDS or (level is not None and not level.is_ref() and level.as_int() == INT8)


def compare_rows(expected: np.ndarray, found: np.ndarray, sums: float) -> tuple[Difference, ...]:
    """Logits ``[…, V]`` within what other sums change, and the same tokens; integers are tokens themselves.

    A token counts as the same where its expected logit is as large as the largest but for the tolerance.
    """
    tolerance = max(sums, 4 * ulp_tolerance(expected))
    if found.dtype.kind in "iu":
        tokens = found[..., 0] if found.ndim > expected.ndim - 1 else found
        return (_same_tokens(expected, tokens.astype(np.int64), tolerance),)
    return (compare("logits", expected, found, tolerance), _same_tokens(expected, found.argmax(-1), tolerance))


def _same_tokens(expected: np.ndarray, tokens: np.ndarray, tolerance: float) -> Difference:
    best, wide = expected.argmax(-1), expected.astype(np.float64)
    if tokens.shape != best.shape or tokens.min(initial=0) < 0 or tokens.max(initial=0) >= expected.shape[-1]:
        return compare("tokens", best, tokens)
    behind = wide.max(-1) - np.take_along_axis(wide, tokens[..., None], -1)[..., 0]
    margin = 2 * tolerance * np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
    return compare("tokens", best, np.where(behind <= margin, best, tokens))
