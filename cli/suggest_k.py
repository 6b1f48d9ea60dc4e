"""``onnx-passes suggest-k`` chooses speculative lengths to compile, from measured costs and recorded proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import UsageError
from . import render
from .ending import guarded
from .generate import NGrams, PolicyName, ProposerName, load, open_decoder, policy_of, proposers_of, tell_saturation
from .options import Debug, FollowLinks, Json, OrtOptimization

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from ..runtime.decode.decoder import Decoder
    from ..runtime.speculate.proposers import Source
    from ..runtime.speculate.traces import Trace

SHOWN = 5  # neighbours of a set


def suggest_k(
    program: Annotated[Path, typer.Option(metavar="DIR", help="A program, or an .onnx file.", show_default=False)],
    trace: Annotated[
        Path, typer.Option(metavar="T.jsonl", help="What was proposed and accepted; recorded with --prompt-ids.")
    ],
    budget: Annotated[int, typer.Option(metavar="M", min=1, max=16, help="How many K may be compiled.")],
    policy: PolicyName = "goodput",
    max_k: Annotated[int, typer.Option(metavar="N", min=0, max=16, help="The largest K.")] = 8,
    prompt_ids: Annotated[
        Path | None, typer.Option(metavar="F", help="Generate from these prompts and record T.jsonl.")
    ] = None,
    max_new: Annotated[int, typer.Option(metavar="N", min=1, help="New tokens of a recorded text.")] = 128,
    proposer: ProposerName = "ngram",
    ngram: NGrams = "3,5",
    batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Texts at once.")] = None,
    ctx: Annotated[int, typer.Option(metavar="N", min=8, help="Context, where the program leaves it open.")] = 512,
    apply: Annotated[bool, typer.Option("--apply", help="Print the pipeline that compiles the best set.")] = False,
    ort_optimization: OrtOptimization = "none",
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Measure what each K costs, and print the best set for each budget with its gain and its neighbours'.

    Latencies are written into the program's manifest. A trace is one line of JSON a step: docs/traces.md.
    """
    from ..runtime.session.isolate import in_child

    def work() -> int:
        from ..runtime.session.session import optimized
        from ..runtime.session.settings import optimization_of

        with optimized(optimization_of(ort_optimization)):
            return measured()

    def measured() -> int:
        from ..runtime.session.settings import runtime_record
        from ..runtime.speculate.traces import write_trace

        source, chosen = proposers_of(proposer, ngram), policy_of(policy)
        loaded = load(program, follow_links)
        decoder = open_decoder(loaded, batch, ctx, _open_ks(loaded, max_k))
        try:
            recorded = _trace(trace, prompt_ids, decoder, (source, proposers_of(proposer, ngram)), (max_new, max_k))
            if prompt_ids is not None:
                recorded.proposer = proposer
                write_trace(recorded, trace)
            cost = _measured(program, decoder)
        finally:
            decoder.close()
        result = _suggested(recorded, cost, max_k, (budget, chosen))
        tell_saturation(loaded)
        result["runtime"] = runtime_record()
        result["pipeline"] = _pipeline(loaded, result["budgets"][-1]["ks"])
        _show(result, as_json, apply)
        return 0

    code = in_child(lambda: guarded(work, debug=lambda: debug), "measuring")
    if code:
        raise typer.Exit(code)


def _open_ks(program: Program, max_k: int) -> tuple[int, ...] | None:
    """Every K up to the largest where one graph takes any number of tokens; those compiled where not."""
    return None if len(program.names) > 1 or program.specializations else tuple(range(max_k + 1))


def _trace(
    path: Path, prompt_ids: Path | None, decoder: Decoder, proposers: tuple[Source, Source], limits: tuple[int, int]
) -> Trace:
    """The trace that was given, or a new one of texts that the program generates itself.

    The replay has proposers of its own: what those that generated have learned, they learned from these very texts.
    """
    from ..runtime.decode.generate import Settings, generate
    from ..runtime.decode.prompts import read_prompts
    from ..runtime.speculate.traces import read_trace, record

    if prompt_ids is None:
        return read_trace(path)
    (source, fresh), (max_new, max_k) = proposers, limits
    prompts = read_prompts(prompt_ids)
    found = generate(decoder, prompts, Settings(max_new), source)
    texts = [(prompt + tokens, len(prompt)) for prompt, tokens in zip(prompts, found.tokens, strict=True)]
    trace = record(texts, fresh, max_k, decoder.slots)
    if not trace.steps:
        raise UsageError(
            "the texts are too short for a trace", found=f"{max_new} new tokens", wanted="--max-new 2 or more"
        )
    return trace


