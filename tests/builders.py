"""The small graphs of every idiom, by name: those whose states can be stripped, and the others."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

from .append_graphs import (
    append_dynamo,
    append_other_axes,
    append_plain,
    append_three_dims,
    baked_length,
    half_paired,
    no_states,
    one_token,
)
from .entry_graphs import reordered
from .scatter_graphs import (
    scatter_elements,
    scatter_mrope,
    scatter_nd_transposed,
    scatter_three_dims,
    tensor_scatter,
)

BUILDERS: dict[str, Callable[[], ir.Model]] = {
    "append": append_decoder,
    "append plain": append_plain,
    "append window": lambda: append_plain(window=4),
    "append other axes": append_other_axes,
    "append three dims": append_three_dims,
    "append dynamo": append_dynamo,
    "append beam": lambda: reordered(append_plain()),
    "one token": one_token,
    "scatter": scatter_decoder,
    "scatter batch index": lambda: scatter_decoder(batch_index=True),
    "scatter index 0": lambda: scatter_decoder(no_index=0),
    "scatter compute context": lambda: scatter_decoder(compute_context=True),
    "scatter window": lambda: scatter_decoder(window=4),
    "scatter beam": lambda: reordered(scatter_decoder()),
    "scatter mrope": scatter_mrope,
    "scatter elements": scatter_elements,
    "scatter three dims": scatter_three_dims,
    "scatter nd transposed": scatter_nd_transposed,
    "tensor scatter": tensor_scatter,
}
"""Graphs whose states can be stripped, by idiom."""

OTHERS: dict[str, Callable[[], ir.Model]] = {
    "no states": no_states,
    "baked length": baked_length,
    "input only": lambda: half_paired("input"),
    "output only": lambda: half_paired("output"),
}
"""Graphs with nothing to strip, or that must be refused."""
