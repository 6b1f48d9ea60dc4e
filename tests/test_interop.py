"""graphsurgeon and back: nothing is lost, no weight is read, and a person's script is held to the rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.serialization.interop import from_surgeon, to_surgeon

from .small_graphs import BRANCH, CALL, CHAIN

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
