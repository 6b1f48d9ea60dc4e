"""The conformance command: our own cases pass, wrong answers and repeated bugs are told, odd files refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from onnx_llm_passes.runtime.conformance import SECTIONS, Outcome, run_cases
from onnx_llm_passes.runtime.conformance.run import run_case

from .cli_tools import Command

OWN = Path(__file__).parent / "golden" / "conformance" / "cases.jsonl"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.mark.parametrize("result", run_cases(OWN).results, ids=lambda r: f"{r.line}: {r.label}")
def test_own_case(result: Any) -> None:
    built = not result.section.startswith(("14", "99"))
    assert result.outcome is (Outcome.PASSED if built else Outcome.NOT_BUILT), result.reason


def test_own_cases_reach_every_section_that_is_built() -> None:
    numbers = {result.section.split(" ")[0].rstrip(".") for result in run_cases(OWN).results}
    assert {section.number for section in SECTIONS} <= numbers


@pytest.mark.skipif("ONNX_PASSES_CONFORMANCE" not in os.environ, reason="ONNX_PASSES_CONFORMANCE names no cases")
def test_recorded_cases_pass() -> None:
    found = run_cases(Path(os.environ["ONNX_PASSES_CONFORMANCE"]))
    assert [result for result in found.results if result.outcome is Outcome.FAILED] == []
    assert {r.section for r in found.results if r.outcome is Outcome.NOT_BUILT} <= {"14. Speculative decoding helpers"}


RIGHT = {"flat": [{"seq_len": 2}], "named": [{"name": "Prefill", "symbols": {"seq_len": "2"}}]}


@pytest.mark.parametrize(
    ("section", "case", "said"),
    [
        ("2.1", {**RIGHT, "named": []}, "is not []"),
        ("2.1", {**RIGHT, "B": True}, "known bug is repeated"),
        ("2.1", {**RIGHT, "raises": "ValueError"}, "not refused"),
        ("2.1", {"flat": [{"seq_len": None}], "named": []}, "refused: "),
        ("2.1", {"flat": 5, "named": []}, "cannot be read"),
        ("10. MDP", {"layers": 8, "partitions": 3, "bounds": [True, 6]}, "is not"),
        ("11.1", {"validate": ["good", "no good"], "raises": "ValueError"}, "good"),
        ("7.", {"id": "nobody", "in": {}, "named": []}, "unknown family"),
        ("11.2", {"custom_io": {"x": "float16"}, "text": "- IOName: x\n  Precision: float16\n"}, "is not"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_a_case_fails_where_it_should(section: str, case: dict[str, Any], said: str) -> None:
    result = run_case(1, section, case)
    assert result.outcome is Outcome.FAILED and said in result.reason


@pytest.mark.parametrize(
    ("section", "case"),
    [
        ("9.1", {"ctx_len": "4096", "prefill_seq_len": "128", "out": [[4096], [4096], 4096]}),
        ("9.2", {"args": [["4096"], ["4096"], "4096", "128"], "out": [[4064], [4096], 4096]}),
        (
            "6.",
            {
                "id": "speech",
                "in": {"batch_size": "1", "ctx_len": "25", "encoder_ctx_len": "300"},
                "named": [
                    {
                        "name": name,
                        "symbols": {
                            "batch_size": "1",
                            "decoder_ctx_len": "25",
                            "encoder_ctx_len": "300",
                            "feature_len": length,
                            "seq_len": "1",
                        },
                    }
                    for name, length in (("Encoder", "600"), ("Decode", "1"))
                ],
            },
        ),
    ],
)
def test_sizes_that_are_told_as_text_are_numbers(section: str, case: dict[str, Any]) -> None:
    result = run_case(1, section, case)
    assert result.outcome is Outcome.PASSED, result.reason


def test_a_bool_is_no_integer() -> None:
    case = {"B": True, "layers": 2, "partitions": 2, "bounds": [True]}
    assert run_case(1, "10.", case).outcome is Outcome.PASSED


def test_the_command_counts_and_exits(tmp_path: Path, command: Command) -> None:
    ran = command("conformance", OWN)
    assert ran.code == 0 and "passed: 51 cases" in ran.out
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(json.dumps({"section": "2.1", "case": {**RIGHT, "named": []}}) + "\n")
    ran = command("conformance", wrong)
    assert ran.code == 1 and "line 1" in ran.out and "FAILED: 1 case" in ran.out
    ran = command("conformance", wrong, "--json")
    found = json.loads(ran.out)
    assert ran.code == 1 and found["totals"] == {"passed": 0, "failed": 1, "not built": 0}
    assert found["failures"][0]["line"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no cases"),
        ("[]\n", "line 1: is no case"),
        ('{"section": "1", "case": []}\n', "line 1: is no case"),
        ('\n{"section": "1", "case": {"a": NaN}}\n', "line 2"),
        ('{"section": "1", "case": {"a": 1, "a": 2}}\n', "stands twice"),
        ("[" * 100_000, "line 1"),
        ("\x00", "line 1"),
    ],
    ids=lambda text: repr(text)[:40],
)
def test_a_file_that_is_no_cases_is_the_callers_mistake(tmp_path: Path, command: Command, text: str, said: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(text)
    ran = command("conformance", path)
    assert ran.code == 2 and said in ran.error


def test_a_missing_file_is_the_callers_mistake(tmp_path: Path, command: Command) -> None:
    ran = command("conformance", tmp_path / "none.jsonl")
    assert ran.code == 2 and "none.jsonl" in ran.error
