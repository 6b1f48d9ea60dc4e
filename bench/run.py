"""``make bench``: what onnx-passes costs against its peers, as ratios taken in one run on one machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from . import against
from .jobs import BY_KEY, JOBS, Group, Job, Place
from .measure import Limits
from .report import Table, as_json, cost_table, growth_table, markdown, other_table, wanted_table, weight_table
from .rounds import Growth, Rules, Series, WeightCheck, check_weights, grow, imports_of, interleave, prepare

HERE = Path(__file__).parent
STYLES = ("constants", "annotated")
WEIGHTS = {Group.STRIP: "sparse", Group.SIMPLIFY: "random", Group.CLONE: "sparse", Group.CHECK: "sparse"}
HEAVY = ("onnxruntime", "onnxscript", "onnx_graphsurgeon")
PACKAGES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnx-graphsurgeon", "onnxslim", "onnxsim")

Tell = Callable[[str], None]


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").strip("`"))
    parser.add_argument("--layers", default="2,32,80,126", help="depths of the graphs, comma-separated")
    parser.add_argument("--style", default=",".join(STYLES), help="constants, annotated, or both")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each job; a job over 30 s runs once")
    parser.add_argument("--quick", action="store_true", help="2 and 32 layers, one round, no slow peers")
    parser.add_argument("--only", default="", help="keys of jobs, comma-separated (their reference included)")
    parser.add_argument("--seconds", type=float, default=300.0, help="a job is stopped after that")
    parser.add_argument("--megabytes", type=int, default=6000, help="a job is stopped at that much memory")
    parser.add_argument("--write", action="store_true", help="write bench/results.md too")
    parser.add_argument("--against", type=Path, help="another checkout, in a folder called onnx_llm_passes")
    parser.add_argument("--work", type=Path, default=HERE / "out", help="where graphs and numbers go")
    given = parser.parse_args()
    if given.quick:
        given.layers, given.rounds = "2,32", 1
    return given


def chosen(group: Group, given: argparse.Namespace) -> list[Job]:
    """The jobs of a group that the command line wants."""
    only = set(filter(None, given.only.split(",")))
    unknown = only - set(BY_KEY)
    if unknown:
        raise SystemExit(f"unknown job {', '.join(sorted(unknown))}; known: {', '.join(BY_KEY)}")
    jobs = [job for job in JOBS if job.group is group and not (given.quick and job.slow)]
    return [job for job in jobs if not only or job.key in only]


def plan(given: argparse.Namespace) -> Iterator[tuple[Group, str, int]]:
    """What to measure, in order."""
    yield Group.START, "", 0
    for style in given.style.split(","):
        for layers in map(int, given.layers.split(",")):
            yield Group.STRIP, style, layers
            yield Group.SIMPLIFY, style, layers
            yield Group.CLONE, style, layers
            yield Group.CHECK, style, layers


def measure_all(given: argparse.Namespace, tell: Tell) -> Iterator[Series]:
    """Every group on every graph, one series after the other."""
    rules = Rules(given.rounds, Limits(given.seconds, given.megabytes), tell)
    for group, style, layers in plan(given):
        jobs = chosen(group, given)
        if not jobs:
            continue
        place, nodes = put(given.work, group, style, layers)
        series = Series(group, style, layers, nodes)
        interleave(series, jobs, place, rules)
        yield series


def put(work: Path, group: Group, style: str, layers: int) -> tuple[Place, int]:
    """A group's graph; starting up needs none."""
    if group is not Group.START:
        return prepare(work, style, layers, WEIGHTS[group])
    place = Place(work / "start")
    place.source.parent.mkdir(parents=True, exist_ok=True)
    return place, 0


