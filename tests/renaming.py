"""Replaces every tensor, node, input and output name of a graph by a random one."""

from __future__ import annotations

import random

import onnx_ir as ir

from onnx_llm_passes.ir.core.scopes import scopes


def rename_everything(model: ir.Model, rng: random.Random) -> dict[str, str]:
    """Renames in place, functions and symbols aside; returns old → new."""
    names: dict[str, str] = {}

    def fresh(old: str | None) -> str | None:
        if not old:
            return old
        return names.setdefault(old, f"t{rng.getrandbits(60):x}")

    for scope in scopes(model):
        values = [*scope.inputs, *(value for node in scope for value in node.outputs)]
        if isinstance(scope, ir.Graph):
            values += list(scope.initializers.values())
        for value in dict.fromkeys(values):
            value.name = fresh(value.name)
            if value.const_value is not None and value.const_value.name is not None and value.is_initializer():
                value.const_value.name = value.name
        for node in scope:
            node.name = fresh(node.name)
    return names
