"""The pass that added a node or changed it is named in the node's metadata, under one key."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

OWNER = "pass"  # written to the file as NodeProto.metadata_props, which ONNX has since IR version 10 (onnx 1.16)


def mark(item: ir.Node | ir.Value, owner: str) -> None:
    """Names ``owner`` as the pass that made or changed ``item``."""
    item.metadata_props[OWNER] = owner


def mark_unclaimed(nodes: Iterable[ir.Node], owner: str) -> None:
    """Names ``owner`` on those of ``nodes`` that name no pass yet: what a foreign pass or an inlining brought."""
    for node in nodes:
        node.metadata_props.setdefault(OWNER, owner)


def owner_of(item: ir.Node | ir.Value) -> str | None:
    """The pass that made or last changed ``item``; None where the exporter's own."""
    return item.metadata_props.get(OWNER)
