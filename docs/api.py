"""Writes what the Python functions take and return out of their signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any

import onnx_llm_passes as package
from onnx_llm_passes.passes.presets import PRESETS

FUNCTIONS = (
    "run",
    "inspect",
    "diff",
    "check",
    "verify",
    "calibrate",
    "compare",
    "sensitivity",
    "suggest_bits",
    "generate",
    "predict",
    "suggest_k",
)
RESULTS = {  # what functions return -> where the type lies
    "Inspection": "api.inspect",
    "GraphFacts": "api.facts",
    "Difference": "api.diff",
    "CheckReport": "api.check",
    "VerifyReport": "runtime.verify.report",
    "Comparison": "runtime.compare.programs",
    "Generated": "runtime.decode.generate",
    "Predicted": "runtime.predict.predict",
    "Suggestion": "runtime.suggest.suggest",
}
QUALIFIED = re.compile(r"\b(?:onnx_llm_passes|pathlib|collections\.abc|typing)[\w.]*\.(\w+)")


def functions() -> str:
    """A section a function: how it is called, and what its docstring says."""
    parts = [_section(name, getattr(package, name)) for name in FUNCTIONS]
    return "\n".join([*parts, _load(), _presets()])


def results() -> str:
    """A section a type that functions return: its fields."""
    return "\n".join(_fields(name, module) for name, module in RESULTS.items())


def _section(name: str, function: Any) -> str:
    call = f"{name}{_signature(function)}"
    return f"## {name}\n\n```python\n{call}\n```\n\n{_markdown(function.__doc__)}\n"


def _load() -> str:
    return f"## Program.load\n\n{_markdown(package.Program.load.__doc__)}\n"


def _presets() -> str:
    rows = ["| function | what it makes | parameters |", "|---|---|---|"]
    for name, row in sorted(PRESETS.items()):
        taken = ", ".join(f"`{key}`" for key in row.parameters)
        rows.append(f"| `{name.replace('-', '_')}(model, …)` | {row.caption} | {taken} |")
    return "\n".join(["## Presets", "", *rows, ""])


def _signature(function: Any) -> str:
    lines, starred = list[str](), False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines, starred = [*lines, "*"], True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"{parameter.name}: {parameter.annotation}{default}")
    taken = "".join(f"    {line},\n" for line in lines)
    return f"(\n{taken}) -> {inspect.signature(function).return_annotation}"


def _markdown(doc: str | None) -> str:
    """A docstring with single backquotes, its examples in a block."""
    blocks = inspect.cleandoc(doc or "").replace("``", "`").split("\n\n")
    return "\n\n".join(f"```pycon\n{block}\n```" if block.startswith(">>>") else block for block in blocks)


def _fields(name: str, module: str) -> str:
    cls = getattr(__import__(f"{package.__name__}.{module}", fromlist=[name]), name)
    shown = [f"| `{field.name}` | `{_short(field.type)}` |" for field in dataclasses.fields(cls)]
    shown += [f"| `{at}` (property) | {_first(value.__doc__)} |" for at, value in _properties(cls)]
    table = "\n".join(["| field | type |", "|---|---|", *shown])
    return f"### {name}\n\n{_first(cls.__doc__)}\n\n{table}\n"


def _properties(cls: type) -> Iterable[tuple[str, Any]]:
    return ((name, value) for name, value in vars(cls).items() if isinstance(value, property))


def _short(annotation: Any) -> str:
    return QUALIFIED.sub(r"\1", str(annotation)).replace("|", "\\|")


def _first(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split()).replace("``", "`")
