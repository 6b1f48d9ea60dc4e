"""Loading through links and from folders, and that no byte of the weights is read."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_llm_passes.ir.core.gc_off import collector_off
from onnx_llm_passes.ir.program.program import Program

from .weight_models import chain, expected, external, refused, run, saved, write_embedded, write_external

# links -------------------------------------------------------------------------------------------


def test_link_out_of_the_folder_needs_follow_links(tmp_path: Path) -> None:
    path = write_external(tmp_path / "m")
    (tmp_path / "m/model.onnx.data").rename(tmp_path / "elsewhere.data")
    (tmp_path / "m/model.onnx.data").symlink_to("../elsewhere.data")
    refused(path, "link", "outside the model's folder", "--follow-links")
    Program.load(path, follow_links=True).save(tmp_path / "out")
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), expected())


def test_folder_link_out_of_the_folder_is_a_link_too(tmp_path: Path) -> None:
    path = write_external(tmp_path / "m", data="sub/w.data")
    (tmp_path / "m/sub").rename(tmp_path / "elsewhere")
    (tmp_path / "m/sub").symlink_to("../elsewhere")
    refused(path, "outside the model's folder")


def test_a_hard_link_out_of_the_folder_is_a_link_too(tmp_path: Path) -> None:
    path = write_external(tmp_path / "m")
    data, elsewhere = tmp_path / "m/model.onnx.data", tmp_path / "elsewhere.data"
    data.rename(elsewhere)
    os.link(elsewhere, data)
    refused(path, "model.onnx.data", "hard link", "outside the model's folder", "2 names, 1 of them inside")
    Program.load(path, follow_links=True).save(tmp_path / "out")
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), expected())
    elsewhere.rename(tmp_path / "m/second.data")
    Program.load(path)


def test_a_model_file_that_is_a_hard_link_to_outside_is_refused(tmp_path: Path) -> None:
    path = write_embedded(tmp_path / "m")
    os.link(path, tmp_path / "elsewhere.onnx")
    refused(path, "model.onnx", "hard link", "outside the model's folder", "2 names, 1 of them inside")
    assert Program.load(path, follow_links=True).graphs
    (tmp_path / "elsewhere.onnx").rename(tmp_path / "m" / "second.onnx")
    assert Program.load(path).graphs


def test_dangling_link(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "model.onnx.data").unlink()
    (tmp_path / "model.onnx.data").symlink_to("nothing")
    refused(path, "is missing")
    (tmp_path / "n.onnx").symlink_to("nothing")
    refused(tmp_path / "n.onnx", "link to a file that does not exist")


def test_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "model.onnx.data").rename(tmp_path / "store/data")
    (tmp_path / "model.onnx.data").symlink_to("store/data")
    Program.load(path).save(tmp_path / "out")
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), expected())


def hub(root: Path) -> Path:
    """A model hub's cache with a model in it; returns the model's path in the snapshot."""
    write_external(root / "plain", count=2)
    blobs, snapshot = root / "models--a--b/blobs", root / "models--a--b/snapshots/abc/onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("model.onnx", "model.onnx.data"):
        (root / "plain" / name).rename(blobs / f"sha-{name}")
        (snapshot / name).symlink_to(f"../../../blobs/sha-{name}")
    return snapshot / "model.onnx"


def test_hub_cache_is_followed(tmp_path: Path) -> None:
    path = hub(tmp_path)
    done = Program.load(path).save(tmp_path / "out")
    assert sorted(p.name for p in done.files) == ["model.onnx", "model.onnx.data", "program.json"]
    np.testing.assert_array_equal(run(tmp_path / "out/model.onnx"), expected())
    assert not (tmp_path / "out/model.onnx.data").is_symlink()


def test_hub_cache_through_a_linked_folder(tmp_path: Path) -> None:
    path = hub(tmp_path)
    (tmp_path / "alias").symlink_to(path.parent)
    assert Program.load(tmp_path / "alias").graphs.keys() == {"model"}


def test_hub_link_to_another_place_is_refused(tmp_path: Path) -> None:
    path = hub(tmp_path)
    data = path.with_name("model.onnx.data")
    data.resolve().rename(tmp_path / "elsewhere")
    data.unlink()
    data.symlink_to(tmp_path / "elsewhere")
    refused(path, "outside the model's folder")


def test_model_file_that_is_a_link_elsewhere(tmp_path: Path) -> None:
    path = write_embedded(tmp_path / "m")
    (tmp_path / "n").mkdir()
    (tmp_path / "n/model.onnx").symlink_to(path)
    refused(tmp_path / "n/model.onnx", "link", "--follow-links")
    assert Program.load(tmp_path / "n/model.onnx", follow_links=True).graphs


# folders -----------------------------------------------------------------------------------------


def test_folder_with_one_model(tmp_path: Path) -> None:
    write_embedded(tmp_path, "only.onnx")
    assert Program.load(tmp_path).graphs.keys() == {"only"}


def test_folder_with_several_models_names_them(tmp_path: Path) -> None:
    write_embedded(tmp_path, "a.onnx")
    write_embedded(tmp_path, "b.onnx")
    refused(tmp_path, "a.onnx, b.onnx")


def test_folder_without_models(tmp_path: Path) -> None:
    refused(tmp_path, "holds no .onnx file")


GRAPH = '{"name": "m", "file": "m.onnx", "sha256": "", "nodes": 1}'
INDEX = '{"format": "onnx-llm-passes/program", "graphs": [GRAPHS]}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "another", "graphs": []}',
        '{"format": "onnx-llm-passes/program", "schema_version": 99, "graphs": []}',
        "[" * 100000,
        INDEX.replace("GRAPHS", f"{GRAPH}, {GRAPH}"),
        INDEX.replace("GRAPHS", GRAPH.replace("m.onnx", "../m.onnx")),
    ],
)
def test_hostile_index(tmp_path: Path, text: str) -> None:
    write_embedded(tmp_path, "m.onnx")
    (tmp_path / "program.json").write_text(text)
    refused(tmp_path, "program.json")


def test_index_that_does_not_match_says_so(tmp_path: Path) -> None:
    Program.load(write_embedded(tmp_path / "src")).save(tmp_path / "out")
    model = onnx.load(tmp_path / "out/model.onnx", load_external_data=False)
    model.graph.node[0].name = "ADD0"  # as long as before
    (tmp_path / "out/model.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "out", "is not the file that program.json describes")
    (tmp_path / "out/weights.data").write_bytes(b"short")
    refused(tmp_path / "out", "weights.data", "missing or was changed")


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    refused(tmp_path / ("n" * 300), "cannot be read")
    refused(tmp_path / "a\0b", "cannot be read")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "cannot be read")


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_left_as_it_was(on: bool) -> None:
    was = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with pytest.raises(KeyError), collector_off(), collector_off():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()


# weights stay where they are -----------------------------------------------------------------------


def bytes_read() -> int:
    """Bytes this process has asked the system to read."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count reads")
def test_no_byte_of_the_weights_is_read(tmp_path: Path) -> None:
    Program.load(write_external(tmp_path / "warm")).save(tmp_path / "warm-out")  # imports read files
    width = 2**32
    path = saved(tmp_path, chain([external("w", width, location="w.data", length=4 * width)]), 4 * width)
    before, resident = bytes_read(), resident_bytes()
    done = Program.load(path).save(tmp_path, force=True)
    assert done.referred == 16 * 2**30
    assert bytes_read() - before < 200_000
    assert resident_bytes() - resident < 50 * 2**20


def resident_bytes() -> int:
    """Memory of this process, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
