"""Weights of a saved program: referred to, copied once, or moved out of the graph; never more often than once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnx_llm_passes.ir.core.errors import OutputError, UnknownNameError, WriteError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.serialization import excerpt
from onnx_llm_passes.ir.serialization import sparse_copy as copying
from onnx_llm_passes.ir.serialization.sparse_copy import copy_file

from .weight_models import WIDTH, chain, expected, external, locations, run, values, write_embedded, write_external

BYTES = 2 * 4 * WIDTH


def renamed(program: Program, name: str) -> Program:
    """``program`` with its one graph called ``name``."""
    program.graphs = {name: next(iter(program.graphs.values()))}
    return program


@pytest.mark.parametrize("mode", ["auto", "refer"])
def test_beside_the_source_nothing_is_copied(tmp_path: Path, mode: str) -> None:
    source = write_external(tmp_path)
    done = renamed(Program.load(source), "stripped").save(tmp_path, weights=mode)
    assert (done.referred, done.copied, done.moved) == (BYTES, 0, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.onnx",
        "model.onnx.data",
        "program.json",
        "stripped.onnx",
    ]
    np.testing.assert_array_equal(run(tmp_path / "stripped.onnx"), expected())
    np.testing.assert_array_equal(run(source), expected())
    assert Program.load(tmp_path).graphs.keys() == {"stripped"}


def test_in_a_parent_of_the_source_nothing_is_copied(tmp_path: Path) -> None:
    done = Program.load(write_external(tmp_path / "a/b")).save(tmp_path)
    assert (done.referred, done.copied) == (BYTES, 0)
    assert locations(tmp_path / "model.onnx") == {"a/b/model.onnx.data"}
    np.testing.assert_array_equal(run(tmp_path / "model.onnx"), expected())


def test_elsewhere_the_file_is_copied_once_and_announced(tmp_path: Path) -> None:
    source = write_external(tmp_path / "src")
    told: list[tuple[str, int, int]] = []
    done = Program.load(source).save(tmp_path / "out", on_progress=lambda *event: told.append(event))
    assert (done.referred, done.copied) == (0, BYTES)
    assert locations(tmp_path / "out/model.onnx") == {"model.onnx.data"}
    assert told[0] == ("model.onnx.data", 0, BYTES)
    assert ("model.onnx.data", BYTES, BYTES) in told
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), expected())


def test_refer_says_why_it_cannot(tmp_path: Path) -> None:
    program = Program.load(write_external(tmp_path / "src"))
    with pytest.raises(OutputError, match=r"lies outside.*--weights copy") as caught:
        program.save(tmp_path / "out", weights="refer")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_copy_beside_the_source_gets_another_name(tmp_path: Path) -> None:
    source = write_external(tmp_path)
    renamed(Program.load(source), "stripped").save(tmp_path, weights="copy")
    assert locations(tmp_path / "stripped.onnx") == {"model.onnx-2.data"}
    np.testing.assert_array_equal(run(tmp_path / "stripped.onnx"), expected())


def test_a_hard_link_is_copied_or_refused(tmp_path: Path) -> None:
    source = write_external(tmp_path)
    os.link(tmp_path / "model.onnx.data", tmp_path / "hard")
    program = renamed(Program.load(source), "stripped")
    with pytest.raises(OutputError, match="hard links"):
        program.save(tmp_path, weights="refer")
    program.save(tmp_path)
    assert locations(tmp_path / "stripped.onnx") == {"model.onnx-2.data"}
    np.testing.assert_array_equal(run(tmp_path / "stripped.onnx"), expected())


def test_a_link_inside_is_referred_to_by_its_target(tmp_path: Path) -> None:
    source = write_external(tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "model.onnx.data").rename(tmp_path / "store/data")
    (tmp_path / "model.onnx.data").symlink_to("store/data")
    renamed(Program.load(source), "stripped").save(tmp_path)
    assert locations(tmp_path / "stripped.onnx") == {"store/data"}
    np.testing.assert_array_equal(run(tmp_path / "stripped.onnx"), expected())


def test_the_weights_file_is_never_overwritten(tmp_path: Path) -> None:
    source = write_external(tmp_path, data="other.onnx")
    with pytest.raises(OutputError, match="never overwritten"):
        renamed(Program.load(source), "other").save(tmp_path, force=True)
    np.testing.assert_array_equal(run(source), expected())


MEGABYTE = 1 << 20


def write_some(folder: Path, offsets: list[int], size: int) -> Path:
    """A model of float tensors of 1 MB each, which lie at these offsets of a sparse data file of that size."""
    folder.mkdir()
    count, width = len(offsets), MEGABYTE // 4
    with (folder / "w.data").open("wb") as file:
        for offset, array in zip(offsets, values(count, width), strict=True):
            file.seek(offset)
            file.write(array.tobytes())
        file.truncate(size)
    tensors = [external(f"w{i}", width, location="w.data", offset=at, length=MEGABYTE) for i, at in enumerate(offsets)]
    (folder / "model.onnx").write_bytes(chain(tensors).SerializeToString())
    return folder / "model.onnx"


def results(path: Path) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros((1, MEGABYTE // 4), np.float32)})[0][0]


@pytest.mark.parametrize("way", ["as the system can", "read and write", "no holes known"])
def test_what_no_graph_refers_to_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    source = write_some(tmp_path / "src", [5 * MEGABYTE + 64, 0, 9 * MEGABYTE], 40 * MEGABYTE)
    wanted = results(source)
    cripple(monkeypatch, way)
    told: list[tuple[str, int, int]] = []
    done = Program.load(source).save(tmp_path / "out", on_progress=lambda *event: told.append(event))
    copied = (tmp_path / "out" / "w.data").stat().st_size
    assert 3 * MEGABYTE <= copied == done.copied <= 3 * MEGABYTE + 3 * 4096
    assert told[0] == ("w.data", 0, copied)
    assert told[-2][1] <= copied
    assert f"w.data: {40 * MEGABYTE - copied} bytes that no graph refers to were left out" in done.notes
    np.testing.assert_array_equal(results(tmp_path / "out" / "model.onnx"), wanted)
    tensors = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph.initializer
    offsets = [int(entry.value) for tensor in tensors for entry in tensor.external_data if entry.key == "offset"]
    assert [offset % 4096 for offset in offsets] == [64, 0, 0]
    again = Program.load(tmp_path / "out").save(tmp_path / "again")
    assert (again.copied, again.notes) == (copied, ()), "nothing is left to leave out"


def test_a_dead_tail_as_large_as_a_model_costs_nothing(tmp_path: Path) -> None:
    source = write_some(tmp_path / "src", [0, 1 << 39], 1 << 40)
    done = Program.load(source).save(tmp_path / "out")
    assert done.copied == (tmp_path / "out" / "w.data").stat().st_size == 2 * MEGABYTE
    np.testing.assert_array_equal(results(tmp_path / "out" / "model.onnx"), results(source))


def test_short_gaps_stay_so_that_a_file_can_be_copied_as_it_is(tmp_path: Path) -> None:
    source = write_some(tmp_path / "src", [4096, MEGABYTE + 65536], 2 * MEGABYTE + 131072)
    done = Program.load(source).save(tmp_path / "out")
    assert (done.copied, done.notes) == (2 * MEGABYTE + 131072, ())
    assert (tmp_path / "out" / "w.data").read_bytes() == (tmp_path / "src" / "w.data").read_bytes()


def test_a_tensor_without_bytes_needs_none() -> None:
    assert excerpt.parts_of([(1 << 20, 1 << 20)], 1 << 30) == ()
    assert excerpt.moved((), 7) == 0
    parts = excerpt.parts_of([(1 << 20, 1 << 21), (1 << 29, 1 << 29)], 1 << 30)
    assert parts is not None
    assert excerpt.moved(parts, 1 << 29) == excerpt.size_of(parts) == 1 << 20
    assert excerpt.parts_of([(0, 1 << 30)], 1 << 30) is None


def test_unknown_mode(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'copy'"):
        Program.load(write_embedded(tmp_path)).save(tmp_path / "out", weights="cpoy")


# moved out of the graph ---------------------------------------------------------------------------


def test_large_initializers_move_out_and_small_ones_stay(tmp_path: Path) -> None:
    sizes = {"big": 64 * 1024, "w": 300, "edge": 256, "large": 70_000}
    tensors = [numpy_helper.from_array(np.arange(size, dtype=np.float32), name) for name, size in sizes.items()]
    model = chain(tensors[:1])
    model.graph.initializer.extend(tensors[1:])
    onnx.save(model, tmp_path / "m.onnx")
    Program.load(tmp_path / "m.onnx").save(tmp_path / "out")
    saved = {
        t.name: {e.key: e.value for e in t.external_data}
        for t in onnx.load(tmp_path / "out/m.onnx", load_external_data=False).graph.initializer
    }
    assert saved == {
        "big": {"location": "weights.data", "offset": "0", "length": str(4 * 64 * 1024)},
        "w": {"location": "weights.data", "offset": str(4 * 64 * 1024), "length": "1200"},
        "edge": {},
        "large": {"location": "weights.data", "offset": str(4 * 64 * 1024 + 4096), "length": "280000"},
    }
    for tensor in onnx.load(tmp_path / "out/m.onnx").graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), np.arange(sizes[tensor.name]))


@pytest.mark.parametrize(
    "dtype", [ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.BFLOAT16, ir.DataType.FLOAT16, ir.DataType.BOOL]
)
def test_every_type_survives_the_move(tmp_path: Path, dtype: ir.DataType) -> None:
    array = (np.arange(4097) % 2).astype(dtype.numpy())
    value = ir.Value(
        name="w", const_value=ir.Tensor(array, dtype=dtype, name="w"), type=ir.TensorType(dtype), shape=ir.Shape([4097])
    )
    node = ir.node("Identity", [value], name="identity")
    node.outputs[0].name = "y"
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 21}, name="g")
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), ir.Shape([4097])
    Program({"m": ir.Model(graph, ir_version=10)}).save(tmp_path / "out")
    tensor = Program.load(tmp_path / "out").graphs["m"].graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    np.testing.assert_array_equal(tensor.numpy().astype(np.float32), array.astype(np.float32))


def test_initializers_of_a_subgraph_move_too(tmp_path: Path) -> None:
    inner = numpy_helper.from_array(values(1)[0], "inner")
    result = onnx.helper.make_tensor_value_info("r", 1, [WIDTH])
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["inner"], ["r"])], "branch", [], [result], [inner]
    )
    model = chain([numpy_helper.from_array(values(1)[0], "w")])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    model.graph.node.append(
        onnx.helper.make_node("If", ["condition"], ["z"], "if", then_branch=branch, else_branch=branch)
    )
    onnx.save(model, tmp_path / "m.onnx")
    done = Program.load(tmp_path / "m.onnx").save(tmp_path / "out")
    assert done.moved == 3 * 4 * WIDTH
    saved = onnx.load(tmp_path / "out/m.onnx", load_external_data=False)
    assert [a.g.initializer[0].data_location for a in saved.graph.node[-1].attribute] == [1, 1]
    run(tmp_path / "out/m.onnx")


# shared by several graphs ---------------------------------------------------------------------------


def test_clones_share_one_copy(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    program.graphs = {f"decode{k}": program.graphs["model"].clone() for k in range(3)}
    done = program.save(tmp_path / "out")
    assert done.moved == BYTES
    for k in range(3):
        np.testing.assert_array_equal(run(tmp_path / f"out/decode{k}.onnx"), expected())


def test_equal_tensors_of_two_graphs_share_one_copy(tmp_path: Path) -> None:
    first, second = (Program.load(write_embedded(tmp_path / name)) for name in "ab")
    program = Program({"prefill": first.graphs["model"], "decode": second.graphs["model"]})
    assert program.save(tmp_path / "out").moved == BYTES
    for name in program.graphs:
        np.testing.assert_array_equal(run(tmp_path / f"out/{name}.onnx"), expected())


def test_graphs_over_one_data_file_share_it(tmp_path: Path) -> None:
    program = Program.load(write_external(tmp_path / "src"))
    program.graphs = {name: program.graphs["model"].clone() for name in ("prefill", "decode")}
    done = program.save(tmp_path / "out")
    assert done.copied == BYTES
    again = Program.load(tmp_path / "out")
    assert again.save(tmp_path / "third").copied == BYTES
    for name in program.graphs:
        assert locations(tmp_path / f"third/{name}.onnx") == {"model.onnx.data"}
        np.testing.assert_array_equal(run(tmp_path / f"third/{name}.onnx"), expected())


def test_copied_and_moved_side_by_side(tmp_path: Path) -> None:
    """A program whose data file is already called weights.data gets new large initializers."""
    source = write_external(tmp_path / "src", data="weights.data")
    model = onnx.load(source, load_external_data=False)
    model.graph.initializer.append(numpy_helper.from_array(values(3)[2], "extra"))
    model.graph.node[1].input[1] = "extra"
    source.write_bytes(model.SerializeToString())
    Program.load(source).save(tmp_path / "out")
    assert locations(tmp_path / "out/model.onnx") == {"weights.data", "weights-2.data"}
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), values(3)[0] + values(3)[2])


def test_files_of_one_name_from_two_folders(tmp_path: Path) -> None:
    for name, array in zip("ab", values(2), strict=True):
        (tmp_path / "src" / name).mkdir(parents=True)
        (tmp_path / "src" / name / "w").write_bytes(array.tobytes())
    model = chain([external(f"w{n}", location=f"{n}/w") for n in "ab"])
    (tmp_path / "src/m.onnx").write_bytes(model.SerializeToString())
    Program.load(tmp_path / "src/m.onnx").save(tmp_path / "out")
    assert locations(tmp_path / "out/m.onnx") == {"w", "w-2"}
    np.testing.assert_array_equal(run(tmp_path / "out/m.onnx"), expected())


@pytest.mark.parametrize("change", ["remove", "truncate"])
def test_weights_that_changed_since_the_load(tmp_path: Path, change: str) -> None:
    program = Program.load(write_external(tmp_path / "src"))
    data = tmp_path / "src/model.onnx.data"
    data.unlink() if change == "remove" else os.truncate(data, 100)
    with pytest.raises(WriteError, match="since the graph was loaded"):
        program.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# copying ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["as the system can", "no reflink", "read and write", "no holes known"])
def test_copy_keeps_bytes_and_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        for offset in (0, 5 << 20, (64 << 20) + 3):
            file.seek(offset)
            file.write(b"data at " + str(offset).encode())
        file.truncate(100 << 20)
    cripple(monkeypatch, way)
    assert copy_file(source, target, "a") == 100 << 20
    assert source.read_bytes() == target.read_bytes()
    if way != "no holes known":
        assert target.stat().st_blocks <= source.stat().st_blocks + 64


def cripple(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Takes away what the system does better than plain reading and writing."""

    def unsupported(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    if way != "as the system can":
        monkeypatch.setattr(copying, "_reflink", lambda *_: False)
    if way in ("read and write", "no holes known"):
        monkeypatch.setattr(os, "copy_file_range", unsupported)
    if way == "no holes known":
        monkeypatch.setattr(os, "lseek", unsupported)


def test_copy_of_a_hole_as_large_as_a_model(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    assert copy_file(tmp_path / "a", tmp_path / "b", "a") == 1 << 40
    assert (tmp_path / "b").stat().st_blocks == 0
