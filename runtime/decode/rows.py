"""Reads what a run of a decoder answers, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .state_session import GraphSession, NotDecodable
from .step import Step


@dataclass(frozen=True)
class Rows:
    """What one run gave: logits ``[rows, n, vocabulary]`` or tokens ``[rows, n]``; ``first`` is n's first token."""

    values: np.ndarray
    first: np.ndarray

    @property
    def are_tokens(self) -> bool:
        """Whether the graph chose the tokens itself."""
        return self.values.ndim == 2

    def after(self, row: int, token: int) -> np.ndarray:
        """What follows the row's token number ``token`` of the run: logits ``[vocabulary]`` or one token."""
        return self.values[row, token - int(self.first[row])]

    @classmethod
    def of(cls, graph: GraphSession, found: Mapping[str, np.ndarray], step: Step) -> Rows:
        """The first result as rows of a batch. Raises NotDecodable where it is none."""
        values = next(iter(found.values()))
        is_choice = values.dtype.kind in "iu"
        if values.ndim == (1 if is_choice else 2):
            values = values[:, None]
        if values.ndim != (2 if is_choice else 3):
            where = f"{graph.name}, output {next(iter(found))!r}"
            raise NotDecodable("no logits", where=where, found=list(values.shape))
        given = values.shape[1]
        first = np.zeros(len(values), np.int64) if given == step.width else np.maximum(step.counts - given, 0)
        return cls(values, first)
