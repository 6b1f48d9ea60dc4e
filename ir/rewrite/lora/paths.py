"""A low-rank path beside a product: its rows times two thin matrices are added to what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...core.errors import PassRefused
from ...shapes.infer import Facts
from ..builder import Builder
from ..layer.projections import Projection

LORA_IDS = "lora_ids"
INT64 = ir.DataType.INT64


@dataclass(eq=False)
class Beside:
    """Adds low-rank paths to one graph, behind everything that is planned before.

    Attributes:
        types: The element types of values, as far as they are known.
        ids: What chooses among stacked adapters, ``[batch]``, where they are.
    """

    model: ir.Model
    builder: Builder
    facts: Facts
    types: Mapping[ir.Value, ir.DataType]
    where: str
    ids: ir.Value | None = None

    def ends(self, projection: Projection) -> tuple[ir.Value, ir.Value]:
        """The rows and the product as floats; PassRefused where a product has neither."""
        node = projection.node
        rows, product = node.inputs[projection.rows], node.outputs[0]
        assert rows is not None, "a product has rows"
        maker = rows.producer()
        if maker is not None and maker.op_type == "DynamicQuantizeLinear" and maker.inputs[0] is not None:
            rows = maker.inputs[0]
        if node.op_type == "MatMulInteger":
            product = _behind(_behind(product, "Cast"), "Mul")
        turned = node.attributes.get("transA")
        if not self._is_float(rows) or not self._is_float(product) or (turned is not None and turned.as_int()):
            raise PassRefused(
                "a low-rank path needs rows and results in floating point", where=self.where,
                found=f"{node.op_type} {node.name!r}", hint=f"Leave {projection.kind or 'it'} out of targets.",
            )  # fmt: skip
        return rows, product

    def _is_float(self, value: ir.Value) -> bool:
        dtype = self.types.get(value, value.dtype)
        return dtype is None or dtype.is_floating_point()

    def _dtype(self, value: ir.Value) -> ir.DataType:
        return self.types.get(value, value.dtype) or ir.DataType.FLOAT

    def rank_of(self, value: ir.Value) -> int:
        """How many dimensions a value has; PassRefused where that is not known."""
        shape = self.facts.shape(value)
        if shape is None or len(shape) not in (2, 3):
            found = f"{value.name}: {shape and len(shape)}"
            raise PassRefused("rows of 2 or 3 dimensions are wanted", where=self.where, found=found)
        return len(shape)

    def add(self, projection: Projection, down: ir.Value, up: ir.Value) -> None:
        """``down`` [in, rank] and ``up`` [rank, out], or stacked with a first axis that the ids choose from."""
        rows, product = self.ends(projection)
        dtype = self._dtype(product)
        name = projection.node.name or str(product.name)
        if self.ids is None:
            thin = self._op("MatMul", [rows, down], f"{name}/down", dtype)
            delta = self._op("MatMul", [thin, up], f"{name}/up", dtype)
        else:
            delta = self._chosen(rows, down, up, name, dtype, self.rank_of(rows))
        if projection.is_part:
            delta = self._padded(projection, delta, self.rank_of(product), name, dtype)
        self._join(product, delta, name, dtype)

    def _chosen(
        self, rows: ir.Value, down: ir.Value, up: ir.Value, name: str, dtype: ir.DataType, rank: int
    ) -> ir.Value:
        """Each batch line has matrices of its own: rows of all lines in one axis are parted by line for it."""
        assert self.ids is not None, "the caller asked"
        width = int(down.shape[1]) if down.shape is not None else 0  # pyright: ignore[reportArgumentType]
        flat = self.ids
        if rank == 2:
            lines = self.builder.dims([(flat, 0), -1, width], "lines")
            rows = self._op("Reshape", [rows, lines], f"{name}/lines", dtype)
        thin = self._op("MatMul", [rows, self._picked(down, flat, f"{name}/A", dtype)], f"{name}/down", dtype)
        delta = self._op("MatMul", [thin, self._picked(up, flat, f"{name}/B", dtype)], f"{name}/up", dtype)
        if rank == 2:
            columns = int(up.shape[2]) if up.shape is not None else 0  # pyright: ignore[reportArgumentType]
            delta = self._op("Reshape", [delta, self.builder.ints([-1, columns], "rows")], f"{name}/rows", dtype)
        return delta

    def choose_by(self, ids: ir.Value) -> None:
        """From now on matrices are stacks; ``ids`` [batch, 1] chooses one for each line of the batch."""
        self.ids = self.builder.op("Reshape", [ids, self.builder.ints([-1], "flat")], LORA_IDS)
        self.builder.place_front()

    def _picked(self, stack: ir.Value, ids: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
        return self.builder.op("Gather", [stack, ids], name, {"axis": 0}, None, dtype)

    def _padded(self, part: Projection, delta: ir.Value, rank: int, name: str, dtype: ir.DataType) -> ir.Value:
        """Zeros in the columns of the other projections that the product holds."""
        before, after = [0] * rank, [0] * rank
        before[-1], after[-1] = part.low, part.whole - part.high
        pads = self.builder.ints([*before, *after], f"pads_{part.low}_{part.whole - part.high}")
        return self._op("Pad", [delta, pads], f"{name}/{part.kind}", dtype)

    def _join(self, product: ir.Value, delta: ir.Value, name: str, dtype: ir.DataType) -> None:
        """The sum takes the product's uses; as a graph output it takes its name too."""
        uses = list(product.uses())
        total = self.builder.op("Add", [product, delta], f"{name}/sum", None, None, dtype, like=product)
        self.builder.place_after(product)
        for node, index in uses:
            node.replace_input_with(index, total)
        if product.is_graph_output():
            outputs = self.model.graph.outputs
            outputs[list(outputs).index(product)] = total
            product.name, total.name = total.name, product.name

    def _op(self, op_type: str, inputs: Sequence[ir.Value], name: str, dtype: ir.DataType) -> ir.Value:
        return self.builder.op(op_type, inputs, name, None, None, dtype)


def _behind(value: ir.Value, op_type: str) -> ir.Value:
    """What the one operator of that type makes of a value that nothing else reads, else the value."""
    uses = list(value.uses())
    return uses[0].node.outputs[0] if len(uses) == 1 and uses[0].node.op_type == op_type else value
