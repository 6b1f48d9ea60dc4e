"""Builds the arrays of one run: ids, segments, mask and positions, each by the role of the graph's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.interface.roles import Role
from ..session.subject import Subject
from .tokens import Tokens

PADDING_POSITION = -1


@dataclass(frozen=True)
class Rows:
    """Token ids, segments and what is valid, all ``[rows, length]``."""

    ids: np.ndarray
    types: np.ndarray
    valid: np.ndarray


def rows_of(texts: Sequence[Tokens], rows: int, length: int) -> Rows:
    """The texts padded behind; rows beyond them repeat the last, so that no row is empty."""
    ids, types = (np.zeros((rows, length), np.int64) for _ in range(2))
    valid = np.zeros((rows, length), np.bool_)
    for row in range(rows):
        text = texts[min(row, len(texts) - 1)]
        size = len(text.ids)
        ids[row, :size], types[row, :size], valid[row, :size] = text.ids, text.types, True
    return Rows(ids, types, valid)


def feeds_of(subject: Subject, rows: Rows) -> dict[str, np.ndarray]:
    """An array for every input; UsageError for an input that texts do not tell, or padding that nothing tells."""
    hiding = (Role.ATTENTION_MASK, Role.POSITIONS)
    if not rows.valid.all() and not any(role in hiding for role in subject.roles.values()):
        raise UsageError(
            "texts of several lengths need padding, and no input tells it", where=subject.name,
            wanted="an attention mask or positions", hint="Run with --batch 1 on a graph of free length.",
        )  # fmt: skip
    feeds: dict[str, np.ndarray] = {}
    for value in subject.model.graph.inputs:
        name, role = value.name or "", subject.roles[value.name or ""]
        make = _MAKERS.get(role)
        if make is None or (role is Role.OTHER and not _is_segments(value)):
            raise UsageError(
                "an input does not follow from texts", where=subject.name, found=f"{name} ({role.value})",
                hint="Give all inputs as arrays: --feeds F.npz.",
            )  # fmt: skip
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.int64)
        feeds[name] = np.ascontiguousarray(make(subject, value, rows), dtype)
    return feeds


def _is_segments(value: ir.Value) -> bool:
    """The segments of a pair: the one other integer input with a column a token (BERT's token_type_ids)."""
    return value.shape is not None and len(value.shape) == 2 and value.dtype in (ir.DataType.INT64, ir.DataType.INT32)


def _positions(subject: Subject, value: ir.Value, rows: Rows) -> np.ndarray:
    """0, 1, … a row; padding is -1 where nothing else marks it."""
    places = np.cumsum(rows.valid, axis=1) - 1
    positions = places if subject.masks else np.where(rows.valid, places, PADDING_POSITION)
    if value.shape is not None and len(value.shape) == 3:  # several axes of positions, as multimodal rotary has them
        first = value.shape[0]
        return np.broadcast_to(positions, (first if isinstance(first, int) else 3, *positions.shape))
    return positions


Maker = Callable[[Subject, ir.Value, Rows], np.ndarray]
_MAKERS: Mapping[Role, Maker] = {
    Role.TOKEN_IDS: lambda subject, value, rows: rows.ids,
    Role.ATTENTION_MASK: lambda subject, value, rows: rows.valid,
    Role.POSITIONS: _positions,
    Role.OTHER: lambda subject, value, rows: rows.types,
}
