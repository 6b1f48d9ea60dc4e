"""Which layers and roles get 4 bits and which 8, so that least is lost under a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.core.errors import UsageError
from .sensitivity import Loss, Sensitivity

UNITS = 20_000  # of size, at most, in which budgets are counted: finer ones change nothing that is measured


@dataclass(frozen=True)
class Item:
    """The weights of one layer and role: how many, and what they lose at each width."""

    layer: int | None
    role: str
    weights: int
    losses: dict[int, float]


@dataclass(frozen=True)
class Assignment:
    """Bits by item, the loss that they add up to, and bits a weight on average."""

    bits: tuple[int, ...]
    loss: float
    average: float


@dataclass(frozen=True)
class Suggestion:
    """The assignment of bits that loses least under a budget, and beside it the greedy and the uniform ones.

    Attributes:
        items: The weights that bits are given to.
        named: ``least``, ``greedy``, and ``all N`` of each width -> its assignment, bits in the order of ``items``.
        block: Inputs of a channel that shared a scale when the losses were measured; 0 for all.
    """

    items: tuple[Item, ...]
    named: dict[str, Assignment]
    block: int = 0

    @property
    def recipe(self) -> str:
        """The least loss as a recipe (YAML), which ``quantize{recipe=FILE}`` reads."""
        return recipe_of(self.items, self.named["least"], block=self.block)

    def to_dict(self) -> dict[str, object]:
        """As ``suggest-bits --json`` prints it."""
        return {name: {"loss": found.loss, "average": found.average} for name, found in self.named.items()}


def suggest_bits(found: Sensitivity, budget: float) -> Suggestion:
    """Chooses among the widths that were measured; UsageError for a budget below the narrowest of them."""
    items = items_of(found.losses)
    best, other = least_loss(items, budget), greedy(items, budget)
    widths = sorted({bits for item in items for bits in item.losses})
    uniform = {f"all {bits}": assignment(items, [bits] * len(items)) for bits in widths}
    return Suggestion(tuple(items), {"least": best, "greedy": other, **uniform}, found.block)


def items_of(losses: Sequence[Loss]) -> list[Item]:
    """Losses by layer and role; a loss below 0, which noise can make of almost nothing, counts as none."""
    found: dict[tuple[int | None, str], Item] = {}
    for loss in losses:
        item = found.setdefault((loss.layer, loss.role), Item(loss.layer, loss.role, loss.weights, {}))
        item.losses[loss.bits] = max(loss.kl, 0.0)
    return list(found.values())


def least_loss(items: Sequence[Item], budget: float) -> Assignment:
    """The assignment of at most ``budget`` bits a weight that loses least, losses added up: a dynamic programme.

    Raises UsageError for a budget below every width, or without anything to assign.
    """
    _check(items, budget)
    whole = sum(item.weights for item in items)
    unit = max(math.gcd(*(item.weights for item in items)), -(-whole * 8 // UNITS))
    room = int(budget * whole // unit)
    best = np.zeros(room + 1)
    choices: list[np.ndarray] = []
    for item in items:
        costs = np.full((len(item.losses), room + 1), np.inf)
        for row, (bits, loss) in enumerate(item.losses.items()):
            size = -(-item.weights * bits // unit)  # rounded up: what is chosen fits
            if size <= room:
                costs[row, size:] = best[: room + 1 - size] + loss
        choices.append(costs.argmin(axis=0))
        best = costs.min(axis=0)
    if not np.isfinite(best[-1]):
        return _greedy(items, budget)  # sizes rounded up left no room
    at, chosen = room, list[int]()
    for item, choice in zip(reversed(items), reversed(choices), strict=True):
        bits = list(item.losses)[int(choice[at])]
        chosen.append(bits)
        at -= -(-item.weights * bits // unit)
    return assignment(items, chosen[::-1])


def greedy(items: Sequence[Item], budget: float) -> Assignment:
    """The narrowest everywhere, then wider where a bit saves most loss, as long as the budget lasts."""
    _check(items, budget)
    return _greedy(items, budget)


def _greedy(items: Sequence[Item], budget: float) -> Assignment:
    bits = [min(item.losses) for item in items]
    room = budget * sum(item.weights for item in items) - sum(b * i.weights for b, i in zip(bits, items, strict=True))
    gains = [
        ((item.losses[min(item.losses)] - item.losses[max(item.losses)]) / item.weights, at)
        for at, item in enumerate(items)
    ]
    for _, at in sorted(gains, reverse=True):
        wider = max(items[at].losses)
        extra = (wider - bits[at]) * items[at].weights
        if extra <= room:
            bits[at], room = wider, room - extra
    return assignment(items, bits)


def assignment(items: Sequence[Item], bits: Sequence[int]) -> Assignment:
    """What bits by item come to."""
    pairs = list(zip(items, bits, strict=True))
    whole = sum(item.weights for item in items)
    return Assignment(
        tuple(bits),
        sum(item.losses[width] for item, width in pairs),
        sum(item.weights * width for item, width in pairs) / whole,
    )


def _check(items: Sequence[Item], budget: float) -> None:
    if not items:
        raise UsageError("there is nothing to give bits to")
    least = min(min(item.losses) for item in items)
    if budget < least:
        raise UsageError("no assignment fits the budget", found=budget, wanted=f"at least {least} bits a weight")


def recipe_of(items: Sequence[Item], chosen: Assignment, *, block: int = 0) -> str:
    """The recipe of an assignment: the narrowest everywhere, a rule for each role's layers with more bits."""
    narrow = min(chosen.bits)
    form = f"block {block}" if block else "channel"
    lines = [
        "recipe: 1",
        f"about: {chosen.average:.3f} bits a weight, chosen by what each layer and role loses alone",
        "rules:",
        f"- weights: {{bits: {narrow}, granularity: {form}}}",
    ]
    groups: dict[tuple[int, str], list[int | None]] = {}
    for item, bits in zip(items, chosen.bits, strict=True):
        if bits != narrow:
            groups.setdefault((bits, item.role), []).append(item.layer)
    for (bits, role), layers in groups.items():
        told = sorted(layer for layer in layers if layer is not None)
        where = [f"roles: [{', '.join(role.split())}]"] + ([f"layers: {told}"] if told else [])
        lines.append(f"- where: {{{', '.join(where)}}}\n  weights: {{bits: {bits}}}")
    return "\n".join(lines) + "\n"
