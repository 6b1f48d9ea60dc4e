"""Every fixture of every pass, and the harness's own refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_llm_passes.ir.program.contracts.chain import Chain
from onnx_llm_passes.passes.presets import PRESETS
from onnx_llm_passes.passes.registry import pass_names

from .harness import UPDATE, CaseError, check_case, find_cases, is_canonical, read_case

ROOT = Path(__file__).parent / "fixtures"
CASES = find_cases(ROOT)
GOOD = """\
# title: an identity in the middle goes
# --- before
<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { [a] h = Identity (x) [b] y = Relu (h) }
# --- after
<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { [b] y = Relu (x) }
"""


@pytest.mark.parametrize("path", CASES, ids=[f"{path.parent.name}/{path.stem}" for path in CASES])
def test_fixture(path: Path, request: pytest.FixtureRequest) -> None:
    check_case(path, update=request.config.getoption("--update-golden"))


@pytest.mark.parametrize("path", CASES, ids=[f"{path.parent.name}/{path.stem}" for path in CASES])
def test_both_graphs_of_a_fixture_are_written_alike(path: Path) -> None:
    assert is_canonical(read_case(path)), f"{path}: {UPDATE} writes it so that before and after can be diffed"


def test_every_fixture_folder_is_named_after_a_pass() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert folders <= {*pass_names(), *PRESETS}


@pytest.mark.parametrize("name", sorted({*pass_names()} - {"surgeon"}))  # which runs a script, see test_surgeon
def test_every_pass_has_a_fixture(name: str) -> None:
    assert [path for path in CASES if path.parent.name == name]


def test_no_file_of_a_fixture_folder_is_left_out() -> None:
    strays = [path for path in ROOT.rglob("*") if path.is_file() and path not in CASES]
    assert strays == []


def write(folder: Path, text: str, name: str = "case.txt", pass_name: str = "ir-identity-elimination") -> Path:
    path = folder / pass_name / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_case_passes(tmp_path: Path) -> None:
    check_case(write(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("# --- after", "# ---- after", "sections are"),
        ("# --- after", "# --- before", "sections are"),
        ("# title: an", "# titel: an", "header line"),
        ("# title: an identity in the middle goes\n", "", "title"),
        ("# --- before", "stray text\n# --- before", "header line"),
        ("[b] y = Relu (h)", "[b] y = Relu (", "no graph"),
        ("# --- before", "# run: roughly\n# --- before", "run: roughly"),
        ("# --- before", "# inputs: nobody=ones\n# --- before", "nobody"),
    ],
)
def test_a_case_that_is_none_fails(tmp_path: Path, old: str, new: str, wanted: str) -> None:
    with pytest.raises(CaseError, match=wanted):
        check_case(write(tmp_path, GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("{ [b] y = Relu (x) }", "{ [b] y = Neg (x) }", "another graph"),
        ("# --- before", "# again: changes\n# --- before", "second run"),
        ("# --- before", "# says: nothing of the kind\n# --- before", "said"),
    ],
)
def test_a_case_that_does_not_hold_fails(tmp_path: Path, old: str, new: str, wanted: str) -> None:
    with pytest.raises(AssertionError, match=wanted):
        check_case(write(tmp_path, GOOD.replace(old, new, 1)))


def test_a_noop_case_that_fires_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="noop"):
        check_case(write(tmp_path, GOOD, "noop-fires.txt"))


def test_an_error_that_does_not_come_fails(tmp_path: Path) -> None:
    head, _, _ = GOOD.partition("# --- after")
    with pytest.raises(AssertionError, match="no error"):
        check_case(write(tmp_path, f"{head}# --- error\nsome words\n"))


RENAMED = """\
# title: an input and an output get other names
# options: map=x:a,y:b
# again: refused
# --- before
<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { [b] y = Relu (x) }
# --- after
<ir_version: 10, opset_import: ["" : 18]> g (float[N] a) => (float[N] b) { [b] b = Relu (a) }
"""


def test_other_inputs_and_outputs_are_run_through_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, RENAMED, pass_name="rename-io")
    check_case(path)
    monkeypatch.setattr(Chain, "of", lambda *_: Chain())
    with pytest.raises(AssertionError, match=r"input \['a'\] is new, and no contract"):
        check_case(path)
    write(tmp_path, RENAMED.replace("x:a,y:b", "y:b").replace("float[N] a", "float[N] x").replace("(a)", "(x)"),
          pass_name="rename-io")  # fmt: skip
    with pytest.raises(AssertionError, match=r"output \['b'\] is new, and no contract"):
        check_case(path)


def test_few_fixtures_are_not_run_and_say_why() -> None:
    silent = [path for path in CASES if read_case(path).header.get("run", "").startswith("no")]
    allowed = {"convert-states", "ir-common-subexpression-elimination", "lower", "to-float16"}
    assert {path.parent.name for path in silent} <= allowed
    assert len(silent) <= 8


def test_update_golden_writes_what_comes_out(tmp_path: Path) -> None:
    head, _, _ = GOOD.partition("# --- after")
    path = write(tmp_path, f"{head}# --- after\n")
    assert not is_canonical(read_case(path))
    check_case(path, update=True)
    case = read_case(path)
    assert case.header == {"title": "an identity in the middle goes"}
    assert "Identity" not in (case.after or "")
    removed = [line for line in case.before.splitlines() if line not in (case.after or "").splitlines()]
    assert len(removed) == 2  # the node that went, and the one that reads another value now
    assert is_canonical(case)
    check_case(path)
