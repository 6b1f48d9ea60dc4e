"""The graphs of a program as a save writes them: whose nodes each has, and which sizes stand for their symbols."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from .program import Program


def written_graph(program: Program, name: str) -> tuple[ir.Model, Mapping[str, int]]:
    """The graph that has the nodes of the file ``name``.onnx, and the sizes that a clone's file has for its symbols."""
    clone = program.clones.get(name)
    if clone is not None:
        return program.graphs[clone.base], clone.binding
    return program.graphs[name], program.bound.get(name, {})
