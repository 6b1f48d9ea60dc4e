"""Loading: what is refused and how it is said, links, and that no byte of the weights is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_llm_passes.ir.program.program import Program

from .weight_models import WIDTH, chain, external, refused, saved

BYTES = 4 * WIDTH


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "no.onnx", "no such file", "no.onnx")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "is a text file"),
        (b"PK\x03\x04" + bytes(range(200)), "is not an ONNX model"),
        (bytes(range(255, 0, -1)), "is not an ONNX model"),
        (onnx.ModelProto(ir_version=9).SerializeToString(), "no graph"),
    ],
    ids=["empty", "git-lfs pointer", "text", "zip", "noise", "no graph"],
)
def test_not_onnx(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    refused(tmp_path / "m.onnx", words, "m.onnx")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = chain([external("w", location="w.data")]).SerializeToString()
    (tmp_path / "w.data").write_bytes(bytes(BYTES))
    for length in range(1, len(whole) - 6):  # the last six bytes are the opset import
        (tmp_path / "m.onnx").write_bytes(whole[:length])
        refused(tmp_path / "m.onnx", "m.onnx")


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", "no regular file")


def test_above_two_gigabytes(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31)
    refused(tmp_path / "m.onnx", "larger than protobuf allows", "external data")


@pytest.mark.parametrize("opset", [12, onnx.defs.onnx_opset_version() + 1])
def test_opset_outside(tmp_path: Path, opset: int) -> None:
    model = chain([onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")], opset)
    refused(saved(tmp_path, model), f"opset {opset}", "wanted 13 to")


def test_ir_version_outside(tmp_path: Path) -> None:
    model = chain([onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")])
    model.ir_version = onnx.IR_VERSION + 1
    refused(saved(tmp_path, model), "IR version")


@pytest.mark.parametrize("change", [{"dims": [2**62]}, {"dims": [-5]}, {"raw_data": b"short"}, {"data_type": 99}])
def test_damaged_initializer(tmp_path: Path, change: dict[str, object]) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(8, np.float32), "w")
    for name, value in change.items():
        tensor.ClearField(name)
        tensor.MergeFrom(TensorProto(**{name: value}))
    refused(saved(tmp_path, chain([tensor])), "'w'")


def test_initializers_in_typed_fields(tmp_path: Path) -> None:
    tensors = [helper.make_tensor(f"w{t}", t, [999], [1] * 999) for t in (1, 3, 6, 7, 10, 11, 16, 21, 22)]
    tensors.append(helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"b"]))
    model = chain([onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")])
    model.graph.initializer.extend(tensors)
    Program.load(saved(tmp_path, model)).save(tmp_path / "out")
    again = Program.load(tmp_path / "out").graphs["m"].graph.initializers
    for tensor in tensors[:-1]:
        assert again[tensor.name].const_value.numpy().astype(np.float32).tolist() == [1.0] * 999
    assert again["text"].const_value.numpy().tolist() == [b"a", b"b"]


def sparse() -> onnx.SparseTensorProto:
    """A sparse tensor [4] with one value."""
    parts = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]), helper.make_tensor("i", TensorProto.INT64, [1], [0])
    return helper.make_sparse_tensor(*parts, [4])


def test_sparse_initializer(tmp_path: Path) -> None:
    model = chain([onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")])
    model.graph.sparse_initializer.append(sparse())
    refused(saved(tmp_path, model), "sparse")


def test_sparse_initializer_in_a_subgraph(tmp_path: Path) -> None:
    model = chain([onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")])
    branch = helper.make_graph([], "branch", [], [])
    branch.sparse_initializer.append(sparse())
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch))
    refused(saved(tmp_path, model), "sparse", "branch")


def test_sparse_constant(tmp_path: Path) -> None:
    model = chain([onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")])
    model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse()))
    refused(saved(tmp_path, model), "sparse")


def test_training_info(tmp_path: Path) -> None:
    model = chain([onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")])
    model.training_info.add()
    refused(saved(tmp_path, model), "training_info")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "/etc/passwd"}, "in the model's folder"),
        ({"location": "../w.data"}, "in the model's folder"),
        ({"location": "a/../../w.data"}, "in the model's folder"),
        ({"location": "..\\w.data"}, "in the model's folder"),
        ({"location": "w.data\0x"}, "in the model's folder"),
        ({"location": "."}, "in the model's folder"),
        ({}, "in the model's folder"),
        ({"location": "other.data"}, "is missing"),
        ({"location": "sub"}, "no regular file"),
        ({"location": "w.data", "offset": "-4"}, "offset is no byte count"),
        ({"location": "w.data", "offset": "1_0"}, "offset is no byte count"),
        ({"location": "w.data", "offset": "٣"}, "offset is no byte count"),
        ({"location": "w.data", "length": "many"}, "length is no byte count"),
        ({"location": "w.data", "offset": 2**63}, "offset is no byte count"),
        ({"location": "w.data", "offset": 4}, "shorter than its type and shape"),
        ({"location": "w.data", "length": BYTES - 4}, "shorter than its type and shape"),
        ({"location": "w.data", "offset": 4, "length": BYTES}, "lies outside"),
        ({"location": "w.data", "offset": 2**62, "length": 2**62}, "lies outside"),
        ({"location": "w.data", "offset": BYTES + 4}, "lies outside"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph", "function"])
def test_external_data_refused(tmp_path: Path, entries: dict[str, str | int], words: str, place: str) -> None:
    (tmp_path / "sub").mkdir()
    path = saved(tmp_path, PLACES[place](external("w", **entries)), BYTES)
    refused(path, words, "'w'")


def in_attribute(tensor: TensorProto) -> onnx.ModelProto:
    """A model whose Constant holds ``tensor``."""
    model = chain([onnx.numpy_helper.from_array(np.zeros(WIDTH, np.float32), "v")])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], "constant", value=tensor))
    return model


def in_subgraph(tensor: TensorProto) -> onnx.ModelProto:
    """A model one of whose branches holds ``tensor`` as initializer."""
    model = chain([onnx.numpy_helper.from_array(np.zeros(WIDTH, np.float32), "v")])
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [WIDTH])
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["r"])], "branch", [], [result], [tensor])
    condition = onnx.numpy_helper.from_array(np.array(True), "condition")
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["condition"], ["z"], "if", then_branch=branch, else_branch=branch))
    return model


def in_function(tensor: TensorProto) -> onnx.ModelProto:
    """A model whose function holds ``tensor`` in a Constant."""
    model = chain([onnx.numpy_helper.from_array(np.zeros(WIDTH, np.float32), "v")])
    node = helper.make_node("Constant", [], ["c"], "constant", value=tensor)
    model.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.append(helper.make_node("f", [], ["z"], "call", domain="own"))
    return model


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "initializer": lambda tensor: chain([tensor]),
    "attribute": in_attribute,
    "subgraph": in_subgraph,
    "function": in_function,
}


@pytest.mark.parametrize("key", ["location", "offset", "length"])
def test_external_key_twice(tmp_path: Path, key: str) -> None:
    tensor = external("w", location="w.data", offset=0, length=BYTES)
    tensor.external_data.add(key=key, value="0")
    refused(saved(tmp_path, chain([tensor]), BYTES), f"{key!r} twice")


def test_length_may_be_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path, chain([external("w", location="./w.data", offset=8)]), BYTES + 8)
    tensor = Program.load(path).graphs["m"].graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.numpy().shape == (WIDTH,)


@pytest.mark.parametrize("place", PLACES)
def test_values_can_be_read_wherever_they_stand(tmp_path: Path, place: str) -> None:
    from onnx_llm_passes.ir.core.tensors import tensor_slots

    path = saved(tmp_path, PLACES[place](external("w", location="w.data")), BYTES)
    (tmp_path / "w.data").write_bytes(np.arange(WIDTH, dtype=np.float32).tobytes())
    os.link(tmp_path / "w.data", tmp_path / "hard")  # which onnx_ir alone refuses
    slots = [s for s in tensor_slots(Program.load(path).graphs["m"]) if isinstance(s.tensor, ir.ExternalTensor)]
    assert slots
    for slot in slots:
        np.testing.assert_array_equal(slot.tensor.numpy(), np.arange(WIDTH))
