"""What refusals advise can be typed: passes, options and subcommands that sentences in the source name are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import typer

from onnx_llm_passes.cli.app import app
from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.presets import PRESETS
from onnx_llm_passes.passes.registry import PASSES, get_pass
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.verify import verify

from .append_graphs import baked_length

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("ir", "passes", "runtime", "api", "cli")
STEP = re.compile(r"(?<![\w$-])([a-z]+(?:-[a-z0-9]+)*)\{([^{}]*)\}")
COMMAND = re.compile(r"onnx-passes ([a-z][a-z-]*)")
GRAMMAR = "a,b{x=1"  # the form of a pipeline, told with names that are none
OPEN = re.compile(r"[A-Z…?]|\bSOME\b")  # a value for the reader to fill in


def _text(node: ast.expr) -> str:
    """A string as it is printed, SOME in place of what is filled in; empty for no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "SOME" for part in node.values)
    return ""


def sentences() -> Iterator[tuple[str, str]]:
    """Every sentence of the source that is shown to people, with its place; docstrings are none."""
    for path in sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in inner | docs:
                text = _text(node)
                if " " in text and "<" not in text and GRAMMAR not in text:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


SAID = list(sentences())
STEPS = [(place, *found) for place, text in SAID for found in STEP.findall(text)]


def _options(name: str) -> set[str]:
    if name in PRESETS:
        return set(PRESETS[name].parameters)
    return {field.name.rstrip("_") for field in fields(get_pass(name)) if field.init}  # `as_`: no word of Python's


def test_the_search_sees_what_is_advised() -> None:
    names = {name for _, name, _ in STEPS}
    assert {"clone-decode", "keep-last-logits", "convert-states", "extract-layer", "specialize"} <= names
    assert sum(bool(COMMAND.search(text)) for _, text in SAID) > 10


@pytest.mark.parametrize(("place", "name", "options"), STEPS, ids=[f"{place}-{name}" for place, name, _ in STEPS])
def test_a_pass_that_a_sentence_names_takes_the_options_that_it_names(place: str, name: str, options: str) -> None:
    assert name in PASSES or name in PRESETS, place
    if not OPEN.search(options) and "$" not in options:
        assert parse_pipeline(f"{name}{{{options}}}")
        return
    known = _options(name)
    given = {part.partition("=")[0] for part in options.split() if "=" in part}
    assert given <= known, place


def test_a_command_that_a_sentence_names_is_one() -> None:
    commands = set(vars(typer.main.get_command(app))["commands"])
    named = {(place, word) for place, text in SAID for word in COMMAND.findall(text)}
    assert [found for found in sorted(named) if found[1] not in commands] == []


def several_axes() -> ir.Model:
    """The growing sample whose positions are [3, batch, sequence], of which the first row says where a token is."""
    model = append_decoder()
    old = next(value for value in model.graph.inputs if value.name == "position_ids")
    new = ir.Value(name="position_ids", type=old.type, shape=ir.Shape([3, *(old.shape or ())]))
    zero = ir.Value(name="text_row", const_value=ir.tensor(np.array(0, np.int64), name="text_row"))
    model.graph.register_initializer(zero)
    row = ir.node("Gather", [new, zero], attributes={"axis": 0})
    row.outputs[0].name = "text_positions"
    row.outputs[0].type, row.outputs[0].shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, row.outputs[0])
    model.graph.insert_before(model.graph[0], row)
    model.graph.inputs[list(model.graph.inputs).index(old)] = new
    return model


def test_positions_of_several_axes_are_refused_with_a_pipeline_that_works(tmp_path: Path) -> None:
    Program(graphs={"model": several_axes()}).save(tmp_path / "model")
    with pytest.raises(PassRefused, match="several axes") as refused:
        PassManager(parse_pipeline("convert-states")).run(Program.load(tmp_path / "model"))
    (pipeline,) = re.findall(r"as it is: (.+)\.$", str(refused.value))
    result = PassManager(parse_pipeline(pipeline)).run(Program.load(tmp_path / "model"))
    report = verify(Program.load(tmp_path / "model"), result)
    assert report.equal, report.first_difference


def test_a_fixed_left_context_is_not_told_to_be_exported_otherwise() -> None:
    with pytest.raises(PassRefused, match=r"a fixed left context is part of the model: keep it"):
        PassManager(parse_pipeline("single-shot")).run(Program(graphs={"model": baked_length()}))
