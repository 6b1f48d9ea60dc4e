"""``onnx-passes inspect`` shows what a model's inputs are for, which states it carries, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from . import render
from .options import Debug, FollowLinks, Json, ModelPath, parse_binding

TOP_OPERATORS = 12


def inspect(
    model: ModelPath,
    bind: Annotated[
        list[str] | None, typer.Option(metavar="SYMBOL=N", help="Size states at this length; may be repeated.")
    ] = None,
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Show inputs with roles, states with layouts, symbols, sizes, opsets and functions."""
    binding = parse_binding(bind or [])
    from ..api.inspect import inspect as look

    data = look(model, bind=binding, follow_links=follow_links).to_dict()
    render.show_json(data) if as_json else show(data)


def show(data: dict[str, Any]) -> None:
    """Prints what was found for people."""
    render.show(data["source"])
    for pipeline in filter(None, data["made_by"]):
        render.show(f"made by: {pipeline}")
    for assumption in data["assumptions"]:
        render.show(f"assumes: {assumption}")
    for name, graph in data["graphs"].items():
        render.heading(f"Graph {name}")
        _show_facts(graph)
        _show_values(graph)
        _show_states(graph, data["binding"])
        _show_symbols(graph["symbols"])


def _show_facts(graph: dict[str, Any]) -> None:
    nodes, weights = graph["nodes"], graph["weights"]
    inner = "".join(f", and {nodes[key]} in {key}" for key in ("subgraphs", "functions") if nodes[key])
    render.show(f"nodes      {nodes['main']}{inner}")
    render.show(f"operators  {_most_used(graph['operators'])}")
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in graph["opsets"].items())
    render.show(f"opsets     {opsets}; IR version {graph['ir_version']}")
    if graph["functions"]:
        names = (f"{function['name']} ({function['domain']})" for function in graph["functions"])
        render.show(f"functions  {', '.join(names)}")
    place = f", {render.size(weights['external_bytes'])} of it beside the model" if weights["external_bytes"] else ""
    render.show(f"weights    {render.size(weights['bytes'])} in {render.count(weights['count'], 'tensor')}{place}")


def _most_used(operators: Mapping[str, int]) -> str:
    ranked = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name} {number}" for name, number in ranked[:TOP_OPERATORS])
    rest = len(ranked) - TOP_OPERATORS
    return f"{text}, and {rest} more kinds" if rest > 0 else text


def _show_values(graph: dict[str, Any]) -> None:
    carried = {state[side] for state in graph["states"] for side in ("input", "output")}
    for title, values in (("input", graph["inputs"]), ("output", graph["outputs"])):
        render.show()
        rows = [(v["name"], render.shape(v), v.get("role", "")) for v in values if v["name"] not in carried]
        role = ("role",) if title == "input" else ()
        render.table((title, "type", *role), (row[: 2 + len(role)] for row in rows))
        hidden = len(values) - len(rows)
        if hidden:
            render.show(f"and {render.count(hidden, f'{title}')} of states, below")
    if graph["optional"]:
        render.show()
        rows = [(v["name"], render.shape(v), "has a default") for v in graph["optional"]]
        render.table(("optional input", "type", ""), rows)


def _show_states(graph: dict[str, Any], binding: Mapping[str, int]) -> None:
    render.show()
    states = graph["states"]
    for pair in graph["unpaired"]:
        render.show(f"! {pair['input']} -> {pair['output']}: unpaired; of one type, the second computed from the first")
    if not states and graph["unpaired"]:
        return
    if not states:
        render.show("no states: nothing is carried from one run to the next")
        return
    columns = ("states", "", "kind", "layers", "layout", "axis", "type", "bytes", "output")
    render.table(columns, map(_group_row, _grouped(states)), right=("", "axis", "bytes"))
    for state in states:
        if state["pairing"] != "both":
            render.show(f"! {state['name']}: {state['pairing']}; {state['evidence']}")
    total, number = graph["state_bytes"], render.count(len(states), "state")
    still_open = sorted({symbol for state in states for symbol in state["symbols"]} - binding.keys())
    wanted = " ".join(f"--bind {symbol}=N" for symbol in still_open)
    render.show(f"{number}, {render.size(total)}" if total is not None else f"{number}; for their size: {wanted}")


def _grouped(states: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """States that differ only in their layer, together."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for state in states:
        key = (state["kind"], state["layout"], state["axis"], state["pairing"], render.shape(state))
        groups.setdefault(key, []).append(state)
    return list(groups.values())


def _group_row(group: list[dict[str, Any]]) -> tuple[Any, ...]:
    first, sizes = group[0], [state["bytes"] for state in group]
    total = None if None in sizes else sum(sizes)
    layers = [state["layer"] for state in group]
    return (
        _span([state["name"] for state in group], layers),
        len(group),
        first["kind"],
        _ranges(layer for layer in layers if layer is not None),
        first["layout"],
        first["axis"],
        render.shape(first),
        render.size(total),
        _span([state["output"] or "-" for state in group], layers),
    )


def _span(names: list[str], layers: list[int | None]) -> str:
    """``past.*.key`` where the names differ only in their layer, else the first and the last."""
    alike = {starred(name, layer) for name, layer in zip(names, layers, strict=True)}
    if len(names) == 1:
        return names[0]
    return alike.pop() if len(alike) == 1 else f"{names[0]} … {names[-1]}"


def starred(name: str, layer: int | None) -> str:
    """``past.*.key`` for ``past.3.key`` of layer 3."""
    return name if layer is None else re.sub(rf"(?<!\d){layer}(?!\d)", "*", name, count=1)


def _ranges(numbers: Iterable[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _show_symbols(symbols: list[dict[str, Any]]) -> None:
    if not symbols:
        return
    render.show()
    render.table(
        ("symbol", "bound to", "used by"),
        ((symbol["name"], symbol["value"], render.few(symbol["used_by"])) for symbol in symbols),
    )
