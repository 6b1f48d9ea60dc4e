"""Every small failing input of the folder ONNX_PASSES_CASES names: refused with a reason, or equal when run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnx_llm_passes.cli.job import Job, execute
from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

FOLDER = os.environ.get("ONNX_PASSES_CASES", "")
MODELS = sorted(p for p in Path(FOLDER or ".").glob("*/model.onnx") if FOLDER)
PIPELINES = ["single-shot", "speculative{k=0,2 prefill=8 ctx=32}"]


@pytest.mark.skipif(not MODELS, reason="ONNX_PASSES_CASES names no folder of cases")
@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parent.name)
def test_a_case_is_refused_or_equal(path: Path, pipeline: str, tmp_path: Path) -> None:
    try:
        execute(Job(pipeline, path, tmp_path / "out"))
    except OnnxPassesError as error:
        assert "internal error" not in str(error)
        return
    report = verify(Program.load(path), Program.load(tmp_path / "out"))
    assert report.verdict is not Verdict.DIFFERENT, report.first_difference
