"""Hidden rows between two layers become an output of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ...core.dataflow import Point
from ...shapes.infer import Facts
from ...shapes.infer.declared import is_fresh
from ..builder import Builder
from .open_norm import NORMS, ask_for


@dataclass(frozen=True)
class Tapped:
    """Where a graph without the tap has the rows: ``value``, or what it leaves out beside it, at ``port``."""

    value: str
    port: int | None = None


def rows_at(point: Point) -> ir.Value | None:
    """The value that holds the hidden rows at a point of the trunk; None where a fused sum and norm leaves it out."""
    if isinstance(point, ir.Value):
        return point
    at = NORMS[point.op_type].total
    return point.outputs[at] if len(point.outputs) > at and point.outputs[at].name else None


def leaves_as(graph: ir.Graph, point: Point, name: str) -> bool:
    """True where the rows at a point leave the graph under that name already."""
    rows, output = rows_at(point), next((value for value in graph.outputs if value.name == name), None)
    maker = output.producer() if output is not None else None
    copied = maker is not None and maker.op_type == "Identity" and maker.inputs[0] is rows
    return output is not None and (output is rows or copied)


@dataclass(frozen=True)
class Tapper:
    """Adds outputs to one graph; values inside keep their names."""

    graph: ir.Graph
    known: Mapping[ir.Value, ir.DataType]
    facts: Facts
    owner: str

    def tap(self, point: Point, name: str) -> Tapped:
        """Adds the output ``name``, which holds the rows at a point of the trunk.

        A fused sum and norm is asked for ``input_skip_bias_sum``, the fourth output of both of onnxruntime's operators.
        """
        rows = rows_at(point)
        if rows is None:
            assert isinstance(point, ir.Node), "a value holds its own rows"
            normed = next(value for value in point.outputs if value.name)
            at = NORMS[point.op_type].total
            output, found = ask_for(point, at, name), Tapped(normed.name or "", at)
            self._declare(output, normed, name)
        else:
            builder = Builder(self.graph, self.owner)
            output, found = builder.op("Identity", [rows], name, dtype=None), Tapped(rows.name or "")
            builder.place_after(rows)
            self._declare(output, rows, name)
        self.graph.outputs.append(output)
        return found

    def _declare(self, output: ir.Value, like: ir.Value, name: str) -> None:
        shape = self.facts.shape(like)
        dims = [dim if isinstance(dim, int) else None if is_fresh(dim) else str(dim) for dim in shape or ()]
        output.name, output.type = name, ir.TensorType(like.dtype or self.known[like])
        output.shape = ir.Shape(dims) if shape is not None else like.shape
