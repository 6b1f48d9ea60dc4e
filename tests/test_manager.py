"""The manager: records, order, conditions before changes, one line for each kind of failure, reproducers."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import IdentityEliminationPass

from onnx_llm_passes.ir.core.errors import OnnxPassesError, PassRefused, ProgramInvalid, UsageError, WriteError
from onnx_llm_passes.passes import failure
from onnx_llm_passes.passes.base import GraphResult, Pass
from onnx_llm_passes.passes.failure import InternalError, Reproducer, add_pass
from onnx_llm_passes.passes.instruments import VerifyEach
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline

from .small_graphs import BRANCH, CHAIN, Breaks, Counts, Dangles, Refuses, program


def test_each_pass_leaves_a_record() -> None:
    made = PassManager([Counts(), Counts(times=3)]).run(program(CHAIN))
    assert [(record.text, record.counts) for record in made.history] == [
        ("counts", {"seen": 1}),
        ("counts{times=3}", {"seen": 3}),
    ]
    assert made.history[0].notes == ("a note",)
    assert made.history[0].warnings == ("a warning",)
    assert all(record.seconds >= 0 for record in made.history)
    assert made.pipeline == "counts,counts{times=3}"
    assert made.assumptions == ["an assumption"]


def test_a_second_run_adds_to_the_first() -> None:
    made = PassManager([Counts()]).run(program(CHAIN))
    again = PassManager([Counts(times=2)]).run(made)
    assert again is made
    assert made.pipeline == "counts,counts{times=2}"
    assert len(made.history) == 2


def test_counts_of_several_graphs_are_summed_and_sentences_prefixed() -> None:
    record = PassManager([Counts()]).run(program(CHAIN, BRANCH)).history[0]
    assert record.counts == {"seen": 2}
    assert record.notes == ("chain: a note", "branch: a note")


def test_an_error_names_the_pass_and_those_before_it() -> None:
    with pytest.raises(PassRefused) as caught:
        PassManager([Counts(), Counts(times=2), Refuses()]).run(program(CHAIN))
    assert str(caught.value) == "pass 'refuses' (after counts, counts): not this one; found chain"
    assert caught.value.exit_code == 1


def test_a_refusal_by_one_graph_leaves_every_graph_as_it_was() -> None:
    made = program(CHAIN, BRANCH)
    texts = {name: ir.to_onnx_text(model) for name, model in made.graphs.items()}
    with pytest.raises(PassRefused):
        PassManager([Refuses(of="branch")]).run(made)
    assert {name: ir.to_onnx_text(model) for name, model in made.graphs.items()} == texts
    assert made.history == []
    assert made.pipeline == ""


def test_what_no_pass_should_raise_is_a_bug_of_the_pass() -> None:
    with pytest.raises(
        InternalError, match=r"pass 'breaks': the pass broke; found ZeroDivisionError: by zero"
    ) as caught:
        PassManager([Breaks()]).run(program(CHAIN))
    assert "This is a bug" in str(caught.value)
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


class Fails(Pass):
    """Raises what it is given."""

    name = "fails"

    def __init__(self, error: Exception) -> None:
        object.__setattr__(self, "error", error)

    def call(self, model: ir.Model) -> GraphResult:
        """Raises."""
        raise self.error  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(28, "No space left on device"), WriteError),
        (ir.passes.PreconditionError("no such thing"), PassRefused),
        (RecursionError("too deep"), InternalError),
        (ProgramInvalid("broken"), ProgramInvalid),
    ],
)
def test_every_kind_of_error_becomes_one_of_ours(error: Exception, wanted: type[OnnxPassesError]) -> None:
    with pytest.raises(OnnxPassesError) as caught:
        PassManager([Fails(error)]).run(program(CHAIN))
    assert type(caught.value) is wanted
    assert "\n" not in str(caught.value)


def test_ctrl_c_is_not_caught() -> None:
    class Interrupted(Counts):
        def call(self, model: ir.Model) -> GraphResult:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PassManager([Interrupted()]).run(program(CHAIN))


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("", "pass 'strip' (after a): it is so"),
        ("graph 'g'", "pass 'strip' (after a): graph 'g': it is so"),
        ("strip, graph 'g'", "pass 'strip' (after a): graph 'g': it is so"),
        ("pass 'strip'", "pass 'strip' (after a): it is so"),
        ("strip-more, graph 'g'", "pass 'strip' (after a): strip-more, graph 'g': it is so"),
    ],
)
def test_a_pass_that_names_itself_is_not_named_twice(where: str, wanted: str) -> None:
    assert str(add_pass(PassRefused("it is so", where=where), "strip", ["a"])) == wanted


def test_a_script_is_refused_unless_allowed(tmp_path: Path) -> None:
    passes = parse_pipeline(f'surgeon{{script="{tmp_path}/my.py"}}')
    with pytest.raises(UsageError, match="allow_scripts=True"):
        PassManager(passes)
    PassManager(passes, allow_scripts=True)


def test_what_is_no_pass_is_refused() -> None:
    with pytest.raises(UsageError, match="not a pass; found IdentityEliminationPass"):
        PassManager([IdentityEliminationPass()])  # type: ignore[list-item]


def test_verification_names_the_pass_that_left_a_bad_graph() -> None:
    with pytest.raises(ProgramInvalid, match=r"pass 'dangles' \(after counts\): graph 'chain': .*node 'second'"):
        PassManager([Counts(), Dangles(), Counts()], [VerifyEach()]).run(program(CHAIN))


def test_a_refused_run_leaves_the_graph_and_the_rest_of_the_pipeline(tmp_path: Path) -> None:
    made = program(CHAIN)
    reproducer = Reproducer(tmp_path / "out")
    with pytest.raises(PassRefused) as caught:
        PassManager([Counts(), Refuses(of="chain"), Counts(times=2)], reproducer=reproducer).run(made)
    (folder,) = (tmp_path / "out").iterdir()
    assert str(folder) in str(caught.value)
    assert (folder / "pipeline.txt").read_text() == "refuses{of=chain},counts{times=2}\n"
    assert "not this one" in (folder / "error.txt").read_text()
    assert ir.to_onnx_text(ir.load(folder / "chain.onnx")) == ir.to_onnx_text(made.graphs["chain"])
    assert "[third] y = Neg (b)" in (folder / "chain.onnxtxt").read_text()


def test_after_a_broken_pass_the_graph_before_it_is_made_again(tmp_path: Path) -> None:
    passes = parse_pipeline("rename-io{map=x:features}")
    reproducer = Reproducer(tmp_path, reload=lambda: program(CHAIN))
    with pytest.raises(InternalError):
        PassManager([*passes, Breaks()], reproducer=reproducer).run(program(CHAIN))
    (folder,) = tmp_path.iterdir()
    graph = onnx.load(folder / "chain.onnx").graph
    assert [value.name for value in graph.input] == ["features"]
    assert [value.name for value in graph.output] == ["y"]
    assert "made again" in (folder / "error.txt").read_text()


def test_without_the_source_a_broken_pass_leaves_what_there_is_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(InternalError):
        PassManager([Breaks()], reproducer=Reproducer(tmp_path)).run(program(CHAIN))
    (folder,) = tmp_path.iterdir()
    assert "may have changed them" in (folder / "error.txt").read_text()


def test_a_pass_that_verification_stops_leaves_the_graph_before_it(tmp_path: Path) -> None:
    reproducer = Reproducer(tmp_path, reload=lambda: program(CHAIN))
    with pytest.raises(ProgramInvalid):
        PassManager([Dangles()], [VerifyEach()], reproducer=reproducer).run(program(CHAIN))
    (folder,) = tmp_path.iterdir()
    assert len(onnx.load(folder / "chain.onnx").graph.node) == 3


def test_the_callers_mistake_leaves_no_reproducer(tmp_path: Path) -> None:
    passes = parse_pipeline("rename-io{map=nobody:x}")
    with pytest.raises(UsageError):
        PassManager(passes, reproducer=Reproducer(tmp_path)).run(program(CHAIN))
    assert list(tmp_path.iterdir()) == []


def test_a_reproducer_that_cannot_be_written_does_not_hide_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PassRefused, match=r"not this one; found chain \(no reproducer was left"):
        PassManager([Refuses()], reproducer=Reproducer(tmp_path / "file")).run(program(CHAIN))


def test_many_weights_inside_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "MAX_EMBEDDED", 3)
    with pytest.raises(PassRefused):
        PassManager([Refuses()], reproducer=Reproducer(tmp_path)).run(program(CHAIN))
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["chain.onnxtxt", "error.txt", "pipeline.txt"]


def test_by_default_a_failing_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PassRefused):
        PassManager([Refuses()]).run(program(CHAIN))
    assert list(tmp_path.iterdir()) == []
