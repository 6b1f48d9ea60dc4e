"""surgeon: a person's script is run only where allowed, on all graphs or none, and its mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_llm_passes.ir.core.errors import InputError, OnnxPassesError, PassRefused
from onnx_llm_passes.passes.instruments import VerifyEach
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline

from .small_graphs import BRANCH, CHAIN, program


def run_script(tmp_path: Path, code: str, *texts: str) -> object:
    """Runs ``surgeon`` with a script of that code."""
    script = tmp_path / "my.py"
    script.write_text(code)
    passes = parse_pipeline(f'ir-checker,surgeon{{script="{script}"}}')
    return PassManager(passes, [VerifyEach()], allow_scripts=True).run(program(*texts))


def test_a_script_edits_in_place_or_returns_a_graph(tmp_path: Path) -> None:
    code = "def edit(graph):\n    graph.nodes[2].op = 'Abs'\n"
    for tail in ("", "    return graph\n"):
        made = run_script(tmp_path, code + tail, CHAIN)
        assert [node.op_type for node in made.graphs["chain"].graph] == ["Relu", "Mul", "Abs"]


def test_what_a_script_prints_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(tmp_path, "def edit(graph):\n    print('hello')\n", CHAIN)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


@pytest.mark.parametrize(
    ("code", "kind", "wanted"),
    [
        ("def edit(graph):\n    return graph.nope\n", PassRefused, "line 2 failed; found AttributeError"),
        ("import nothing_of_the_kind\n", PassRefused, "line 1 failed; found ModuleNotFoundError"),
        ("def other(graph): ...\n", InputError, "has no function 'edit'"),
        ("def edit(graph:\n", PassRefused, "SyntaxError"),
    ],
)
def test_a_script_that_fails_is_refused_with_its_line(
    tmp_path: Path, code: str, kind: type[OnnxPassesError], wanted: str
) -> None:
    with pytest.raises(kind, match=wanted) as caught:
        run_script(tmp_path, code, CHAIN)
    assert str(caught.value).startswith("pass 'surgeon' (after ir-checker): ")


def test_a_script_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    passes = parse_pipeline(f'surgeon{{script="{tmp_path}/none.py"}}')
    with pytest.raises(InputError, match="is not there") as caught:
        PassManager(passes, allow_scripts=True).run(program(CHAIN))
    assert caught.value.exit_code == 2


def test_a_script_that_fails_on_the_second_graph_leaves_the_first(tmp_path: Path) -> None:
    code = "def edit(graph):\n    graph.nodes[0].op = 'Abs'\n    assert graph.name == 'chain'\n"
    made = program(CHAIN, BRANCH)
    passes = parse_pipeline(f'surgeon{{script="{tmp_path}/my.py"}}')
    (tmp_path / "my.py").write_text(code)
    with pytest.raises(PassRefused):
        PassManager(passes, allow_scripts=True).run(made)
    assert made.graphs["chain"].graph[0].op_type == "Relu"


def test_a_script_that_breaks_the_graph_is_caught_by_verification(tmp_path: Path) -> None:
    with pytest.raises(OnnxPassesError, match="pass 'surgeon'"):
        run_script(tmp_path, "def edit(graph):\n    del graph.nodes[0]\n", CHAIN)
