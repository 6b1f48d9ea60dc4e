"""graphsurgeon and back: nothing is lost, no weight is read, and a person's script is held to the rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import InputError, OnnxPassesError, PassRefused
from onnx_llm_passes.ir.serialization.interop import from_surgeon, to_surgeon
from onnx_llm_passes.passes.instruments import VerifyEach
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline

from .small_graphs import BRANCH, CALL, CHAIN, program

DEFAULT = """\
<ir_version: 10, opset_import: ["" : 18], metadata_props: ["made by": "hand"]>
g (float[1] w, float[N] x) => (float[N] y)
<float[1] w = {1}>
{
   [sub] y = Sub (x, w)
}"""


@pytest.mark.parametrize("text", [CHAIN, BRANCH, CALL, DEFAULT])
def test_there_and_back_is_the_same_graph(text: str) -> None:
    model = ir.from_onnx_text(text)
    before = ir.to_onnx_text(model)
    again = from_surgeon(to_surgeon(model), model)
    assert ir.to_onnx_text(again) == before
    assert ir.to_onnx_text(model) == before


def test_what_graphsurgeon_drops_comes_back() -> None:
    model = ir.from_onnx_text(CHAIN)
    node, value = model.graph[1], model.graph[1].outputs[0]
    node.metadata_props["pass"] = "mine"
    node.doc_string = "why"
    value.metadata_props["scale"] = "2"
    value.meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "w"}
    model.graph.inputs[0].shape.set_denotation(0, "BATCH")
    model.graph.metadata_props["g"] = "1"
    model.metadata_props["m"] = "2"
    model.model_version, model.doc_string = 7, "a chain"
    again = from_surgeon(to_surgeon(model), model)
    assert ir.to_proto(again).SerializeToString(deterministic=True) == ir.to_proto(model).SerializeToString(
        deterministic=True
    )


def external(folder: Path, *, missing: bool = False) -> ir.Model:
    """The chain with its weight in a file beside it."""
    model = ir.from_onnx_text(CHAIN)
    if not missing:
        (folder / "w.data").write_bytes(np.float32(2).tobytes())
    tensor = ir.ExternalTensor("w.data", 0, 4, ir.DataType.FLOAT, name="w", shape=ir.Shape([1]), base_dir=folder)
    model.graph.initializers["w"].const_value = tensor
    return model


def test_weights_stay_references_and_are_not_read(tmp_path: Path) -> None:
    model = external(tmp_path, missing=True)
    again = from_surgeon(to_surgeon(model), model)
    assert again.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


def test_a_script_may_read_weights_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    graph = to_surgeon(external(tmp_path / "model"))
    assert graph.tensors()["w"].values.tolist() == [2.0]


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
