"""Contracts on padding say which graphs cannot tell it, and which rows of a cache it is written to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..contract import Contract, port


@dataclass(frozen=True)
class WholeChunks(Contract):
    """A prefill answers the last row of its run, or carries it on, whatever it holds: the rest is read by a decode.

    Attributes:
        length: How many tokens a chunk has.
        carried: True where recurrent states take in every row.
    """

    kind: ClassVar[str] = "whole-chunks"
    assumes: ClassVar[bool] = True
    compared: ClassVar[str] = "the prefill reads prompts of whole chunks"
    unseen: ClassVar[str] = "a chunk that is padded: its answer is that of a row that holds no token"

    length: int = 1
    carried: bool = False

    def sentence(self) -> str:
        """As people read it."""
        why = "its recurrent states take in" if self.carried else "it answers the last row of"
        what = " every row, padding too" if self.carried else " a run, padding or not"
        return f"takes whole chunks of {self.length} tokens only: {why}{what}"


@dataclass(frozen=True)
class SpareRows(Contract):
    """Caches written at positions hold fewer tokens than rows: a padded token, at position -1, is written to the last.

    ScatterElements and ScatterND count negative indices from the end (onnx, since opset 11), and so does onnxruntime
    1.32 on the CPU; a target that drops writes outside the cache leaves the row empty.

    Attributes:
        inputs: The caches' inputs.
        rows: How many rows each has.
        spare: How many of them, the last ones, hold no token.
    """

    kind: ClassVar[str] = "spare-rows"
    assumes: ClassVar[bool] = True
    compared: ClassVar[str] = "prefills and decodes run with padding in some of their runs, and texts go on behind it"
    unseen: ClassVar[str] = "where a target other than onnxruntime's CPU writes a row at -1"

    inputs: tuple[str, ...] = port(default=())
    rows: int = 1
    spare: int = 1

    def sentence(self) -> str:
        """As people read it."""
        usable = self.rows - self.spare
        return f"caches written at positions hold {usable} tokens in {self.rows} rows: padding (-1) writes the last"


def takes_whole_chunks(contracts: Iterable[Contract], graph: str) -> bool:
    """Whether a pass recorded that the graph takes whole chunks only; without that, only a run tells."""
    return any(isinstance(contract, WholeChunks) and contract.is_about(graph) for contract in contracts)


def spare_rows(contracts: Iterable[Contract], graphs: Iterable[str]) -> int | None:
    """How many rows of their caches these graphs leave to padding; None where no pass recorded it."""
    names = tuple(graphs)
    found = [c.spare for c in contracts if isinstance(c, SpareRows) and any(map(c.is_about, names))]
    return max(found, default=None)
