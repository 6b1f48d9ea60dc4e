"""rename-io on programs: several graphs, what else names an input, and tensors that graphs share."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.encoding import Encoding, TensorEncoding
from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError
from onnx_llm_passes.ir.program.contracts.interface import RenamedIO
from onnx_llm_passes.ir.program.contracts.positions import OrderedPositions
from onnx_llm_passes.ir.program.contracts.sizes import Assumption
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import print_pipeline
from onnx_llm_passes.passes.rename_io import RenameIO

from .small_graphs import BRANCH, CHAIN, program

DEFAULT = """\
<ir_version: 10, opset_import: ["" : 18]>
g (float[1] w, float[N] x) => (float[N] y)
<float[1] w = {1}>
{
   [sub] y = Sub (x, w)
}"""


def names(model: ir.Model) -> tuple[list[str | None], list[str | None]]:
    """The names of inputs and of outputs."""
    return [value.name for value in model.graph.inputs], [value.name for value in model.graph.outputs]


def rename(made: Program, **pairs: str) -> Program:
    """Runs the pass."""
    return PassManager([RenameIO(pairs)]).run(made)  # type: ignore[arg-type]


def test_a_mapping_is_taken_and_printed_as_pairs() -> None:
    assert print_pipeline([RenameIO({"a": "b", "c": "d e"})]) == 'rename-io{map=a:b,c:"d e"}'  # type: ignore[arg-type]
    assert hash(RenameIO({"a": "b"})) == hash(RenameIO((("a", "b"),)))  # type: ignore[arg-type]


def test_each_graph_that_has_the_name_is_renamed() -> None:
    made = rename(program(CHAIN, BRANCH), x="features", flag="up")
    assert names(made.graphs["chain"]) == (["features"], ["y"])
    assert names(made.graphs["branch"]) == (["up", "features"], ["y"])
    assert made.history[0].counts == {"inputs renamed": 3}


def test_a_name_that_one_graph_cannot_take_leaves_all_graphs() -> None:
    made = program(CHAIN, BRANCH)
    with pytest.raises(PassRefused, match="graph 'branch': 'x' cannot be renamed"):
        rename(made, x="h")
    assert names(made.graphs["chain"]) == (["x"], ["y"])


def test_a_name_that_no_graph_has_is_unknown() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'flag'"):
        rename(program(CHAIN, BRANCH), flagg="up")


def test_what_else_the_program_holds_follows() -> None:
    made = program(CHAIN)
    made.custom_io = {"x": "float16", "y": "float16", "a": "int8"}
    held = TensorEncoding(Encoding((0.5,), (3,), 8))
    made.encodings = {"x": held}
    made.contracts = [OrderedPositions("x"), Assumption("of x nothing else is known")]
    rename(made, x="y", y="x")
    assert made.custom_io == {"y": "float16", "x": "float16", "a": "int8"}
    assert made.encodings == {"y": held}
    assert made.contracts == [RenamedIO((("x", "y"), ("y", "x"))), OrderedPositions("y"), made.contracts[2]]
    assert made.assumptions[1] == "of x nothing else is known"


def test_a_text_written_before_is_warned_of() -> None:
    made = program(CHAIN)
    made.artifacts = {"custom_io.yaml": "- IOName: x\n", "other.json": '{"xy": 1}'}
    rename(made, x="features")
    assert made.history[0].warnings == ("custom_io.yaml was written before and still says 'x': rename first",)


def test_a_clone_that_shares_the_default_keeps_its_name() -> None:
    model = ir.from_onnx_text(DEFAULT)
    clone = model.clone()
    RenameIO((("w", "bias"),)).call(model)
    assert names(model) == (["bias", "x"], ["y"])
    assert list(model.graph.initializers) == ["bias"]
    assert names(clone) == (["w", "x"], ["y"])
    assert clone.graph.initializers["w"].const_value.name == "w"
    assert [tensor.name for tensor in ir.to_proto(clone).graph.initializer] == ["w"]