def measure_growth(given: argparse.Namespace, tell: Tell) -> Iterator[Growth]:
    """Our jobs on every depth, where three or more are asked for."""
    depths = sorted(map(int, given.layers.split(",")))
    if len(depths) < 3:
        return
    rules = Rules(given.rounds, Limits(given.seconds, given.megabytes), tell)
    groups = (Group.STRIP, Group.SIMPLIFY, Group.CLONE, Group.CHECK)
    jobs = [job for group in groups for job in chosen(group, given) if job.ours]
    for style in given.style.split(","):
        places = {layers: prepare(given.work, style, layers, "sparse") for layers in depths}
        yield from grow(jobs, style, places, rules)


def measure_against(given: argparse.Namespace, tell: Tell) -> Iterator[Table]:
    """This build and another checkout on each graph that is asked for, weights that run beside it."""
    other = against.checked(given.against)
    rules = Rules(given.rounds, Limits(given.seconds, given.megabytes), tell)
    for style in given.style.split(","):
        for layers in map(int, given.layers.split(",")):
            place, nodes = prepare(given.work, style, layers, "random")
            pairs = against.compare(other, place, rules)
            yield against.table(pairs, f"against {other}: {layers} layers, {nodes:,} nodes, style {style}")


def weight_checks(given: argparse.Namespace) -> list[WeightCheck]:
    """Our jobs once more on the deepest sparse graph, with an eye on the weight file."""
    layers = max(map(int, given.layers.split(",")))
    place, _ = prepare(given.work, given.style.split(",")[0], layers, "sparse")
    keys = [job.key for job in JOBS if job.ours and job.group is not Group.START]
    return list(check_weights(keys, place, Limits(given.seconds, given.megabytes)))


def import_table(work: Path) -> Table:
    """Which heavy packages the light commands import."""
    place, _ = put(work, Group.START, "", 0)
    rows: list[tuple[str, ...]] = []
    for key in ("help", "list"):
        try:
            found = ", ".join(sorted(imports_of(BY_KEY[key], place) & set(HEAVY))) or "none"
        except CalledProcessError as failure:
            found = f"the command failed: exit code {failure.returncode}"
        rows.append((BY_KEY[key].title, found))
    return Table("Heavy packages that a light command imports", ("command", f"of {', '.join(HEAVY)}"), rows)


def versions() -> Table:
    """What was measured."""
    rows: list[tuple[str, ...]] = []
    for name in PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "not installed"))
    return Table("Versions", ("package", "version"), rows)


def show(console: Any, table: Table) -> None:
    """One table on the terminal."""
    from rich.table import Table as RichTable

    shown = RichTable(*table.head, title=table.title, title_justify="left")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)


def main() -> None:
    """Measures, prints, writes bench/out/numbers.json, and bench/results.md where asked."""
    from rich.console import Console

    given = options()
    given.work = given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    progress, console = Console(stderr=True), Console(width=None if sys.stdout.isatty() else 150)

    def tell(text: str) -> None:
        progress.print(text, highlight=False)

    if given.against is not None:
        for compared in measure_against(given, tell):
            show(console, compared)
        return
    everything: list[Series] = []
    for series in measure_all(given, tell):
        everything.append(series)
        show(console, cost_table(series))
        (given.work / "numbers.json").write_text(json.dumps(as_json(everything), indent=1))
    growths = list(measure_growth(given, tell))
    checks = [] if given.only else weight_checks(given)
    ratios = [wanted_table(everything), growth_table(growths), weight_table(checks), import_table(given.work)]
    ratios.append(other_table(everything))
    for table in ratios:
        if table.rows:
            show(console, table)
    if given.write:
        (HERE / "results.md").write_text(
            f"{FOREWORD}\n{markdown([*(table for table in ratios if table.rows), versions()])}"
        )


FOREWORD = """# Measured ratios

Written by `make bench` with `--write`. Every ratio is taken between two runs of the same round on the same machine and
the same graph; medians, with the smallest and the largest round in brackets. What is bound, is bound at 126 layers of
the style `constants`.
"""

if __name__ == "__main__":
    main()
