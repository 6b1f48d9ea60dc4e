"""Digests: the same for the same program wherever it lies and however its options were spelled, another for another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.specialization import Specialization
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.serialization.digest import (
    CACHE,
    digest_file,
    digest_graph,
    digest_manifest,
    digest_program,
    digest_sizes,
)

from .builders import BUILDERS
from .cli_tools import sample


def test_a_graph_has_one_digest_and_another_graph_another() -> None:
    digests = {name: digest_graph(ir.to_proto(build())) for name, build in BUILDERS.items()}
    assert len(set(digests.values())) == len(digests)
    assert digests == {name: digest_graph(ir.to_proto(build())) for name, build in BUILDERS.items()}


def rename(model: ir.Model) -> None:
    next(iter(model.graph)).outputs[0].name = "another"


def retype(model: ir.Model) -> None:
    model.graph.inputs[0].shape = ir.Shape([7] * len(model.graph.inputs[0].shape or ()))


def drop(model: ir.Model) -> None:
    model.graph.outputs.pop()


def set_attribute(model: ir.Model) -> None:
    next(iter(model.graph)).attributes.add(ir.AttrInt64("marked", 1))


@pytest.mark.parametrize("change", [rename, retype, drop, set_attribute])
def test_a_change_of_structure_shows(change: Any) -> None:
    model = BUILDERS["append"]()
    before = digest_graph(ir.to_proto(model))
    change(model)
    assert digest_graph(ir.to_proto(model)) != before


def test_metadata_does_not_show() -> None:
    model = BUILDERS["append"]()
    before = digest_graph(ir.to_proto(model))
    next(iter(model.graph)).metadata_props["pass"] = "x"
    model.metadata_props["y"] = "z"
    assert digest_graph(ir.to_proto(model)) == before


def test_a_manifest_is_its_sizes_in_any_spelling_and_order() -> None:
    one = [{"name": "a", "symbols": {"x": 1, "y": "2"}}, {"name": "b", "symbols": {"x": 3}}]
    other = [{"symbols": {"x": "3"}, "name": "b"}, {"symbols": {"y": 2, "x": "1"}, "name": "a"}]
    assert digest_manifest(one, {"p": "f", "q": "g"}) == digest_manifest(other, {"q": "g", "p": "f"})
    assert digest_manifest(one) != digest_manifest(one, {"p": "f"})
    assert digest_manifest(one) != digest_manifest(one[:1])


def test_the_whole_knows_each_part_and_no_order() -> None:
    whole = digest_program(["a", "b"], "w", "m")
    assert whole == digest_program(["b", "a"], "w", "m")
    others = [
        digest_program(["a", "c"], "w", "m"),
        digest_program(["a", "b"], "v", "m"),
        digest_program(["a", "b"], "w", "n"),
    ]
    assert len({whole, *others}) == 4
    assert digest_sizes([1, 2]) == digest_sizes([2, 1]) != digest_sizes([1, 3])


def test_a_files_digest_is_its_content_and_kept_beside_it(tmp_path: Path) -> None:
    path, twin = tmp_path / "w", tmp_path / "v"
    path.write_bytes(b"abc")
    twin.write_bytes(b"abc")
    assert digest_file(path) == digest_file(twin)
    beside = tmp_path / f"w{CACHE}"
    assert not beside.exists()
    first = digest_file(path, cache=True)
    assert beside.read_text() == f"{first} 3\n"
    path.write_bytes(b"abd")
    assert digest_file(path, cache=True) == first  # kept while the size is the same, as documented
    path.write_bytes(b"abde")
    assert digest_file(path, cache=True) == digest_file(path) != first


@pytest.mark.parametrize("text", ["", "x 3", "0" * 64, "0" * 64 + " 4", "g" * 64 + " 3", "é"])
def test_a_damaged_digest_beside_a_file_is_not_believed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    (tmp_path / f"w{CACHE}").write_text(text, encoding="utf-8")
    assert digest_file(path, cache=True) == digest_file(path)


def saved_digest(source: Path, out: Path) -> dict[str, Any]:
    Program.load(source).save(out)
    return json.loads((out / "program.json").read_text())["digest"]


def test_a_program_moved_elsewhere_keeps_its_digest(tmp_path: Path) -> None:
    source = sample(tmp_path / "a")
    moved = tmp_path / "b" / "renamed"
    shutil.copytree(source.parent, moved)
    (moved / source.name).rename(moved / "other.onnx")
    assert saved_digest(source, tmp_path / "x") == saved_digest(moved / "other.onnx", tmp_path / "y" / "z")


def test_a_saved_program_shows_its_manifest_in_its_digest(tmp_path: Path) -> None:
    source = sample(tmp_path / "a")
    before = saved_digest(source, tmp_path / "x")
    program = Program.load(source)
    program.specializations = [Specialization(name="a", binding={"x": 1})]
    program.save(tmp_path / "y")
    after = json.loads((tmp_path / "y/program.json").read_text())["digest"]
    assert before["graphs"] == after["graphs"] and before["weights"] == after["weights"]
    assert before["manifest"] != after["manifest"] and before["program"] != after["program"]


def test_a_saved_program_saved_again_keeps_its_digest(tmp_path: Path) -> None:
    """Weights that move out of the graph are weights before as after."""
    source = sample(tmp_path / "a")
    first = saved_digest(source, tmp_path / "x")
    assert saved_digest(tmp_path / "x", tmp_path / "y")["graphs"] == first["graphs"]
