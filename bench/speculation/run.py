"""What speculation gains for each text, proposer, policy and batch, and what was published."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_llm_passes.runtime.speculate.policies import Policy
from onnx_llm_passes.runtime.speculate.proposers import NGram, Shared, Source, Suffix
from onnx_llm_passes.runtime.speculate.traces import record
from onnx_llm_passes.runtime.suggest.suggest import demand_of, suggest

from .corpus import CORPORA, Sample, Tokenizer
from .model import QUICK, SIZES, costs
from .replay import Outcome, Way, replay
from .report import checks, picture, write_tables

HERE = Path(__file__).parent
K = 4
TOP = 8  # the largest K that a suggested set may have
BUDGET = 3
WAYS = (
    Way("nospec", (0,)),
    Way("fixed {4}", (K,)),
    Way("cover {0,4}", (0, K)),
    Way("cover {0..4}", tuple(range(K + 1))),
    Way("goodput {0,4}", (0, K), Policy.GOODPUT),
    Way("goodput {0..4}", tuple(range(K + 1)), Policy.GOODPUT),
)


def proposers() -> dict[str, Source]:
    """Fresh proposers: nothing is remembered from one cell of the table to the next."""
    shared = Shared()
    return {
        "ngram [1-3]": lambda: NGram(1, 3),
        "ngram [3-5]": lambda: NGram(3, 5),
        "suffix": lambda: Suffix(shared),
    }


@dataclass(frozen=True)
class Cell:
    """One cell of the table."""

    corpus: str
    proposer: str
    batch: int
    way: str
    ks: tuple[int, ...]
    outcome: Outcome
    gain: float


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.speculation", description=(__doc__ or "").strip("`"))
    parser.add_argument("--samples", type=int, default=80, help="texts of each corpus")
    parser.add_argument("--batches", default="1,2,4,8", help="rows that run at once, comma-separated")
    parser.add_argument("--quick", action="store_true", help="a small model and 16 texts: shows that it runs")
    parser.add_argument("--costs", type=Path, help="use these costs (JSON: batch -> K -> ms), measure none")
    parser.add_argument("--write", action="store_true", help="write results.md and results.png beside this file")
    parser.add_argument(
        "--work", type=Path, default=HERE.parent / "out" / "speculation", help="where graphs and numbers go"
    )
    given = parser.parse_args()
    if given.quick:
        given.samples = 16
    return given


def all_costs(given: argparse.Namespace) -> dict[int, dict[int, float]]:
    """Seconds of a run by batch and K: measured, or read."""
    if given.costs is not None:
        read = json.loads(given.costs.read_text())
        return {int(b): {int(k): ms / 1e3 for k, ms in row.items()} for b, row in read.items()}
    found: dict[int, dict[int, float]] = {}
    for batch in map(int, given.batches.split(",")):
        found[batch] = costs(given.work, batch, range(TOP + 1), QUICK if given.quick else SIZES)
        print(f"batch {batch}: " + ", ".join(f"K{k} {1e3 * s:.1f} ms" for k, s in found[batch].items()), flush=True)
    table = {b: {k: 1e3 * s for k, s in row.items()} for b, row in found.items()}
    (given.work / "costs.json").write_text(json.dumps(table, indent=2) + "\n")
    return found


def cells(corpus: str, samples: list[Sample], table: Mapping[int, Mapping[int, float]]) -> Iterator[Cell]:
    """Every way, proposer and batch on one corpus."""
    for batch, cost in table.items():
        for name in proposers():
            ways = [*WAYS, suggested(name, samples, cost, batch)]
            plain = 0.0
            for way in ways:
                outcome = replay(samples, proposers()[name], way, cost, batch, max(way.ks))
                plain = plain or outcome.rate
                yield Cell(corpus, name, batch, way.name, way.ks, outcome, outcome.rate / plain - 1)


def suggested(name: str, samples: list[Sample], cost: Mapping[int, float], batch: int) -> Way:
    """The set that suggest-k gives for the first half of the texts."""
    half = samples[: max(1, len(samples) // 2)]
    trace = record([(s.tokens, len(s.prompt)) for s in half], proposers()[name], TOP, batch)
    best = suggest(demand_of(trace, TOP), cost, BUDGET, Policy.GOODPUT)[-1]
    return Way("goodput, suggested", best.ks, Policy.GOODPUT)


def main() -> None:
    """Measures, replays, prints, writes numbers.json, and the table and the picture where asked."""
    given = options()
    given.work.mkdir(parents=True, exist_ok=True)
    table = all_costs(given)
    tokenizer = Tokenizer()
    found: list[Cell] = []
    for corpus, read in CORPORA.items():
        samples = list(read(tokenizer, given.samples))
        print(f"{corpus}: {len(samples)} texts, {sum(len(s.rest) for s in samples)} tokens", flush=True)
        found += cells(corpus, samples, table)
    (given.work / "numbers.json").write_text(json.dumps([_plain(cell) for cell in found], indent=1) + "\n")
    text = write_tables(found, table, given.samples)
    print(text)
    if given.write:
        (HERE / "results.md").write_text(text)
        picture(found, HERE / "results.png")
    failed = [line for line, holds in checks(found, table) if not holds]
    print("\n".join(failed) if failed else "every check holds")


def _plain(cell: Cell) -> dict[str, Any]:
    outcome = {**vars(cell.outcome), "chosen": dict(cell.outcome.chosen), "rate": cell.outcome.rate}
    return {**vars(cell), "outcome": outcome}
