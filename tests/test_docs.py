"""The documents tell the truth: generated parts are fresh, links lead somewhere, the Python example runs."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.registry import PASSES

from .cli_tools import names, sample

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def test_generated_parts_are_fresh(generator: ModuleType) -> None:
    assert sorted(page.name for page in generator.stale()) == [], "run `make docs`"


@pytest.mark.slow
def test_every_next_step_that_the_documents_print_runs(generator: ModuleType, tmp_path: Path) -> None:
    shown = "\n".join(generator.example(tmp_path).values())
    steps = list(dict.fromkeys(re.findall(r"^next: onnx-passes (.*)$", shown, re.MULTILINE)))
    assert {step.split()[0] for step in steps} == {"verify", "compare", "run"}
    for step in steps:
        generator.output(step, tmp_path)  # SystemExit, with what it printed, where it fails


def test_a_stale_part_is_noticed(generator: ModuleType) -> None:
    text = "before\n<!-- begin demo -->\nold\n<!-- end demo -->\nafter\n"
    assert generator.fill(text, {"demo": "new\n"}) == text.replace("old", "new")
    with pytest.raises(KeyError):
        generator.fill(text, {"another": "new\n"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/writing_passes.md"])
def test_every_place_that_a_page_names_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"`((?:ir|passes|runtime|cli|tests|docs|bench)/[^`{}* ]*)`", text)
    assert named
    placeholders = ("<", "…")
    lost = [path for path in named if not any(mark in path for mark in placeholders) and not (ROOT / path).exists()]
    assert lost == []
    assert [path for path in re.findall(r"`(\w+\.py)`", text) if not (ROOT / path).exists()] == []  # no bare names


def test_the_map_of_the_house_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_bytes()) < 12 << 10


def test_every_pass_is_documented() -> None:
    text = (ROOT / "docs/passes.md").read_text(encoding="utf-8")
    assert [name for name in PASSES if f"\n## {name}\n" not in text] == []


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    sample(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102  our own page
    assert names(tmp_path / "out" / "model.onnx") == (["input_ids", "attention_mask", "position_ids"], ["logits"])
    assert Program.load("out").earlier[0].pipeline == "strip-states,simplify"


def test_the_python_example_of_the_api_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    sample(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "api.md", "exec"), {})  # noqa: S102  our own page
    assert names(tmp_path / "single" / "model.onnx")[1] == ["logits"]


def test_pipelines_in_the_documents_parse() -> None:
    from onnx_llm_passes.passes.pipeline import parse_pipeline

    texts = [text for page in PAGES for text in re.findall(r"onnx-passes run '([^']+)'", page.read_text("utf-8"))]
    assert texts
    for text in texts:
        assert parse_pipeline(text)


def test_no_document_names_a_place_of_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(?:home|root|tmp|work)/|\.\./shared", page.read_text(encoding="utf-8")), page
