"""Every small failing input of the folder ONNX_PASSES_CASES names: refused with a reason, or equal when run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from onnx_llm_passes.cli.job import Job, execute
from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .cases_table import CASES, HELD_BY
from .cli_tools import Command

FOLDER = os.environ.get("ONNX_PASSES_CASES", "")
MODELS = os.environ.get("ONNX_PASSES_MODELS", "")
GIVEN = sorted(path.name for path in Path(FOLDER).iterdir() if path.is_dir()) if FOLDER else []
WITH_MODEL = [name for name in GIVEN if (Path(FOLDER) / name / "model.onnx").exists()]
PIPELINES = ["single-shot", "speculative{k=0,2 prefill=8 ctx=32}"]


@pytest.mark.skipif(not WITH_MODEL, reason="ONNX_PASSES_CASES names no folder of cases")
@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", WITH_MODEL)
def test_a_case_is_refused_or_equal(name: str, pipeline: str, tmp_path: Path) -> None:
    path = Path(FOLDER) / name / "model.onnx"
    try:
        execute(Job(pipeline, path, tmp_path / "out"))
    except OnnxPassesError as error:
        assert "internal error" not in str(error)
        return
    report = verify(Program.load(path), Program.load(tmp_path / "out"))
    assert report.verdict is not Verdict.DIFFERENT, report.first_difference


@pytest.mark.slow
@pytest.mark.skipif(not (FOLDER and MODELS), reason="ONNX_PASSES_CASES or ONNX_PASSES_MODELS names no folder")
@pytest.mark.parametrize("name", CASES)
def test_a_case_ends_as_its_row_says(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in GIVEN:
        pytest.skip(f"the folder holds no case {name}")
    monkeypatch.chdir(tmp_path)
    tokens = [[5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 41, 12], [21, 3, 44, 9, 30, 2, 17, 33, 8, 5, 40, 11]]
    Path("texts.jsonl").write_text("".join(f"{json.dumps(text)}\n" for text in tokens))
    Path("prompts.json").write_text("[[5,6,7,8,5,6,7,8,5,6],[1,2,3]]")
    Path("ids.json").write_text("[1, 11, 35, 9, 61]")
    for row in CASES[name]:
        placed = re.sub(r"@([\w-]+)", rf"{MODELS}/\1", row.command.replace("CASE", f"{FOLDER}/{name}"))
        ran = Command(capsys)(*(word.replace(";", " ") for word in placed.split(" ")))
        said = f"{row.command}\n{ran.out}\n{ran.err}"
        assert ran.code == row.code, said
        assert row.words in said, said
        assert "internal error" not in said


@pytest.mark.skipif(not FOLDER, reason="ONNX_PASSES_CASES names no folder of cases")
def test_no_case_is_left_out() -> None:
    """A case has rows, a test that holds it, or at least a model, which is refused or equal."""
    assert not set(GIVEN) - set(WITH_MODEL) - CASES.keys() - HELD_BY.keys()


def test_each_test_that_holds_a_case_is_there() -> None:
    for name, held in HELD_BY.items():
        file, _, function = held.partition("::")
        assert f"def {function}" in (Path(__file__).parent / file).read_text(encoding="utf-8"), name
