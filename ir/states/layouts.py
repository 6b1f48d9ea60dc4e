"""Layouts say how a graph updates a state; one table says what follows from each of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Layout(enum.Enum):
    """How the update of a state is expressed in the graph."""

    APPEND = "append"  # Concat(past, new)
    SCATTER = "scatter"  # written in place at positions
    FUSED = "fused"  # inside one attention or recurrence operator
    DELTA = "delta"  # only the new rows leave the graph
    WINDOW = "window"  # a ring, or the last rows of a growing cache
    RECURRENT = "recurrent"  # conv, SSM, linear attention
    FIXED = "fixed"  # only read, or passed through unchanged


@dataclass(frozen=True)
class Traits:
    """What a layout alone tells of a state; what the operator or the sizes add, `State` tells.

    Attributes:
        changes: A run changes it.
        keeps_rows: One axis of it holds rows of tokens that ran before.
        keeps_every_row: No row is given up for a new one, so that the context is all there.
        gains_rows: The carried cache gets longer by the rows of each run, joined in the graph or by the host.
        longer_output: The output holds past and new, longer than the input by the run's tokens.
        keeps_size: The output has the input's sizes on every axis.
        shows_axis: Nodes of the graph join old rows and new ones, so the axis can be read off them.
        rewinds: Rows of rejected tokens can be taken back, or written over before anybody reads them.
    """

    changes: bool = True
    keeps_rows: bool = True
    keeps_every_row: bool = True
    gains_rows: bool = False
    longer_output: bool = False
    keeps_size: bool = False
    shows_axis: bool = True
    rewinds: bool = True


TRAITS: Mapping[Layout, Traits] = {
    Layout.APPEND: Traits(gains_rows=True, longer_output=True),
    Layout.SCATTER: Traits(keeps_size=True),
    Layout.FUSED: Traits(gains_rows=True, longer_output=True, shows_axis=False),
    Layout.DELTA: Traits(gains_rows=True),
    Layout.WINDOW: Traits(keeps_every_row=False, rewinds=False),
    Layout.RECURRENT: Traits(keeps_rows=False, keeps_every_row=False, keeps_size=True, shows_axis=False, rewinds=False),
    Layout.FIXED: Traits(changes=False, keeps_rows=False, keeps_every_row=False, keeps_size=True, shows_axis=False),
}
"""Layout -> its traits; a new layout is one row here, and `tests/test_layouts.py` says what each row means."""
