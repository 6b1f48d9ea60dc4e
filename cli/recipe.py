"""``onnx-passes recipe`` shows the recipes for quantization that there are, and what one does to a model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import render
from .options import Debug, FollowLinks, Json

if TYPE_CHECKING:
    from ..ir.program.program import Program


def recipe(
    name: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A shipped recipe, or a file of rules.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL_OR_DIR", help="Show what its rules take here.", show_default=False)
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes.")] = False,
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """List the shipped recipes, print one, or show which tensors of a model its rules take; nothing is written."""
    from ..ir.quantization.recipe import load_recipe, recipe_schema
    from ..ir.quantization.recipes import RECIPES

    if schema:
        typer.echo(recipe_schema(), nl=False)
        return
    if name is None:
        rows = [(name, load_recipe(name).about or "") for name in RECIPES]
        if as_json:
            render.show_json({"recipes": [{"name": name, "about": about} for name, about in rows]})
            return
        render.table(("recipe", "what for"), rows)
        return
    found = load_recipe(name)
    if model is None:
        if as_json:
            render.show_json(found.model_dump(exclude_none=True))
        else:
            typer.echo(RECIPES[name] if name in RECIPES else Path(name).read_text(encoding="utf-8"), nl=False)
        return
    from ..ir.program.program import Program

    facts = _taken(Program.load(model, follow_links=follow_links), name)
    if as_json:
        render.show_json(facts)
        return
    render.table(("layer", "role", "weights"), [(row["layer"], row["role"], row["bits"]) for row in facts["weights"]])
    for note in facts["rules"]:
        render.show(note)


def _taken(program: Program, name: str) -> dict[str, Any]:
    """What each rule takes of the graphs, and the bits of weights by layer and role."""
    from ..ir.quantization.choose import activations_of, weights_of
    from ..ir.quantization.decide import Decider, Taken
    from ..ir.quantization.recipe import load_recipe
    from ..ir.quantization.variants import Rules
    from ..ir.states import find_states

    taken, rules = Taken(load_recipe(name), name), Rules()
    rows: dict[tuple[str, str], Counter[str]] = {}
    for model in program.graphs.values():
        decider = Decider.of(model, taken)
        decider.activations(activations_of(model, find_states(model), rules))
        for group in decider.groups:
            decider.group(group)
        chosen = decider.weights(weights_of(model, rules))
        for value, place in decider.places.weights.items():
            layer = "" if place.layer is None else str(place.layer)
            role = " ".join(sorted(part.value for part in place.parts)) or "other"
            bits = str(chosen[value][1].bits) if value in chosen else "float"
            rows.setdefault((layer, role), Counter())[bits] += 1
    kinds = ("weights", "activations", "caches")
    weights = [
        {"layer": layer, "role": role, "bits": ", ".join(f"{number} at {bits}" for bits, number in counted.items())}
        for (layer, role), counted in rows.items()
    ]
    return {"recipe": name, "rules": list(taken.notes(kinds)), "weights": weights}
