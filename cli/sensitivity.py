"""``onnx-passes sensitivity`` and ``suggest-bits`` tell what few bits cost where, and which assignment loses least."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..ir.core.errors import WriteError
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
    facts = found.to_dict()
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
    from ..runtime.compare.bits import suggest_bits as suggest
    from ..runtime.compare.losses import read_sensitivity

    found = suggest(read_sensitivity(file), budget)
    if apply:
        typer.echo(found.recipe, nl=False)
        return
    if as_json:
        render.show_json(found.to_dict())
        return
    shown = [(name, f"{found.average:.3f}", f"{found.loss:.4g}") for name, found in found.named.items()]
    render.table(("assignment", "bits a weight", "KL added up"), shown)
    best = found.named["least"]
    wide = [
        f"{i.role}{'' if i.layer is None else ' ' + str(i.layer)}"
        for i, b in zip(found.items, best.bits, strict=True)
        if b > min(best.bits)
    ]
    render.show(f"{max(best.bits)} bits: {', '.join(wide) or 'none'}")
