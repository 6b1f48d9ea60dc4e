"""Saving: what stays whole, what is never touched, what is refused, and that nothing is left half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_llm_passes.ir.core.errors import OutputError
from onnx_llm_passes.ir.core.specialization import Specialization
from onnx_llm_passes.ir.program.contracts.sizes import Assumption
from onnx_llm_passes.ir.program.program import PassRecord, Program

from .weight_models import (
    WIDTH,
    chain,
    expected,
    old_and_new,
    rename_first_node,
    run,
    tiny_disk,
    tree,
    write_embedded,
)

__all__ = ["tiny_disk"]  # a fixture


def test_round_trip(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    program.contracts.append(Assumption("positions are ordered"))
    program.custom_io["x"] = "float16"
    program.specializations.append(Specialization(name="prefill", binding={"n": 7}))
    program.pipeline = "strip-states"
    program.history.append(PassRecord("strip-states", {"states": 4}, 0.5, ("a note",), ("a warning",)))
    program.artifacts["custom_io.yaml"] = "- IOName: x\n"
    done = program.save(tmp_path / "out")
    assert {p.name for p in done.files} == {p.name for p in (tmp_path / "out").iterdir()}
    again = Program.load(tmp_path / "out")
    assert again.assumptions == ["positions are ordered"]
    assert again.custom_io == {"x": "float16"}
    assert again.specializations == [Specialization(name="prefill", binding={"n": 7})]
    assert (tmp_path / "out/custom_io.yaml").read_text() == "- IOName: x\n"
    assert [node.name for node in again.graphs["model"].graph] == ["add0", "add1"]
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), expected())
    again.save(tmp_path / "again")
    assert tree(tmp_path / "again")["model.onnx"] == tree(tmp_path / "out")["model.onnx"]
    assert [p["pipeline"] for p in index_of(tmp_path / "again")["earlier"]] == ["strip-states"]


def index_of(folder: Path) -> dict:
    """The folder's program.json."""
    return json.loads((folder / "program.json").read_text())


def test_index_tells_where_it_came_from(tmp_path: Path) -> None:
    import hashlib

    source = write_embedded(tmp_path / "src")
    Program.load(source).save(tmp_path / "out")
    index = index_of(tmp_path / "out")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert index["provenance"]["sources"] == [{"graph": "model", "name": "model.onnx", "sha256": digest}]
    assert index["provenance"]["packages"]["onnx"] == onnx.__version__
    graph = index["graphs"][0]
    assert (graph["nodes"], graph["functions"], graph["symbols"]) == (2, 0, ["n"])
    assert graph["inputs"][0] | {"role": None} == {"name": "x", "dtype": "FLOAT", "shape": ["n", WIDTH], "role": None}
    moved = hashlib.sha256((tmp_path / "out/weights.data").read_bytes()).hexdigest()
    assert index["files"] == [
        {"name": n, "bytes": (tmp_path / "out" / n).stat().st_size, "sha256": digest}
        for n, digest in (("weights.data", moved), ("model.onnx", ""))
    ]


