"""``onnx-passes diff`` says what differs between two models, by what they mean and not by their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import render
from .options import Debug, FollowLinks, Json

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..ir.program.program import Program

SECTIONS = ("inputs", "outputs", "states", "symbols", "operators", "nodes", "functions", "opsets")
MOST_SHOWN = 8  # nodes listed by name; --json has them all


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A model or a saved folder.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.", show_default=False)],
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Show how two models differ: inputs and outputs, states, symbols, operator counts, nodes."""
    data = compare_paths(a, b, follow_links=follow_links)
    render.show_json(data) if as_json else _show(data)


def compare_paths(a: Path, b: Path, *, follow_links: bool = False) -> dict[str, Any]:
    """Loads both and compares graph by graph; a single graph on either side is compared whatever it is called."""
    from ..ir.core.gc_off import collector_off
    from ..ir.program.program import Program

    with collector_off():
        left, right = (_facts(Program.load(path, follow_links=follow_links)) for path in (a, b))
    pairs, only_a, only_b = _pair(left, right)
    graphs = {name: compare(left[in_a], right[in_b]) for name, (in_a, in_b) in pairs.items()}
    same = (
        not only_a and not only_b and not any(any(section.values()) for g in graphs.values() for section in g.values())
    )
    return {"a": a.as_posix(), "b": b.as_posix(), "same": same, "only_a": only_a, "only_b": only_b, "graphs": graphs}


def compare(left: Mapping[str, Mapping[str, Any]], right: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Per section what only one side has (``removed``, ``added``) and what is otherwise there (``changed``)."""
    return {section: _compare_section(left[section], right[section]) for section in SECTIONS}


def _compare_section(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "removed": {name: left[name] for name in left if name not in right},
        "added": {name: right[name] for name in right if name not in left},
        "changed": {name: [left[name], right[name]] for name in left if name in right and left[name] != right[name]},
    }


def _facts(program: Program) -> dict[str, dict[str, dict[str, Any]]]:
    from .describe import describe_graph

    return {name: _sections(describe_graph(model, {}), model) for name, model in program.graphs.items()}


def _sections(graph: dict[str, Any], model: ir.Model) -> dict[str, dict[str, Any]]:
    """A described graph as name -> text (or count) for each section."""
    return {
        "inputs": {value["name"]: f"{render.shape(value)}, {value['role']}" for value in graph["inputs"]},
        "outputs": {value["name"]: render.shape(value) for value in graph["outputs"]},
        "states": {state["name"]: f"{state['layout']}, {render.shape(state)}" for state in graph["states"]},
        "symbols": {symbol["name"]: "" for symbol in graph["symbols"]},
        "operators": graph["operators"],
        "nodes": {node.name or ", ".join(str(v.name) for v in node.outputs): node.op_type for node in model.graph},
        "functions": {f"{f['domain']}::{f['name']}": f["nodes"] for f in graph["functions"]},
        "opsets": {domain or "ai.onnx": version for domain, version in graph["opsets"].items()},
    }


def _pair(left: Iterable[str], right: Iterable[str]) -> tuple[dict[str, tuple[str, str]], list[str], list[str]]:
    names_a, names_b = list(left), list(right)
    if len(names_a) == len(names_b) == 1:
        return {names_a[0]: (names_a[0], names_b[0])}, [], []
    both = {name: (name, name) for name in names_a if name in names_b}
    return both, [n for n in names_a if n not in both], [n for n in names_b if n not in both]


def _show(data: dict[str, Any]) -> None:
    if data["same"]:
        render.show("no difference")
        return
    for side, names in (("-", data["only_a"]), ("+", data["only_b"])):
        for name in names:
            render.show(f"{side} graph {name}")
    for name, sections in data["graphs"].items():
        if any(any(section.values()) for section in sections.values()):
            render.show(f"graph {name}")
            _show_sections(sections)


def _show_sections(sections: dict[str, Any]) -> None:
    for title, section in sections.items():
        if not any(section.values()):
            continue
        limit = MOST_SHOWN if title == "nodes" else None
        counts = ", ".join(f"{len(entries)} {what}" for what, entries in section.items() if entries)
        render.show(f"  {title}: {counts}")
        _show_entries("-", [f"{name}  {what}".rstrip() for name, what in section["removed"].items()], limit)
        _show_entries("+", [f"{name}  {what}".rstrip() for name, what in section["added"].items()], limit)
        _show_entries("~", [f"{name}  {was} -> {now}" for name, (was, now) in section["changed"].items()], limit)


def _show_entries(mark: str, entries: list[str], limit: int | None) -> None:
    for entry in entries[:limit]:
        render.show(f"    {mark} {entry}")
    if limit is not None and len(entries) > limit:
        render.show(f"    {mark} and {len(entries) - limit} more")
