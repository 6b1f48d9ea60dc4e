"""Graphs that answer the last token of a run alone are watched as a copy that answers all of them."""

from __future__ import annotations

import onnx_ir as ir

from ...ir.core.errors import PassRefused, UsageError
from ...ir.quantization import EncodingTable
from ...ir.quantization.choose import moved_from
from ...ir.shapes.float_values import float_values
from ...passes.keep_last_logits import KeepLastLogits
from .feed import Feeder

ALL_ROWS = "num_logits_to_keep"  # the input of the copy that tells how many rows it answers


def feeder_of(model: ir.Model, chunk: int, capacity: int) -> Feeder:
    """Feeds the graph, or, where that answers the last token of a run alone, a copy that answers them all.

    In steps of one token every token would be answered: a chunk must show the last layers as much. PassRefused says
    what in the graph cannot be fed.
    """
    copy = model.clone()
    try:
        widened = KeepLastLogits(symbol=ALL_ROWS).call(copy).counts.get("widened", 0)
    except (PassRefused, UsageError):
        widened = 0  # no head that keeps rows apart, or one that an input tells about
    return Feeder.of(copy if widened else model, chunk, capacity)


def keep_to(model: ir.Model, table: EncodingTable) -> None:
    """Leaves out what only the copy computes; rows that only the graph itself selects have their source's range."""
    values = {value.name or "": value for value in float_values(model)}
    for name in [name for name in table.ranges if name not in values]:
        del table.ranges[name]
    given = {value.name for value in model.graph.inputs}
    for name, value in values.items():
        if name not in table.ranges and name not in given:
            known = next((at for at in moved_from(value) if at in table.ranges), None)
            table.ranges |= {name: table.ranges[known]} if known is not None else {}
