"""Proves an edit by its shapes: every length of the new graph is the old one's, written in the new symbols."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...core.operators import names
from ...core.operators.walks import ORDERS
from ...interface.roles import Role
from ...shapes.infer import Facts
from ...shapes.infer.declared import is_fresh
from ...states.attention import mask_operands, path_to_softmax, products
from ...states.signatures import Signatures
from .context import ConversionContext
from .options import MaskInput

MAX_VISITS = 20000
_STOPS = names(lambda row: row.product or row.softmax or row.sizes)
_INDEXED = names(lambda row: row.moves and row.slots is not None)


def prove(context: ConversionContext) -> Facts:
    """The facts of the edited graph; raises PassRefused where a shape or a length is not what it has to be.

    Batch may stand where 1 stood: positions count each row of the batch for itself.
    """
    now = context.sweep.run()
    caches = {id(state.input) for state in context.states}
    caches |= {id(node.outputs[0]) for state in context.states for node in state.chain}  # of the past's length before
    for node in context.model.graph:
        for value in node.outputs:
            if id(value) not in caches and value in context.facts.shapes:
                _check(context, node, value, now)
    return now


def _check(context: ConversionContext, node: ir.Node, value: ir.Value, now: Facts) -> None:
    before, after = context.facts.shape(value), now.shape(value)
    if before is None:
        return
    after = () if after is None else after
    derived = context.derived.shape(value) or before
    dims = enumerate(zip(before, after, derived, strict=False))
    if len(before) != len(after) or not all(is_fresh(c) or context.same(a, b, first=at == 0) for at, (a, b, c) in dims):
        raise context.refuse(
            "its result would not have the shape it has to have",
            node=node,
            found=f"[{', '.join(map(str, after))}]",
            wanted=f"[{', '.join(str(context.wanted(dim)) for dim in before)}]",
            hint="The graph uses the past's length in a way that is not understood.",
        )
    old, new = context.facts.ints(value), now.ints(value)
    if old is not None and new is not None and value.uses():
        items = [
            (a, b)
            for a, b in zip(old.items, new.items, strict=True)
            if not isinstance(a, bool) and not context.leaks(a)
        ]
        if not all(context.same(a, b) for a, b in items):
            raise context.refuse(
                "it would compute a length that it must not",
                node=node,
                found=", ".join(map(str, new.items)),
                wanted=", ".join(str(context.wanted(a)) for a in old.items),
            )


def refuse_unmasked(context: ConversionContext, reads: Mapping[str, ir.Value], positions: ir.Value) -> None:
    """Raises PassRefused where a cache meets a softmax with no mask made from positions, or given whole as an input.

    ``reads`` are the caches as attention reads them, by the state's name.
    """
    signatures = Signatures(context.model)
    for name, value in reads.items():
        for product, role in products(value, signatures.reads):
            if role == "key" and not _masked(context, product, positions):
                raise context.refuse(
                    f"no mask hides the rows of {name!r} that were not written yet",
                    node=product,
                    wanted="a mask that compares row numbers with query positions",
                    hint="The graph attends to all rows of its cache; export it with a causal mask.",
                )


def _masked(context: ConversionContext, product: ir.Node, positions: ir.Value) -> bool:
    inner = {id(product), *map(id, path_to_softmax(product))}
    cone = _cone(mask_operands(product), inner)
    if any(_is_whole_mask(context, value) for value in cone):
        return True
    if context.mask in cone and context.sequence == 1 and context.options.mask is MaskInput.ROWS:
        return True  # the one query sees what the mask's columns allow
    return _compares_positions(cone, inner, positions)


def depends_on_positions(context: ConversionContext, values: list[ir.Value], positions: ir.Value) -> bool:
    """True where ``values`` come from a comparison with positions, or (mask kept) from the mask's own columns."""
    cone = _cone(values, set())
    kept = context.mask is not None and context.options.mask is MaskInput.ROWS and context.mask in cone
    return kept or _compares_positions(cone, set(), positions)


def _compares_positions(cone: set[ir.Value], inner: set[int], positions: ir.Value) -> bool:
    nodes = {node for value in cone if (node := value.producer()) is not None}
    compares = (node.inputs for node in nodes if node.op_type in ORDERS)
    if any(positions in _cone([v for v in operands if v is not None], inner) for operands in compares):
        return True
    taken = (node for node in nodes if node.op_type in _INDEXED and node.inputs[1] is not None)
    return any(positions in _cone([v for v in n.inputs[1:] if v is not None], inner) and _triangle(n) for n in taken)


def _triangle(node: ir.Node) -> bool:
    """True where the lines that positions choose are a triangle's: compared rows, or a stored lower triangle."""
    source = node.inputs[0]
    if source is None:
        return False
    if any(n is not None and n.op_type in (*ORDERS, "Trilu") for n in (v.producer() for v in _cone([source], set()))):
        return True
    tensor = ir.convenience.get_const_tensor(source)
    if tensor is None or tensor.dtype not in (ir.DataType.BOOL, ir.DataType.UINT8) or len(tensor.shape) < 2:
        return False
    return not np.triu(tensor.numpy().astype(bool), 1).any()


def _cone(values: list[ir.Value], inner: set[int]) -> set[ir.Value]:
    """What ``values`` are computed from, without what comes through matrix products or the nodes ``inner``."""
    work, seen = list(values), set[ir.Value]()
    while work and len(seen) < MAX_VISITS:
        value = work.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is not None and id(node) not in inner and node.op_type not in _STOPS:
            work.extend(v for v in node.inputs if v is not None)
    return seen


def _is_whole_mask(context: ConversionContext, value: ir.Value) -> bool:
    """True for an input that holds the whole mask, a line a query: the host masks."""
    is_mask = value.is_graph_input() and context.roles.get(value.name or "") is Role.ATTENTION_MASK
    return is_mask and len(value.shape or ()) >= 3
