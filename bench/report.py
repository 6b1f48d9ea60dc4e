"""Turns series of costs into tables: costs, ratios against what is wanted, growth with depth, weights."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .jobs import BY_KEY, WANTED, Group, Wanted
from .measure import Cost
from .rounds import Growth, Series, WeightCheck

STRICT_STYLE, STRICT_LAYERS = "constants", 126


@dataclass(frozen=True)
class Table:
    """A titled table of text cells."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def spread(numbers: Sequence[float], unit: str = "") -> str:
    """Median and range: ``1.21 [1.18-1.30]``."""
    if not numbers:
        return "-"
    if len(numbers) == 1:
        return f"{numbers[0]:.2f}{unit}"
    return f"{statistics.median(numbers):.2f}{unit} [{min(numbers):.2f}-{max(numbers):.2f}]"


def where(series: Series) -> str:
    """A graph in words."""
    if series.group is Group.START:
        return series.group.value
    return f"{series.group.value}: {series.layers} layers, {series.nodes:,} nodes, style {series.style}"


def cost_table(series: Series) -> Table:
    """What each job took; this machine's numbers, good for nothing but the ratios beside them."""
    base = next(iter(series.costs))
    rows: list[tuple[str, ...]] = []
    for key, costs in series.costs.items():
        good = [cost for cost in costs if not cost.failure]
        failure = next((cost.failure for cost in costs if cost.failure), "")
        ratios = series.ratios(Wanted(key, base, 0.0))
        peaks = [cost.peak_mb for cost in good]
        memory = f"{statistics.median(peaks):.0f}" if peaks else "-"
        took = spread([cost.seconds for cost in good]) if good else failure
        rows.append((BY_KEY[key].title, took, memory, spread(ratios) if key != base else "1"))
    return Table(where(series), ("job", "seconds", "peak MB", f"x {BY_KEY[base].title}"), rows)


def wanted_table(everything: Iterable[Series]) -> Table:
    """The ratios that are bound, where they are: at start-up and at the deepest graph of the second style."""
    rows = [
        (wanted.title, found(series, wanted), wanted.limit, verdict(series, wanted))
        for series in everything
        if in_scope(series)
        for wanted in comparable(series)
    ]
    place = f"{STRICT_LAYERS} layers, style {STRICT_STYLE}"
    return Table(f"Wanted, {place}; paired in each round: median [min-max]", ("ratio", "found", "wanted", ""), rows)


def other_table(everything: Iterable[Series]) -> Table:
    """The same ratios on the other graphs, where nothing is promised."""
    rows = [
        (wanted.title, f"{series.layers} {series.style}", found(series, wanted))
        for wanted in WANTED
        for series in everything
        if not in_scope(series) and wanted in comparable(series)
    ]
    return Table("The same ratios on the other graphs", ("ratio", "layers, style", "found"), rows)


def in_scope(series: Series) -> bool:
    """Whether the bounds bind here."""
    return series.group is Group.START or (series.style, series.layers) == (STRICT_STYLE, STRICT_LAYERS)


def comparable(series: Series) -> list[Wanted]:
    """The wanted ratios whose two jobs this series has."""
    return [wanted for wanted in WANTED if wanted.over in series.costs and wanted.under in series.costs]


def found(series: Series, wanted: Wanted) -> str:
    """The ratio in words; why there is none, where there is none."""
    ratios = series.ratios(wanted)
    failure = next((c.failure for key in (wanted.over, wanted.under) for c in series.costs[key] if c.failure), "")
    if not ratios:
        return failure or "-"
    return f"over {spread(ratios)} ({failure})" if failure else spread(ratios)


def verdict(series: Series, wanted: Wanted) -> str:
    """Held or missed, by the median."""
    ratios = series.ratios(wanted)
    if not ratios:
        return "no number"
    return "held" if wanted.holds(statistics.median(ratios)) else "MISSED"


def growth_table(everything: Iterable[Growth]) -> Table:
    """Time per node between depths: 1 is linear; a quadratic job would stand at the ratio of nodes."""
    rows: list[tuple[str, ...]] = []
    for growth in everything:
        _, first, *deeper = sorted(growth.nodes)
        for last in deeper:
            nodes = growth.nodes[last] / growth.nodes[first]
            ratio = spread(growth.ratios(first, last))
            rows.append((growth.title, growth.style, f"{first} to {last}", f"{nodes:.2f}", ratio))
    head = ("job", "style", "layers", "nodes x", "processor time per node x")
    return Table("Growth with depth, the smallest graph's time taken off", head, rows)


def weight_table(checks: Iterable[WeightCheck]) -> Table:
    """Bytes of the weight file that each job touched."""
    rows: list[tuple[str, ...]] = []
    for check in checks:
        calls = "strace is not installed" if check.calls is None else f"{len(check.calls)} calls"
        touched = f"{check.resident_bytes:,}"
        read = f"{check.read_bytes / 1e6:.0f} MB"
        rows.append((check.title, f"{check.weight_bytes / 1e9:.0f} GB", touched, calls, read, check.failure))
    head = ("job", "weight file", "its bytes in the page cache after", "reads, maps of it (strace)", "read in all", "")
    return Table("The weight file is not read", head, rows)


def markdown(tables: Iterable[Table]) -> str:
    """The tables as one Markdown text."""
    parts: list[str] = []
    for table in tables:
        lines = [f"## {table.title}", "", _line(table.head), _line(["---"] * len(table.head))]
        parts.append("\n".join([*lines, *(_line(row) for row in table.rows)]))
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def as_json(everything: Iterable[Series]) -> list[dict[str, object]]:
    """The raw numbers."""
    return [
        {
            "group": series.group.value,
            "style": series.style,
            "layers": series.layers,
            "nodes": series.nodes,
            "costs": {key: [_cost(cost) for cost in costs] for key, costs in series.costs.items()},
        }
        for series in everything
    ]


def _cost(cost: Cost) -> dict[str, object]:
    return cost.as_json()
