"""``onnx-passes diff`` says what differs between two models, by what they mean and not by their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import render
from .options import Debug, FollowLinks, Json

MOST_SHOWN = 8  # nodes listed by name; --json has them all


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A model or a saved folder.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.", show_default=False)],
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Show how two models differ: inputs and outputs, states, symbols, operator counts, nodes."""
    from ..api.diff import diff as compare

    data = compare(a, b, follow_links=follow_links).to_dict()
    render.show_json(data) if as_json else _show(data)


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
