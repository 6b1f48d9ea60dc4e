"""Hosts of one program get their sessions: those whose graph is one, at several sizes, share one and its weights."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.program.unrolled import Unrolled
from ..session.session import Optimization
from .host import Host


def open_each(hosts: Sequence[Host], each: Unrolled, optimization: Optimization | None) -> None:
    """Opens the hosts of an unrolled program; raises what a session raises."""
    opened: dict[str, Host] = {}
    for host in hosts:
        base = each.shared.get(host.name)
        first = opened.get(base or "")
        if first is not None:
            host.opened = first.opened
            continue
        host.open(each.program.graphs[base] if base is not None else None, optimization)
        if base is not None:
            opened[base] = host
