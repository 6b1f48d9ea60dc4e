"""Rules on lengths hold for sequence, past, context, window and logits rows, and for prefill and decode."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.specialization import SpecRole
from ..interface.axes import Axis
from ..interface.logits import logits_output
from ..symbolic.symbols import dims_of
from .case import Failure, View

AtMost = tuple[Axis, Axis, str]
ORDERED: tuple[AtMost, ...] = (
    (Axis.SEQ, Axis.CTX, "the new tokens must fit into the context"),
    (Axis.LOGITS, Axis.SEQ, "there are no more logits than tokens"),
    (Axis.ATTENDED, Axis.CTX, "the attended part lies within the context"),
    (Axis.WINDOW, Axis.CTX, "a window lies within the context"),
    (Axis.WINDOW, Axis.TOTAL, "a window lies within the context"),
    (Axis.BATCH, Axis.CACHE_BATCH, "each row of the batch has a row of the cache"),
)


def in_order(view: View) -> Iterator[Failure]:
    """seq ≤ ctx, logits rows ≤ seq, attended ≤ ctx, window ≤ ctx, batch ≤ cache batch."""
    canonical = view.canonical
    for less, more, why in ORDERED:
        for group in canonical.groups(more) or [""]:
            small, large = view.size(less), view.size(more, group)
            if small is None or large is None or small <= large:
                continue
            item = _name(view, less) or _name(view, more)
            yield view.fail(
                "lengths",
                item,
                f"{_as_text(view, less, small)} exceeds {_as_text(view, more, large)}: {why}",
                chain=view.chain([n for n in (_name(view, less), _name(view, more)) if n]),
                nearest=f"{item} = {large}",
            )


def logits_rows(view: View) -> Iterator[Failure]:
    """A specialization's own logits rows are no more than its tokens, and what the graph's symbol says."""
    rows, seq, bound = view.spec.logits_rows, view.size(Axis.SEQ), view.size(Axis.LOGITS)
    if rows is not None and seq is not None and rows > seq:
        yield view.fail("lengths", "logits rows", f"{rows} logits rows of {seq} tokens", nearest=f"{seq} rows")
    if rows is not None and bound is not None and rows != bound:
        name = _name(view, Axis.LOGITS)
        yield view.fail(
            "lengths", name, f"symbol {name!r} is {bound} for {rows} logits rows", nearest=f"{name} = {rows}"
        )


def speculative_tokens(view: View) -> Iterator[Failure]:
    """A decode with K speculative tokens takes K+1 tokens."""
    k, seq = view.k, view.size(Axis.SEQ)
    if view.spec.k is not None and view.role not in (SpecRole.DECODE, SpecRole.LAYER):
        yield view.fail("K", "k", f"K = {view.spec.k} of a {view.role.value}: only a decode has speculative tokens")
    if k is None or seq is None:
        return
    name = _name(view, Axis.SEQ) or "the sequence"
    if seq != k + 1:
        yield view.fail("K", "k", f"K = {k} needs {k + 1} tokens, and {name} is {seq}", nearest=f"{name} = {k + 1}")


def decode_rows(view: View) -> Iterator[Failure]:
    """A decode gives logits of every token it takes; a prefill's rows are its own affair."""
    seq = view.size(Axis.SEQ)
    rows = _logits_out(view)
    if view.role is not SpecRole.DECODE or seq is None or rows is None or rows >= seq:
        return
    name, logits = _name(view, Axis.SEQ), _name(view, Axis.LOGITS)
    wanted = f"{logits} = {seq}" if logits else f"{name} = {rows}"
    what = f"a decode of {name} = {seq} tokens gives {logits or 'logits of the last'} = {rows} rows"
    yield view.fail("K", logits or name, what, chain=view.chain([n for n in (name, logits) if n]), nearest=wanted)


def _logits_out(view: View) -> int | None:
    """The rows of the logits, where they have the batch in front: ``[batch, rows, vocabulary]``."""
    canonical = view.canonical
    value, batch = logits_output(canonical.model, canonical.states), canonical.dim(Axis.BATCH)
    dims = dims_of(value) if value is not None else None
    if dims is None or len(dims) != 3 or batch is None or dims[0] is None or dims[1] is None:
        return None
    return view.value(dims[1]) if canonical.solution.reduce(dims[0]) == batch else None


def cache_rows(view: View) -> Iterator[Failure]:
    """What only the target knows counts rows of the cache, of which there are no more than the cache has."""
    rows = view.size(Axis.CACHE_BATCH)
    for name in view.case.tolerated & view.spec.binding.keys():
        size = view.spec.binding[name]
        if rows is not None and size > rows:
            yield view.fail(
                "lengths", name, f"{name} = {size} exceeds the {rows} rows of the cache", nearest=f"{name} = {rows}"
            )


def full_cache(view: View) -> Iterator[Failure]:
    """On growing caches a decode starts from past = ctx - seq and ends at ctx; a prefill stays within it."""
    past, seq, context = view.size(Axis.PAST), view.size(Axis.SEQ), context_of(view)
    if past is None or seq is None or context is None:
        return
    name = _name(view, Axis.PAST) or "the past"
    chain = view.chain([n for n in (_name(view, Axis.PAST), _name(view, Axis.SEQ)) if n])
    if past + seq > context:
        yield view.fail(
            "past",
            name,
            f"{name} = {past} and {seq} new tokens exceed the context of {context}",
            chain=chain,
            nearest=f"{name} = {max(0, context - seq)}",
        )
    elif view.role is SpecRole.DECODE and past + seq != context:
        yield view.fail(
            "past",
            name,
            f"a decode needs past = ctx - seq: {name} is {past}, wanted {context} - {seq}",
            chain=chain,
            nearest=f"{name} = {context - seq}",
        )


def context_of(view: View) -> int | None:
    """The context of a graph whose caches grow: the most frequent total of its decodes, else the largest total."""
    views = view.case.of_role(SpecRole.DECODE) or view.case.views
    totals = [past + seq for v in views if (past := v.size(Axis.PAST)) is not None and (seq := v.size(Axis.SEQ))]
    return max(totals, key=lambda total: (totals.count(total), total), default=None)


def window_rows(view: View) -> Iterator[Failure]:
    """A cache that is a ring of its window's rows has at least as many."""
    seen: set[str] = set()
    for state in view.canonical.states:
        window = state.window
        if window is None or not state.is_ring or state.input is None or state.axis is None:
            continue
        group = f"window {window}"
        rows = view.size(Axis.PAST, group)
        if rows is None or rows >= window or group in seen:
            continue
        seen.add(group)
        name = view.canonical.name_of(Axis.PAST, group) or state.name
        yield view.fail(
            "window",
            name,
            f"{name} = {rows} is shorter than the window of {window} that state {state.name} keeps",
            chain=view.chain([name]),
            nearest=f"{name} = {window}",
        )


def _name(view: View, meaning: Axis) -> str:
    return view.canonical.name_of(meaning) or ""


def _as_text(view: View, meaning: Axis, size: int) -> str:
    name = _name(view, meaning)
    return f"{name} = {size}" if name else f"{meaning.value} {size}"
