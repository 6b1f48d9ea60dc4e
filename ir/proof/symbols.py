"""Rules on a binding's symbols ask that all are there, known, positive, and equal where the graph says so."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator

import onnx_ir as ir

from ..core.specialization import SpecRole
from ..interface.axes import Axis
from ..symbolic.equations import bound_value
from ..symbolic.symbols import dims_of
from .case import Failure, View
from .shapes import first_clash

MAX_BYTES = 1 << 36  # of one input or output: larger than the memory of any device these manifests are for


def every_symbol_bound(view: View) -> Iterator[Failure]:
    """Every symbol of the graph's inputs has a size."""
    canonical = view.canonical
    unknown = [name for name in view.spec.binding if name not in canonical.needed]
    for name in canonical.needed:
        if name in view.spec.binding:
            continue
        near = difflib.get_close_matches(name, unknown, n=1, cutoff=0.6)
        given = view.complete.get(name)
        nearest = f"{name} = {given}" if given is not None else f"{near[0]!r} spelled {name!r}" if near else ""
        where = canonical.place(name)
        yield view.fail(
            "symbols",
            name,
            f"symbol {name!r} of the graph, at {where}, is not bound",
            chain=view.chain([name]),
            nearest=nearest,
        )


def no_unknown_symbol(view: View) -> Iterator[Failure]:
    """Every bound symbol is the graph's, or one that the target tolerates."""
    canonical = view.canonical
    known = [*canonical.needed, *canonical.derived]
    written = view.case.written
    for name, size in view.spec.binding.items():
        if name in written and size != written[name]:
            what = f"symbol {name!r} is {size}, and {written[name]} was written into the graph"
            yield view.fail("symbols", name, what, nearest=f"{name} = {written[name]}")
        if name in known or name in written or name in view.case.tolerated:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        suggestion = (
            f": did you mean {near[0]!r}?" if near else f", only {', '.join(known)}" if known else ", nor any other"
        )
        nearest = f"{near[0]} = {size}" if near and near[0] not in view.spec.binding else ""
        yield view.fail("symbols", name, f"the graph has no symbol {name!r}{suggestion}", nearest=nearest)


def sizes_positive(view: View) -> Iterator[Failure]:
    """A size is at least 1; 0 stands only for the empty past of a prefill."""
    for name, size in view.spec.binding.items():
        meaning = view.canonical.meaning(name)
        if name in view.case.written:
            continue
        empty_past = meaning is Axis.PAST and view.role is not SpecRole.DECODE
        if size < 0 or (size == 0 and not empty_past):
            allowed = "0 is only for a state's past axis in a prefill"
            yield view.fail("sizes", name, f"symbol {name!r} is {size}; {allowed}", nearest=f"{name} = 1")


def equal_dimensions(view: View) -> Iterator[Failure]:
    """Symbols that must be equal, or that follow from others, are bound so."""
    canonical = view.canonical
    for name, dim in canonical.solution.solved.items():
        if name not in view.binding:
            continue
        wanted, found = bound_value(dim, view.reduced), view.binding[name]
        if wanted is not None and wanted != found:
            node, shapes = first_clash(view)
            yield view.fail(
                "equal dimensions",
                name,
                f"symbol {name!r} is {found} at {canonical.place(name)}, and must be {dim} = {wanted}",
                node=node,
                shapes=shapes or (f"{found} from {name}", f"{wanted} from {dim}"),
                chain=view.chain([name]),
                nearest=f"{name} = {wanted}",
            )


def tensors_fit(view: View) -> Iterator[Failure]:
    """No input or output is larger than any device's memory."""
    graph = view.canonical.model.graph
    for value in (*graph.inputs, *graph.outputs):
        sizes = [view.value(dim) if dim is not None else None for dim in view.case.dims(value) or ()]
        count = math.prod(size for size in sizes if size is not None)
        if count * _width(value) > MAX_BYTES:
            largest = max((size or 0, axis) for axis, size in enumerate(sizes))
            dim = (dims_of(value) or ())[largest[1]]
            names = sorted(view.canonical.symbols_in(dim))
            item = names[0] if names else value.name or ""
            yield view.fail(
                "sizes",
                item,
                f"symbol {item!r} makes {value.name!r} {count * _width(value):,} bytes large",
                shapes=(f"{value.name}: {[s if s is not None else '?' for s in sizes]}",),
                chain=view.chain(names),
                nearest=f"at most {MAX_BYTES:,} bytes a tensor",
            )
            return


def _width(value: ir.Value) -> int:
    return max(1, math.ceil(value.dtype.itemsize)) if value.dtype is not None else 1
