"""A fresh name is one that no value of a scope, or of a body inside it, has."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..core.scopes import Scope, nested


def names_in(scope: Scope) -> Iterator[str]:
    """The names of a scope's own inputs, initializers and node outputs, those of its bodies not counted."""
    yield from (value.name for value in scope.inputs if value.name)
    if isinstance(scope, ir.Graph):
        yield from scope.initializers
    for node in scope:
        yield from (value.name for value in node.outputs if value.name)


class FreshNames:
    """Gives names that are free in ``scope``; the scope is read when the first name is asked for.

    Names inside bodies count as taken: ONNX lets a body neither redefine nor shadow a name of the graph around it
    (IR.md, "Names Within a Graph").
    """

    def __init__(self, scope: Scope) -> None:
        """For the main graph, or a function."""
        self._scope = scope
        self._taken: set[str] | None = None

    def take(self, wish: str) -> str:
        """``wish``, or ``wish_2``, ``wish_3`` … where it is taken; taken from now on."""
        if self._taken is None:
            self._taken = {name for scope in nested(self._scope) for name in names_in(scope)}
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name
