"""Gives what was the same for the whole batch one slice a sequence: ``[S, 1]`` becomes ``[B, S, 1]``.

Where such a tensor meets one of more axes, its batch lines up with the first axis there and the batching is over;
until then each consumer is written anew with one axis more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ...symbolic.dims import Dim
from ...symbolic.symbols import dims_of
from ..size_arithmetic import anchors_of, emit_sizes
from .context import ConversionContext

Rule = Callable[["Batching", ir.Node], "ir.Value | None"]
"""Feeds a node the batched forms of its operands; gives the batched form of its result, None where batching is over."""


@dataclass(eq=False)
class Batching:
    """One sweep: ``forms`` holds the batched form ``[B, *shape]`` of each value that has one."""

    context: ConversionContext
    forms: dict[ir.Value, ir.Value] = field(default_factory=dict[ir.Value, ir.Value])
    batch_first: set[ir.Value] = field(default_factory=set[ir.Value])
    """Values whose first axis was 1 and is the batch now."""

    def take(self, node: ir.Node, form: ir.Value | None) -> None:
        """Keeps the batched form of a node's result."""
        if form is None:
            return
        if node.outputs[0].is_graph_output():
            raise self.context.refuse(f"output {node.outputs[0].name!r} tells query positions only", node=node)
        self.forms[node.outputs[0]] = form
        self.context.builder.place_after(node)

    def operands(self, node: ir.Node) -> list[int]:
        """The operands that are batched."""
        return [index for index, value in enumerate(node.inputs) if value in self.forms]

    def shape(self, node: ir.Node, value: ir.Value | None) -> tuple[Dim, ...]:
        """A value's shape in the graph as it was."""
        shape = self.context.facts.shape(value) if value is not None else None
        if shape is None:
            raise self.unknown(node)
        return shape

    def settle(self, node: ir.Node, form: ir.Value) -> None:
        """``form`` takes the place of the node's result, which had a first axis of 1."""
        self.context.builder.place_after(node)
        self.context.facts.shapes[form] = self.shape(node, node.outputs[0])  # as the old one's, for what follows
        node.outputs[0].replace_all_uses_with(form)
        self.batch_first.add(form)

    def copy(
        self, node: ir.Node, operands: Sequence[ir.Value | None], attributes: dict[str, object] | None = None
    ) -> ir.Value:
        """The node once more, with these operands."""
        dtype = node.outputs[0].dtype or ir.DataType.UNDEFINED
        kept = {name: attr for name, attr in node.attributes.items() if name not in (attributes or {})}
        value = self.context.builder.op(
            node.op_type, operands, f"{node.name or node.op_type}/rows", attributes, dtype=dtype
        )
        made = value.producer()
        assert made is not None
        made.attributes.update(kept)
        if dtype is ir.DataType.UNDEFINED:
            value.type = None
        return value

    def spread(self, node: ir.Node, value: ir.Value, rank: int) -> ir.Value:
        """The batched form with ``rank`` axes: ones between the batch and the value's own."""
        form, own = self.forms.get(value, value), len(self.shape(node, value))
        name = f"{node.name or node.op_type}/spread"
        if value not in self.forms:
            return self._with_axes("Unsqueeze", form, list(range(1, rank - own + 1)), name) if rank > own else form
        if own + 1 > rank:  # its own first axis is 1: the batch takes that place
            return self._with_axes("Squeeze", form, [1], name)
        return self._with_axes("Unsqueeze", form, list(range(1, rank - own)), name) if rank > own + 1 else form

    def unknown(self, node: ir.Node) -> Exception:
        """The refusal for a consumer that has no rule, or not in this form."""
        found = [
            f"{v.name!r} {list(map(str, self.context.facts.shape(v) or ()))}"
            for v in node.inputs
            if v in self.forms or v in self.batch_first
        ]
        return self.context.refuse(
            f"query positions enter {node.op_type} in a form that has no room for one row a sequence",
            node=node,
            found=", ".join(found),
            hint="The graph computes positions itself, without a batch axis; export it with position_ids "
            "[batch, sequence] among its inputs. clone-decode alone gives decodes that need a full past.",
        )

    def _with_axes(self, op_type: str, form: ir.Value, axes: list[int], name: str) -> ir.Value:
        builder = self.context.builder
        value = builder.op(
            op_type,
            [form, builder.axes(axes)],
            name,
            dtype=form.dtype or ir.DataType.INT64,
        )
        value.type = form.type
        return value

    def first_is_one(self, value: ir.Value) -> bool:
        """True for a value whose first axis was 1."""
        shape = self.context.facts.shape(value)
        return shape is not None and len(shape) > 0 and shape[0] == 1

    def measure(self, node: ir.Node, items: Sequence[Dim]) -> ir.Value:
        """A 1-D value of dimensions, computed from the graph's inputs."""
        inputs = [value for value in self.context.model.graph.inputs if not value.is_initializer()]
        anchors = anchors_of(inputs, [dims_of(value) or () for value in inputs])
        try:
            return emit_sizes(self.context.builder, items, anchors, f"{node.name or node.op_type}/shape")
        except KeyError as error:
            raise self.unknown(node) from error
