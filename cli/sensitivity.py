"""``onnx-passes sensitivity`` and ``suggest-bits`` tell what few bits cost where, and which assignment loses least."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import InputError, WriteError
from . import render
from .options import Debug, FollowLinks, Json, ModelPath

if TYPE_CHECKING:
    from ..runtime.compare.sensitivity import Loss

OUT = Path("sensitivity.json")
FIELDS = {"layer", "role", "bits", "weights", "sqnr", "kl"}


def sensitivity(
    model: ModelPath,
    tokens: Annotated[
        Path, typer.Option(metavar="F", help="Token ids (.npz, .npy, .jsonl), or text.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The file to write.")] = OUT,
    rows: Annotated[
        int | None, typer.Option(metavar="N", min=8, help="Tokens that are run; else a cheap number.")
    ] = None,
    block: Annotated[int, typer.Option(metavar="N", min=0, help="Inputs that share a scale; 0: a whole channel.")] = 0,
    samples: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many texts.")] = None,
    graph: Annotated[str | None, typer.Option(metavar="NAME", help="The graph to run; the prefill of several.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(metavar="F", help="The tokenizer.json of a text.")] = None,
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Measure what the weights of each layer and role lose alone at 8 and 4 bits, at the logits, in one pass."""
    from ..ir.program.program import Program
    from ..runtime.calibrate.tokens import read_tokens
    from ..runtime.compare.sensitivity import sensitivity as measure

    program = Program.load(model, follow_links=follow_links)
    found = measure(
        program, read_tokens(tokens, limit=samples, tokenizer=tokenizer), rows=rows, graph=graph, block=block
    )
    facts = {"block": block, **found.to_dict()}
    try:
        out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot be written: {error.strerror}", where=str(out)) from error
    if as_json:
        render.show_json(facts)
        return
    by_place: dict[tuple[str, str], dict[int, Loss]] = {}
    for loss in found.losses:
        by_place.setdefault(("" if loss.layer is None else str(loss.layer), loss.role), {})[loss.bits] = loss
    rows_shown = [
        (layer, role, *(f"{getattr(losses[bits], key):.3g}" for bits in (8, 4) for key in ("sqnr", "kl")))
        for (layer, role), losses in by_place.items()
    ]
    render.table(("layer", "role", "dB at 8", "KL at 8", "dB at 4", "KL at 4"), rows_shown)
    render.show(f"{found.tokens} tokens of {render.count(found.texts, 'text')} -> {out}")


def suggest_bits(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sensitivity` wrote.", show_default=False)],
    budget: Annotated[float, typer.Option(metavar="BITS", min=1, max=16, help="Bits a weight, on average.")] = 4.5,
    apply: Annotated[bool, typer.Option("--apply", help="Print the recipe of the best assignment.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Choose 4 or 8 bits for each layer and role, so that the sum of what they lose alone is least under a budget."""
    from ..runtime.compare.bits import assignment, greedy, items_of, least_loss, recipe_of

    losses, block = _read(file)
    items = items_of(losses)
    best, other = least_loss(items, budget), greedy(items, budget)
    if apply:
        typer.echo(recipe_of(items, best, block=block), nl=False)
        return
    widths = sorted({bits for item in items for bits in item.losses})
    uniform = {bits: assignment(items, [bits] * len(items)) for bits in widths}
    named = {"least": best, "greedy": other, **{f"all {bits}": found for bits, found in uniform.items()}}
    if as_json:
        render.show_json({name: {"loss": found.loss, "average": found.average} for name, found in named.items()})
        return
    shown = [(name, f"{found.average:.3f}", f"{found.loss:.4g}") for name, found in named.items()]
    render.table(("assignment", "bits a weight", "KL added up"), shown)
    wide = [
        f"{i.role}{'' if i.layer is None else ' ' + str(i.layer)}"
        for i, b in zip(items, best.bits, strict=True)
        if b > min(best.bits)
    ]
    render.show(f"{max(best.bits)} bits: {', '.join(wide) or 'none'}")


def _read(file: Path) -> tuple[list[Loss], int]:
    from ..ir.serialization.strict import StrictReader
    from ..runtime.compare.sensitivity import Loss

    reader = StrictReader("what `sensitivity` wrote", InputError)
    document: Any = reader.load_json(reader.read_text(file), where=str(file))
    entries = document.get("losses") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and set(e) == FIELDS for e in entries):
        raise InputError("holds no losses", where=str(file), wanted="a file that `onnx-passes sensitivity` wrote")
    try:
        losses = [
            Loss(e["layer"], str(e["role"]), int(e["bits"]), int(e["weights"]), float(e["sqnr"]), float(e["kl"]))
            for e in entries
        ]
        return losses, int(document.get("block", 0))
    except (TypeError, ValueError):
        raise InputError("holds a loss that is no number", where=str(file)) from None