def test_same_input_same_bytes(tmp_path: Path) -> None:
    source = write_embedded(tmp_path / "src", count=5)
    for name in ("a", "b"):
        Program.load(source).save(tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")  # no pass ran, so not even seconds differ


def test_saving_does_not_change_the_program(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    before = {n: v.const_value for n, v in program.graphs["model"].graph.initializers.items()}
    program.save(tmp_path / "out")
    assert {n: v.const_value for n, v in program.graphs["model"].graph.initializers.items()} == before


def test_numeric_dim_params_are_numbers(tmp_path: Path) -> None:
    path = write_embedded(tmp_path / "src")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "2"
    onnx.save(model, path)
    Program.load(path).save(tmp_path / "out")
    dim = onnx.load(tmp_path / "out/model.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert (dim.dim_param, dim.dim_value) == ("", 2)


# shapes ------------------------------------------------------------------------------------------


def test_shapes_are_filled_in(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src", count=3))
    program.save(tmp_path / "with")
    program.save(tmp_path / "without", fill_shapes=False)
    assert {v.name for v in onnx.load(tmp_path / "with/model.onnx").graph.value_info} >= {"sum0", "sum1"}
    assert not {v.name for v in onnx.load(tmp_path / "without/model.onnx").graph.value_info} & {"sum0", "sum1"}


def test_existing_shapes_win(tmp_path: Path) -> None:
    path = write_embedded(tmp_path / "src", count=3)
    model = onnx.load(path)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("sum0", 1, ["mine", None]))
    onnx.save(model, path)
    Program.load(path).save(tmp_path / "out")
    infos = {v.name: v for v in onnx.load(tmp_path / "out/model.onnx").graph.value_info}
    dims = infos["sum0"].type.tensor_type.shape.dim
    assert [(d.dim_param, d.dim_value) for d in dims] == [("mine", 0), ("", 0)]
    assert "sum1" in infos


def test_an_output_gets_its_rank_but_no_made_up_symbol(tmp_path: Path) -> None:
    model = chain([onnx.numpy_helper.from_array(np.ones(WIDTH, np.float32), "w")])
    model.graph.node.append(onnx.helper.make_node("NonZero", ["y"], ["places"], "nonzero"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("places", 7, None))
    onnx.save(model, tmp_path / "m.onnx")
    Program.load(tmp_path / "m.onnx").save(tmp_path / "out")
    dims = onnx.load(tmp_path / "out/m.onnx").graph.output[1].type.tensor_type.shape.dim
    assert [(d.dim_param, d.dim_value) for d in dims] == [("", 2), ("", 0)]


def test_an_engine_that_fails_is_a_note(tmp_path: Path) -> None:
    from onnx_llm_passes.ir.serialization.fill_shapes import fill_shapes

    class Broken:
        name = "broken"

        def infer(self, model: bytes) -> bytes:
            raise RuntimeError("no\nidea")

    proto = onnx.load(write_embedded(tmp_path))
    filled = fill_shapes(proto, Broken())
    assert onnx.load_model_from_string(filled.data) == proto
    assert filled.note == "shapes were not filled in: broken shape inference failed: no idea"


# what is in the way -------------------------------------------------------------------------------


def test_out_of_its_own_is_replaced_whole(tmp_path: Path) -> None:
    out, program = old_and_new(tmp_path)
    program.graphs = {"other": program.graphs["model"]}
    program.save(out)
    assert sorted(tree(out)) == ["other.onnx", "program.json", "weights.data"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]


def test_out_may_be_empty_or_nested(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a/b/c"):
        program.save(out)
        assert Program.load(out).graphs


def test_out_may_be_a_mount(tmp_path: Path, tiny_disk: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    for name in ("first", "second"):
        rename_first_node(program, name).save(tiny_disk)
        assert Program.load(tiny_disk).graphs["model"].graph[0].name == name
    assert sorted(tree(tiny_disk)) == ["model.onnx", "program.json", "weights.data"]


def test_out_may_be_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, program = old_and_new(tmp_path)
    monkeypatch.chdir(out)
    program.save(".")
    assert sorted(p.name for p in Path().iterdir()) == ["model.onnx", "program.json", "weights.data"]
    assert Program.load(Path()).graphs["model"].graph[0].name == "renamed"


def test_users_files_stay(tmp_path: Path) -> None:
    out, program = old_and_new(tmp_path)
    (out / "notes.txt").write_text("mine")
    program.save(out)
    files = tree(out)
    assert files.pop("notes.txt") == b"mine"
    assert sorted(files) == ["model.onnx", "program.json", "weights.data"]
    assert Program.load(out).graphs["model"].graph[0].name == "renamed"


def test_old_listed_files_go_and_users_stay(tmp_path: Path) -> None:
    out, program = old_and_new(tmp_path)
    (out / "notes.txt").write_text("mine")
    program.graphs = {"other": program.graphs["model"]}
    program.save(out)
    assert sorted(tree(out)) == ["notes.txt", "other.onnx", "program.json", "weights.data"]


@pytest.mark.parametrize("name", ["model.onnx", "program.json"])
def test_a_file_that_nobody_lists_needs_force(tmp_path: Path, name: str) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"mine")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="--force") as caught:
        program.save(tmp_path / "out")
    assert caught.value.exit_code == 2
    assert name in str(caught.value)
    assert tree(tmp_path) == before
    program.save(tmp_path / "out", force=True)
    assert Program.load(tmp_path / "out").graphs


def test_a_users_weights_file_is_never_overwritten(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/weights.data").write_bytes(b"mine")
    program.save(tmp_path / "out", force=True)
    assert tree(tmp_path / "out")["weights.data"] == b"mine"
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), expected())


def test_the_source_model_needs_force(tmp_path: Path) -> None:
    source = write_embedded(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"is the model that was read.*--force"):
        Program.load(source).save(tmp_path)
    assert tree(tmp_path) == before
    Program.load(source).save(tmp_path, force=True)
    np.testing.assert_array_equal(run(source), expected())


def test_saving_a_saved_folder_over_itself(tmp_path: Path) -> None:
    out, _ = old_and_new(tmp_path)
    with pytest.raises(OutputError, match="is the model that was read"):
        Program.load(out).save(out)
    rename_first_node(Program.load(out), "twice").save(out, force=True)
    assert Program.load(out).graphs["model"].graph[0].name == "twice"
    np.testing.assert_array_equal(run(out / "model.onnx"), expected())


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    (tmp_path / "out/model.onnx").mkdir(parents=True)
    with pytest.raises(OutputError, match="is a folder"):
        program.save(tmp_path / "out", force=True)


def test_out_is_a_file(tmp_path: Path) -> None:
    source = write_embedded(tmp_path)
    with pytest.raises(OutputError, match="is a file, where a folder is wanted"):
        Program.load(source).save(source, force=True)


@pytest.mark.parametrize("place", ["", "snapshots/abc", "blobs", "snapshots/abc/onnx/out"])
def test_a_hub_cache_is_never_written(tmp_path: Path, place: str) -> None:
    for name in ("blobs", "snapshots/abc/onnx", "refs"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    program = Program.load(write_embedded(tmp_path / "src"))
    with pytest.raises(OutputError, match="cache"):
        program.save(tmp_path / "hub" / place, force=True)
    assert tree(tmp_path / "hub") == {}


def test_a_hostile_index_deletes_nothing(tmp_path: Path) -> None:
    out, program = old_and_new(tmp_path)
    (tmp_path / "precious").write_text("mine")
    index = index_of(out)
    index["files"].append({"name": "../precious", "bytes": 4})
    (out / "program.json").write_text(json.dumps(index))
    with pytest.raises(OutputError):
        program.save(out)
    program.save(out, force=True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_program_without_graphs(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no graph"):
        Program({}).save(tmp_path / "out")


@pytest.mark.parametrize("name", ["a/b", "..", "", "a\0b"])
def test_graph_names_must_be_file_names(tmp_path: Path, name: str) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    program.graphs = {f"{name}": program.graphs["model"]}
    program.artifacts = {name: ""}
    with pytest.raises(OutputError, match="cannot be a file's name"):
        program.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
