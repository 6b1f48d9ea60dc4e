"""What watches a pipeline: each instrument does its one thing, and a foreign folder is never cleaned."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from onnx_llm_passes.ir.core.errors import OutputError, ProgramInvalid
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.base import Pass, Report
from onnx_llm_passes.passes.instruments import Dump, Instrument, PrintAfter, StopAfter, Timing, VerifyEach
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline

from .small_graphs import BRANCH, CACHE, CHAIN, Counts, Dangles, DropsFirstOutput, Refuses, program


class Diary(Instrument):
    """Writes down what it is told."""

    def __init__(self, skip: str = "") -> None:
        self.lines: list[str] = []
        self.skip = skip

    def start(self, program: Program) -> None:
        self.lines.append("start")

    def should_run(self, pass_: Pass, program: Program) -> bool:
        return pass_.name != self.skip

    def before(self, pass_: Pass, program: Program) -> None:
        self.lines.append(f"before {pass_.name}")

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        self.lines.append(f"after {pass_.name} {report.counts}")


def test_instruments_are_told_in_order() -> None:
    diary = Diary()
    PassManager([Counts(), Counts(times=2)], [diary]).run(program(CHAIN))
    assert diary.lines == [
        "start",
        "before counts",
        "after counts {'seen': 1}",
        "before counts",
        "after counts {'seen': 2}",
    ]


def test_one_instrument_that_says_no_is_enough() -> None:
    diary = Diary(skip="refuses")
    made = PassManager([Counts(), Refuses(), Counts()], [Instrument(), diary]).run(program(CHAIN))
    assert [record.text for record in made.history] == ["counts", "counts"]
    assert "before refuses" not in diary.lines


def test_verify_each_checks_what_came_first() -> None:
    broken = program(CHAIN)
    Dangles().run(broken)
    with pytest.raises(ProgramInvalid, match="graph 'chain': "):
        PassManager([Counts()], [VerifyEach()]).run(broken)
    assert broken.history == []


def test_verify_each_finds_a_state_that_lost_its_output() -> None:
    wanted = (
        "pass 'drops-first-output': graph 'cache': a carried state has lost one of its two ends; found 'past.0.key'"
    )
    with pytest.raises(ProgramInvalid, match=wanted):
        PassManager([DropsFirstOutput()], [VerifyEach()]).run(program(CACHE))


@pytest.mark.parametrize("text", ["rename-io{map=past.0.key:k}", "rename-io{map=present.0.key:k}", "strip-states"])
def test_verify_each_lets_states_be_renamed_and_removed(text: str) -> None:
    PassManager(parse_pipeline(text), [VerifyEach()]).run(program(CACHE))


def test_verify_each_takes_other_checks() -> None:
    seen: list[str | None] = []
    PassManager([Counts()], [VerifyEach([lambda model: seen.append(model.graph.name)])]).run(program(CHAIN, BRANCH))
    assert seen == ["chain", "branch"] * 2


def test_timing_has_one_line_a_pass_and_starts_anew() -> None:
    timing = Timing()
    manager = PassManager([Counts(), Counts(times=2)], [timing])
    manager.run(program(CHAIN))
    manager.run(program(CHAIN))
    assert [text for text, _ in timing.seconds] == ["counts", "counts{times=2}"]
    assert all(seconds >= 0 for _, seconds in timing.seconds)


def test_print_after_prints_after_its_pass_only() -> None:
    stream = io.StringIO()
    PassManager([Counts(), Refuses(of="nothing")], [PrintAfter("counts", stream)]).run(program(CHAIN, BRANCH))
    text = stream.getvalue()
    assert text.count("// chain after counts") == 1
    assert text.count("// branch after counts") == 1
    assert "[third] y = Neg (b)" in text
    assert "refuses" not in text


def test_dump_writes_numbered_files_and_cleans_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    PassManager([Counts(), Counts()], [Dump(folder)]).run(program(CHAIN))
    names = ["000-input.onnxtxt", "001-counts.onnxtxt", "002-counts.onnxtxt"]
    assert sorted(path.name for path in folder.glob("*.onnxtxt")) == names
    PassManager([Counts()], [Dump(folder)]).run(program(CHAIN))
    assert sorted(path.name for path in folder.glob("*.onnxtxt")) == names[:2]


def test_dump_writes_a_file_a_graph(tmp_path: Path) -> None:
    PassManager([Counts()], [Dump(tmp_path / "dump")]).run(program(CHAIN, BRANCH))
    assert (tmp_path / "dump" / "001-counts-branch.onnxtxt").is_file()


def test_dump_leaves_a_foreign_folder_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.onnxtxt"
    mine.write_text("precious")
    with pytest.raises(OutputError, match="holds files that were not written here"):
        PassManager([Counts()], [Dump(tmp_path)]).run(program(CHAIN))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnxtxt"]
    assert mine.read_text() == "precious"


def test_dump_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        PassManager([Counts()], [Dump(tmp_path / "f")]).run(program(CHAIN))


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_stop_after_runs_that_many(number: int) -> None:
    manager = PassManager([Counts(times=n) for n in range(1, 4)], [StopAfter(number)])
    assert len(manager.run(program(CHAIN)).history) == min(number, 3)
    assert len(manager.run(program(CHAIN)).history) == min(number, 3)
