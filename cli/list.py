"""``onnx-passes list`` shows what passes and presets there are, and what one of them does and takes."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import UnknownNameError
from . import render
from .options import Debug, Json

if TYPE_CHECKING:
    from ..passes.presets import Preset

ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)  # one entry of a docstring's "Attributes:"


def list_passes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One pass or preset, to show all of it.", show_default=False)
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List passes and presets, or show one with its options."""
    if name is None:
        data = describe_all()
        render.show_json(data) if as_json else _show_all(data)
        return
    one = describe_one(name)
    render.show_json(one) if as_json else _show_one(one)


def describe_all() -> dict[str, Any]:
    """Every pass and preset with one sentence each; imports none of the passes."""
    from ..passes.presets import PRESETS
    from ..passes.registry import list_passes as listed

    return {
        "passes": [
            {"name": row.name, "summary": row.caption.replace("``", "`"), "origin": row.origin} for row in listed()
        ],
        "presets": [
            {"name": name, "summary": preset.caption, "pipeline": preset.template} for name, preset in PRESETS.items()
        ],
    }


def describe_one(name: str) -> dict[str, Any]:
    """One pass with its docstring and options, or one preset expanded; raises UnknownNameError."""
    from ..passes.presets import PRESETS
    from ..passes.registry import pass_names

    if name in PRESETS:
        return _preset(name)
    if name not in pass_names():
        raise UnknownNameError("pass", name, [*pass_names(), *PRESETS], hint="`onnx-passes list` shows them all.")
    return _pass(name)


def _pass(name: str) -> dict[str, Any]:
    from ..passes.options import options_of
    from ..passes.registry import get_pass, origin_of

    cls = get_pass(name)
    doc, _, attributes = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")
    said = {match[1].rstrip("_"): " ".join(match[2].split()) for match in ATTRIBUTE.finditer(attributes)}
    return {
        "kind": "pass",
        "name": name,
        "origin": origin_of(name),
        "doc": doc.rstrip().replace("``", "`"),
        "options": [
            {
                "name": option.name,
                "takes": option.wanted,
                "default": option.default,
                "doc": said.get(option.name, "").replace("``", "`"),
            }
            for option in options_of(cls)
        ],
    }


def _preset(name: str) -> dict[str, Any]:
    from ..passes.pipeline import expand_pipeline
    from ..passes.presets import PRESETS

    preset = PRESETS[name]
    return {
        "kind": "preset",
        "name": name,
        "doc": preset.caption,
        "template": preset.template,
        "pipeline": expand_pipeline(name),
        "options": _parameters(preset),
    }


def _parameters(preset: Preset) -> list[dict[str, Any]]:
    """A preset's parameters, each explained by the option of the pass, or of the inner preset, that it fills."""
    from ..passes.presets import PRESETS
    from ..passes.syntax import parse_specs

    filled = {
        value[0][0].text.removeprefix("$"): (spec.name, option)
        for spec in parse_specs(preset.template)
        for option, value in spec.options
        if value and value[0][0].text.startswith("$")
    }
    rows: list[dict[str, Any]] = []
    for parameter, default in preset.defaults(preset.parameters.get("target")).items():
        name, option = filled[parameter]
        inner = _preset(name) if name in PRESETS else _pass(name)
        row = next(row for row in inner["options"] if row["name"] == option)
        rows.append({**row, "name": parameter, "default": row["default"] if default is None else default})
    return rows


def _show_all(data: dict[str, Any]) -> None:
    own = [row for row in data["passes"] if row["origin"] != "onnx-ir"]
    wrapped = [row for row in data["passes"] if row["origin"] == "onnx-ir"]
    for title, rows in (("Presets", data["presets"]), ("Passes", own), ("Passes of onnx_ir", wrapped)):
        render.heading(title) if title != "Presets" else render.show(title)
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            render.show(f"  {row['name']:<{width}}  {row['summary']}".rstrip())
    render.show()
    render.show("`onnx-passes list NAME` shows one with its options.")


def _show_one(data: dict[str, Any]) -> None:
    render.show(f"{data['name']} ({data['kind']})")
    render.show()
    render.show(data["doc"])
    if data["kind"] == "preset":
        render.heading("Expands to")
        render.show(f"  {data['pipeline']}")
        render.show(f"  with its parameters: {data['template']}")
    if not data["options"]:
        return
    render.heading("Options")
    for option in data["options"]:
        default = "must be given" if option["default"] is None else f"default {option['default'] or 'empty'}"
        render.show(f"  {option['name']}  {option['takes']}  ({default})")
        if option["doc"]:
            render.show(f"      {option['doc']}")
