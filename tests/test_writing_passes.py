"""The tutorial for pass writers works as it stands: its code runs, its output and its fixture are right."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.passes.base import Pass
from onnx_llm_passes.passes.registry import PASSES

from .harness import check_case, is_canonical, read_case

PAGE = Path(__file__).resolve().parent.parent / "docs" / "writing_passes.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


@pytest.fixture
def tutorial(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The page's pass, as if it lay among ours and had its row."""
    module: Any = types.ModuleType("onnx_llm_passes.passes.narrow_ids")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(blocks("python")[0], str(PAGE), "exec"), vars(module))  # noqa: S102  our own page
    monkeypatch.setitem(PASSES, "narrow-ids", "narrow_ids:NarrowIds")
    return module


def test_the_example_prints_what_the_page_says(tutorial: types.ModuleType) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(blocks("python")[1], str(PAGE), "exec"), vars(tutorial))  # noqa: S102  our own page
    assert said.getvalue() == blocks("text")[0]


def test_its_fixture_holds(tutorial: types.ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "narrow-ids" / "ids.txt"
    path.parent.mkdir()
    path.write_text(blocks("fixture")[0], encoding="utf-8")
    check_case(path)
    assert is_canonical(read_case(path))


def test_it_refuses_as_the_page_says(tutorial: Any) -> None:
    assert issubclass(tutorial.NarrowIds, Pass)
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { y = Neg (x) }'
    )
    with pytest.raises(PassRefused, match=r"no input holds token ids; found x\. `onnx-passes inspect"):
        tutorial.NarrowIds().call(model)
