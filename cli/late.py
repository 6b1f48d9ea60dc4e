"""Imports sympy when it is first used, not before: onnx_ir loads it for symbolic arithmetic that no command needs."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

LATE = frozenset(("sympy", "onnx_ir._symbolic_shapes"))  # two thirds of what importing onnx_ir costs


class _Late:
    """Finds the modules of ``LATE`` with a loader that runs them at the first attribute asked for."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, its loader made lazy; None for every other module."""
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name in LATE else None
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def install() -> None:
    """Makes the imports late for this process; only the command does so, never the library."""
    if "sympy" not in sys.modules:
        sys.meta_path.insert(0, _Late())
