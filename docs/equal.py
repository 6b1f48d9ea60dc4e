"""Writes what `verify` ran and cannot see: sizes from the tables it plays by, a sentence each from the contracts."""

from __future__ import annotations

from collections.abc import Iterable

from onnx_llm_passes.ir.program.contracts.registry import BUILT_IN
from onnx_llm_passes.runtime.decode import cases
from onnx_llm_passes.runtime.verify import closeness, converted, layer_check, replay


def played() -> str:
    """What is run, at which sizes and paddings: a table."""
    lengths, batches = (_listed(map(str, sizes)) for sizes in (cases.LENGTHS, cases.BATCHES))
    ordered, anywhere = (_listed(padding.value for padding in paddings) for paddings in (cases.ORDERED, _further()))
    tokens = sum(count for count in converted.UNEVEN if count > 0)
    back = [-count for count in converted.UNEVEN if count < 0]
    rows = {
        "a graph, or one without its states": (
            f"batches {batches}; lengths {lengths} where the graph leaves them open, else its own",
            f"{ordered}; {anywhere} where the contracts allow it",
        ),
        "clones": (
            f"one text of up to {replay.TEXT} tokens behind a prompt; about {replay.REMAINDERS} further prompt lengths",
            f"proposals (made, right) of K=4, in turn: {_listed(_proposals(4))}",
        ),
        "states in another layout": (
            f"batches {_listed(map(str, converted.BATCHES))}; caches of {converted.CTX} rows where open",
            f"{len(converted.UNEVEN)} chunks, {tokens} tokens; {_listed(map(str, back))} rows taken back, and fed anew",
        ),
        "a layer cut out": (f"{layer_check.RUNS} runs of the whole original", "what it computes on its way is fed"),
    }
    head = ["| what | sizes | rows |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items()), "", *_close()])


def _further() -> tuple[cases.Padding, ...]:
    return tuple(padding for padding in cases.ANYWHERE if padding not in cases.ORDERED)


def _proposals(k: int) -> list[str]:
    return [str(replay.proposals(k, step)) for step in range(6)]


def _close() -> list[str]:
    """How far equal may be from bit-equal."""
    return [
        f"Outputs are equal bit for bit, but for: {closeness.OTHER_SUMS:g} of the largest value where another number",
        f"of tokens a run or another cache length sums in another order; {closeness.ROUNDED:g} where the graph itself",
        "rounds activations to 8 bits; what a contract below states.",
        "",
    ]


def contracts() -> str:
    """A row for each kind of contract: what is compared under it, and what that cannot see."""
    rows = [
        f"| `{cls.kind}` | {_said(cls.__doc__)} | {cls.compared} | {cls.unseen} |"
        for cls in sorted(BUILT_IN, key=lambda cls: cls.kind)
    ]
    return "\n".join(["| contract | says | what is compared | what it cannot see |", "|---|---|---|---|", *rows, ""])


def _said(doc: str | None) -> str:
    return (doc or "").split("\n")[0].replace("``", "`").rstrip(".")


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items)
