"""The rule on shapes asks that concrete sizes, propagated through the graph, meet every demand of every node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..shapes.demands import Demand, Demands, demands_of
from ..shapes.infer import Trust
from ..symbolic.dims import Dim, Expr, free_symbols, substitute
from .case import Failure, View

REACH = 2048  # how far from a size a working one is looked for
Dims = tuple[Dim, ...]


def shapes_meet(view: View) -> Iterator[Failure]:
    """Every node takes the shapes that reach it; where expressions leave a demand open, numbers are propagated."""
    demands = view.canonical.demands
    failed, undecided = judge(demands, view.reduced)
    if failed is None and undecided:
        concrete = demands_of(view.canonical.model, dict(view.complete))
        failed, _ = judge(concrete, view.complete)
        demands = concrete
    if failed is not None:
        yield _failure(view, demands, failed)


def judge(demands: Demands, binding: Mapping[str, int]) -> tuple[Demand | None, int]:
    """The first demand that the sizes break, and how many stay open because they depend on data."""
    undecided = 0
    for demand in demands.items:
        left, right = demands.value(demand.left, binding), demands.value(demand.right, binding)
        if left is None or right is None:
            undecided += 1
        elif not demand.relation.holds(left, right):
            return demand, undecided
    return None, undecided


def first_clash(view: View) -> tuple[str, tuple[str, ...]]:
    """The first node that does not take the binding as given, and the shapes that reach it; empty where all do."""
    written = {name: size for name, size in view.binding.items() if name in view.canonical.needed}
    model = view.canonical.model
    symbolic = demands_of(model, trust=Trust.INPUTS)  # in the graph's own symbols, none of them taken for another
    failed, _ = judge(symbolic, written)
    if failed is None:
        failed, _ = judge(demands_of(model, dict(written)), written)
    if failed is None:
        return "", ()
    inputs = [value for value in failed.node.inputs if value is not None]
    spelled = [symbolic.facts.shape(value) for value in inputs]
    pairs = zip(failed.shapes, spelled, strict=False)
    return failed.place, tuple(
        _both(symbolic, shape, dims or shape, written) for shape, dims in pairs if shape is not None
    )


def open_demands(view: View) -> int:
    """How many demands neither expressions nor numbers decide."""
    _, undecided = judge(view.canonical.demands, view.reduced)
    if not undecided:
        return 0
    return judge(demands_of(view.canonical.model, dict(view.complete)), view.complete)[1]


def _failure(view: View, demands: Demands, demand: Demand) -> Failure:
    left, right = (demands.value(side, view.reduced) for side in (demand.left, demand.right))
    names = sorted(_symbols(demands, (demand.left, demand.right)))
    item = names[0] if names else demand.node.op_type
    near = next(((name, size) for name in names if (size := _nearest(view, name, demand)) is not None), None)
    if near is not None:
        item = near[0]
    sides = f"{_shown(demand.left, left)} must be {demand.relation.value} {_shown(demand.right, right)}"
    return view.fail(
        "shapes",
        item,
        f"symbol {item!r} does not fit: {sides}" if names else f"the graph clashes: {sides}",
        node=demand.place,
        shapes=tuple(_shape(demands, shape, view.reduced) for shape in demand.shapes if shape is not None),
        chain=view.chain(names),
        nearest=f"{near[0]} = {near[1]}" if near is not None else "",
    )


def _symbols(demands: Demands, dims: Iterable[Dim]) -> set[str]:
    """The graph's symbols in dimensions, through what broadcasts stand for."""
    found: set[str] = set()
    work = list(dims)
    seen: set[str] = set()
    while work:
        for name in free_symbols(work.pop()):
            if name in demands.joined and name not in seen:
                seen.add(name)
                work.extend(demands.joined[name])
            elif not name.startswith("?"):
                found.add(name)
    return found


def _nearest(view: View, name: str, demand: Demand) -> int | None:
    """The nearest value of one symbol, others kept, under which all demands hold; None where none is near."""
    demands, binding = view.canonical.demands, dict(view.reduced)
    size = binding.get(name)
    if size is None:
        return None
    for distance in range(1, REACH):
        for value in (size - distance, size + distance):
            binding[name] = value
            if value > 0 and _holds(demands, demand, binding) and judge(demands, binding)[0] is None:
                return value
    return None


def _holds(demands: Demands, demand: Demand, binding: Mapping[str, int]) -> bool:
    left, right = demands.value(demand.left, binding), demands.value(demand.right, binding)
    return left is not None and right is not None and demand.relation.holds(left, right)


def _shown(dim: Dim, value: int | None) -> str:
    return f"{value} ({dim})" if isinstance(dim, Expr) and value is not None else str(dim)


def _shape(demands: Demands, shape: Dims, binding: Mapping[str, int]) -> str:
    return _both(demands, shape, shape, binding)


def _both(demands: Demands, shape: Dims, spelled: Dims, binding: Mapping[str, int]) -> str:
    """A shape as numbers, and as the expressions that they came from."""
    numbers = [demands.value(dim, binding) for dim in shape]
    listed = ", ".join("?" if number is None else str(number) for number in numbers)
    if not any(isinstance(dim, Expr) for dim in spelled):
        return f"[{listed}]"
    return f"[{listed}] from [{', '.join(str(_spelled(demands, dim)) for dim in spelled)}]"


def _spelled(demands: Demands, dim: Dim, depth: int = 0) -> Dim:
    """``dim`` in the graph's symbols: a broadcast is spelled as its first side that is."""
    sides: dict[str, Dim] = {}
    for name in free_symbols(dim) & demands.joined.keys() if depth < MAX_SPELLED else ():
        found = [_spelled(demands, side, depth + 1) for side in demands.joined[name]]
        sides[name] = next((side for side in found if not any(n.startswith("?") for n in free_symbols(side))), found[0])
    return substitute(dim, sides)


MAX_SPELLED = 8
