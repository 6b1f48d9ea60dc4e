"""Small models with weights inside or beside them, written as plain protobuf for the tests of loading and saving."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_llm_passes.ir.core.errors import InputError
from onnx_llm_passes.ir.program.program import Program

WIDTH = 1024


def external(name: str, width: int = WIDTH, **entries: str | int) -> TensorProto:
    """A float tensor [width] whose external data entries are ``entries``."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[width], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def chain(tensors: list[TensorProto], opset: int = 17) -> onnx.ModelProto:
    """y = x + every tensor in turn, float [n, width]; the values in between have no value info."""
    names = ["x", *(f"sum{i}" for i in range(len(tensors) - 1)), "y"]
    nodes = [helper.make_node("Add", [names[i], t.name], [names[i + 1]], f"add{i}") for i, t in enumerate(tensors)]
    width = tensors[0].dims[0]
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ports[0], ports[1], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def values(count: int, width: int = WIDTH) -> list[np.ndarray]:
    """The weights of every model here: tensor ``i`` is all ``i + 1`` but for its first element."""
    arrays = [np.full(width, i + 1, np.float32) for i in range(count)]
    for i, array in enumerate(arrays):
        array[0] = 100 * i
    return arrays


def write_embedded(folder: Path, name: str = "model.onnx", count: int = 2) -> Path:
    """A model with its weights inside."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = [onnx.numpy_helper.from_array(v, f"w{i}") for i, v in enumerate(values(count))]
    onnx.save(chain(tensors), folder / name)
    return folder / name


def write_external(folder: Path, name: str = "model.onnx", data: str = "model.onnx.data", count: int = 2) -> Path:
    """A model with its weights in ``folder/data``."""
    (folder / data).parent.mkdir(parents=True, exist_ok=True)
    arrays = values(count)
    (folder / data).write_bytes(b"".join(a.tobytes() for a in arrays))
    size = arrays[0].nbytes
    tensors = [external(f"w{i}", location=data, offset=i * size, length=size) for i in range(count)]
    (folder / name).write_bytes(chain(tensors).SerializeToString())
    return folder / name


def run(path: Path) -> np.ndarray:
    """What the model gives for zeros; a model of ``count`` tensors gives their sum."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros((1, WIDTH), np.float32)})[0][0]


def expected(count: int = 2) -> np.ndarray:
    """What :func:`run` must give."""
    return np.sum(values(count), axis=0)


def locations(path: Path) -> set[str]:
    """The data files that the initializers of a model file name."""
    model = onnx.load(path, load_external_data=False)
    return {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, hidden ones included, with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rename_first_node(program: Program, name: str) -> Program:
    """``program`` changed a little, so that its file differs."""
    next(iter(program.graphs.values())).graph[0].name = name
    return program


def old_and_new(tmp_path: Path) -> tuple[Path, Program]:
    """A saved folder, and a program that differs from it."""
    source = write_embedded(tmp_path / "src")
    Program.load(source).save(tmp_path / "out")
    return tmp_path / "out", rename_first_node(Program.load(source), "renamed")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run([str(shutil.which("umount")), place], check=True)


def refused(path: Path, *words: str, follow_links: bool = False) -> None:
    """Loading ``path`` raises one line with ``words`` in it and exit code 2."""
    with pytest.raises(InputError) as caught:
        Program.load(path, follow_links=follow_links)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in text
    for word in words:
        assert word in text, text


def saved(folder: Path, model: onnx.ModelProto, data: int | None = None) -> Path:
    """``model`` in a file, beside it ``w.data`` of ``data`` bytes."""
    if data is not None:
        with (folder / "w.data").open("wb") as file:
            file.truncate(data)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"
