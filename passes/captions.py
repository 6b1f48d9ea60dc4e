"""Reads class captions out of source files without importing them, so that a listing stays cheap."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path


@functools.cache
def _classes(path: Path) -> dict[str, str]:
    """Class name to docstring of one source file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}


def class_caption(path: Path, class_name: str) -> str:
    """The first sentence of a class's docstring, on one line; empty where the file or the class is not there."""
    if not path.is_file():
        return ""
    return first_sentence(_classes(path).get(class_name, ""))


def first_sentence(docstring: str) -> str:
    """The first paragraph's first sentence, spaces folded, the full stop left off."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.split(r"\.(?:\s|$)", paragraph, maxsplit=1)[0]


@functools.cache
def common_ir_passes() -> dict[str, tuple[str, Path]]:
    """Kebab name without suffix ``Pass`` to class name and source file, for each pass that onnx_ir ships."""
    spec = importlib.util.find_spec("onnx_ir")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(next(iter(spec.submodule_search_locations)), "passes", "common")
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    return {
        kebab(alias.name.removesuffix("Pass")): (alias.name, folder / f"{node.module.rpartition('.')[2]}.py")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.name.endswith("Pass")
    }


def kebab(camel: str) -> str:
    """``CommonSubexpressionElimination`` as ``common-subexpression-elimination``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", camel).lower()
