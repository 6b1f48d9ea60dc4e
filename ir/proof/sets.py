"""Rules on the whole set hold names, copies, order of roles and hand-over of states to what the set claims to cover."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..core.specialization import SpecRole
from ..interface.axes import Axis
from ..program.contracts.sizes import Claims
from ..states import Pairing
from ..symbolic.symbols import dims_of
from .case import Case, Failure, View


def not_empty(case: Case) -> Iterator[Failure]:
    """There is something to prove."""
    if not case.specs:
        yield Failure("set", "specializations", "the manifest holds no specializations")


def names_differ(case: Case) -> Iterator[Failure]:
    """No name stands twice."""
    seen: set[str] = set()
    for spec in case.specs:
        if spec.name in seen:
            yield Failure("names", spec.name, f"the name {spec.name!r} stands twice", spec.name)
        seen.add(spec.name)


def none_alike(case: Case) -> Iterator[Failure]:
    """No two specializations bind every symbol alike, but for a prefill and a decode of one length."""
    seen: dict[object, list[View]] = {}
    for view in case.views:
        spec = view.spec
        others = seen.setdefault((spec.k, spec.logits_rows, tuple(sorted(spec.binding.items()))), [])
        first = next((o for o in others if o.role is view.role or SpecRole.OTHER in (o.role, view.role)), None)
        if first is not None:
            what = f"{spec.name!r} and {first.spec.name!r} bind every symbol alike"
            yield Failure("set", spec.name, what, spec.name)
        others.append(view)


def decode_below_prefill(case: Case) -> Iterator[Failure]:
    """A decode takes no more tokens than any prefill."""
    prefills = [(view, size) for view in case.of_role(SpecRole.PREFILL) if (size := view.size(Axis.SEQ)) is not None]
    for view in case.of_role(SpecRole.DECODE):
        size = view.size(Axis.SEQ)
        above = [(other, length) for other, length in prefills if size is not None and size > length]
        if above:
            other, length = above[0]
            name = case.used.name_of(Axis.SEQ) or "seq"
            yield view.fail(
                "roles",
                name,
                f"a decode of {size} tokens beside prefill {other.spec.name!r} of {length}: are the two swapped?",
                chain=view.chain([name]),
                nearest=f"{name} = {length}",
            )


def states_handed_over(case: Case) -> Iterator[Failure]:
    """What one specialization leaves in a state another can take up: sizes that do not grow are the same in all."""
    carried = [view for view in case.views if view.role in _CARRIES]
    for name in _kept_symbols(case):
        sizes = [(view, view.complete[name]) for view in carried if name in view.complete]
        if not sizes:
            continue
        values = [size for _, size in sizes]
        usual = max(values, key=lambda value: (values.count(value), -values.index(value)))
        for view, size in sizes:
            if size != usual:
                yield view.fail(
                    "states",
                    name,
                    f"symbol {name!r} is {size} here and {usual} elsewhere, so states cannot be handed over",
                    chain=view.chain([name]),
                    nearest=f"{name} = {usual}",
                )


_CARRIES = (SpecRole.PREFILL, SpecRole.DECODE, SpecRole.ENCODE, SpecRole.OTHER)


def _kept_symbols(case: Case) -> list[str]:
    """Symbols of states that stay one size from run to run."""
    found: dict[str, None] = {}
    for state in case.used.states:
        if state.input is None or state.pairing is not Pairing.BOTH:
            continue
        for axis, dim in enumerate(dims_of(state.input) or ()):
            grows = axis == state.axis and not state.traits.keeps_size
            if not grows:
                found.update(dict.fromkeys(sorted(case.used.symbols_in(dim))))
    return list(found)


def as_claimed(claims: Claims, cases: Sequence[Case]) -> Iterator[Failure]:
    """A prefill and every K that a program claims, over all its graphs; a graph that takes no state cannot decode."""
    carries = any(state.input is not None for case in cases for state in case.canonical.states)
    views = [view for case in cases for view in case.views]
    if claims.prefill and not any(view.role is SpecRole.PREFILL for view in views):
        yield Failure("coverage", "Prefill", "the set claims a prefill and has none")
    have = {_k_of(view) for view in views if view.role is SpecRole.DECODE}
    for k in claims.ks if carries else ():
        if k not in have:
            yield Failure("coverage", "k", f"the set claims K = {k} and has no decode of {k + 1} tokens")


def numbers_in_a_row(case: Case) -> Iterator[Failure]:
    """``Decode_0, Decode_2`` lacks ``Decode_1``."""
    numbers: dict[str, set[int]] = {}
    for spec in case.specs:
        found = re.fullmatch(r"(\D+)_(\d{1,4})", spec.name)
        if found:
            numbers.setdefault(found[1], set()).add(int(found[2]))
    for stem, present in numbers.items():
        missing = [number for number in range(max(present)) if number not in present]
        if missing and 0 in present | set(missing[:1]) and len(present) > 1:
            name = f"{stem}_{missing[0]}"
            yield Failure("coverage", name, f"{name!r} is missing between the numbered names")


def _k_of(view: View) -> int | None:
    if view.spec.k is not None:
        return view.spec.k
    seq = view.size(Axis.SEQ)
    return None if seq is None else seq - 1