def _measured(folder: Path, decoder: Decoder) -> dict[int, float]:
    """Seconds for each K of the program, written into its manifest where it has one."""
    from ..ir.serialization.index import INDEX_NAME
    from ..runtime.suggest.costs import measure, write_costs

    cost = measure(decoder)
    if (folder / INDEX_NAME).is_file() and not write_costs(folder, cost):
        render.tell_all("note", ["the program's manifest has no decode: the latencies are not written"])
    return cost


def _suggested(trace: Trace, cost: Mapping[int, float], max_k: int, asked: tuple[int, Any]) -> dict[str, Any]:
    """What --json prints."""
    from ..runtime.suggest.costs import fill_in
    from ..runtime.suggest.suggest import demand_of, neighbours, suggest, suggestions

    budget, policy = asked
    demand = demand_of(trace, max_k)
    costs, estimated = fill_in(cost, demand.top)
    found = suggest(demand, costs, budget, policy)
    rows = [
        {
            "budget": size,
            **best.to_dict(),
            "neighbours": [n.to_dict() for n in suggestions(neighbours(best.ks, demand.top), demand, costs, policy)],
        }
        for size, best in enumerate(found, start=1)
    ]
    steps = sum(demand.share)
    return {
        "policy": policy.value,
        "steps": int(steps),
        "proposer": trace.proposer,
        "proposed": {str(n): share / steps for n, share in enumerate(demand.share)},
        "latency_ms": {str(k): 1e3 * seconds for k, seconds in costs.items()},
        "estimated": list(estimated),
        "budgets": rows,
    }


def _pipeline(program: Program, ks: Sequence[int]) -> str:
    """The pipeline text that compiles this set, at the context and prefill that the program has."""
    from ..ir.core.specialization import SpecRole
    from ..runtime.session.subject import Subject

    options = [f"k={','.join(map(str, ks))}"]
    items = program.specializations
    prefill = next(
        (item.graph for item in items if item.role is SpecRole.PREFILL and item.graph in program.names), None
    )
    if prefill is not None:
        subject = Subject.of(program.graph(prefill), prefill)
        sizes = {"prefill": subject.fixed(1), "ctx": subject.capacity}
        options += [f"{name}={size}" for name, size in sizes.items() if size is not None]
    return f"speculative{{{' '.join(options)}}}"


def _show(result: dict[str, Any], as_json: bool, apply: bool) -> None:
    if as_json:
        render.show_json(result)
        return
    if apply:
        render.show(result["pipeline"])
        return
    latencies = ", ".join(
        f"{k}: {milliseconds:.2f}{' (estimated)' if int(k) in result['estimated'] else ''}"
        for k, milliseconds in result["latency_ms"].items()
    )
    render.show(f"ms of a run by K   {latencies}, optimization {result['runtime']['optimization']}")
    shares = ", ".join(f"{n}: {share:.0%}" for n, share in result["proposed"].items() if share)
    render.show(f"proposals a step   {shares} of {result['steps']} steps")
    render.show()
    columns = ("budget", "K", "tokens/s", "gain", "neighbours")
    render.table(columns, map(_row, result["budgets"]), right=("budget", "tokens/s", "gain"))


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    near = sorted(row["neighbours"], key=lambda other: -other["gain"])[:SHOWN]
    others = ", ".join(f"{{{_set(other)}}} {other['gain']:+.1%}" for other in near)
    return row["budget"], f"{{{_set(row)}}}", f"{row['tokens_per_second']:.1f}", f"{row['gain']:+.1%}", others


def _set(row: dict[str, Any]) -> str:
    return ",".join(map(str, row["ks"]))
