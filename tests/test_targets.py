"""A target of one file and one row: it is written, recognised by its content, read, and proved like ours."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onnx_llm_passes.ir.core.specialization import ManifestInvalid, Specialization
from onnx_llm_passes.ir.manifests import TARGETS, Command, GraphInterface, Target, get_target
from onnx_llm_passes.ir.manifests.read_any import read_manifest

from .cli_tools import Command as Shell
from .cli_tools import sample
from .manifest_tools import SETS, emitted


@dataclass(frozen=True)
class CoreML:
    """Shapes that a converter enumerates: input -> one shape a specialization."""

    name: str = "coreml"
    tolerated: frozenset[str] = frozenset()
    file: str = "coreml_shapes.json"

    def matches(self, data: object) -> bool:
        """An object with ``shapes``."""
        return isinstance(data, dict) and set(data) == {"shapes"}

    def write(self, interface: GraphInterface) -> dict[str, str]:
        """One file."""
        shapes = {p.name: [p.sizes(item.binding) for item in interface.specializations] for p in interface.inputs}
        return {interface.file(self.file): json.dumps({"shapes": shapes})}

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """Symbols ``input[axis]``, as the file knows no others."""
        shapes: dict[str, list[list[int]]] = json.loads(text)["shapes"]
        count = len(next(iter(shapes.values())))
        bindings = (
            {f"{name}[{axis}]": size for name, rows in shapes.items() for axis, size in enumerate(rows[index])}
            for index in range(count)
        )
        return [Specialization(name=f"shape_{index}", binding=binding) for index, binding in enumerate(bindings)]

    def commands(self, interface: GraphInterface) -> list[Command]:
        """One call."""
        return [Command("coremlcompiler", (f"{interface.graph}.onnx", interface.file(self.file)))]


@pytest.fixture(autouse=True)
def coreml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, as if it lay in the room, and the row."""
    module: Any = types.ModuleType("onnx_llm_passes.ir.manifests.coreml")
    module.TARGET = CoreML()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(TARGETS, "coreml", "coreml")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_check_recognises_the_file_of_a_new_target(command: Shell, tmp_path: Path) -> None:
    model, out = sample(tmp_path, "scatter"), tmp_path / "out"
    assert command("run", f"{SETS},emit-manifest{{target=coreml}}", model, "-o", out).code == 0
    (tmp_path / "prefill.coreml_shapes.json").write_bytes((out / "coreml_shapes.json").read_bytes())
    ran = command("check", model, tmp_path / "prefill.coreml_shapes.json", "--json")
    assert ran.code == 0, ran.error
    found = json.loads(ran.out)
    assert (found["target"], found["sound"], len(found["graphs"][0]["specializations"])) == ("coreml", True, 2)
    assert read_manifest(out).target == "coreml"


def test_a_shape_that_contradicts_is_refused_as_with_our_targets(command: Shell, tmp_path: Path) -> None:
    text = emitted("scatter", "coreml").artifacts["coreml_shapes.json"]
    data = json.loads(text)
    data["shapes"]["position_ids"][0][1] += 1
    (tmp_path / "shapes.json").write_text(json.dumps(data), encoding="utf-8")
    ran = command("check", sample(tmp_path, "scatter"), tmp_path / "shapes.json")
    assert ran.code == 1
    assert "position_ids[1]" in ran.out


def test_each_target_recognises_its_own_files_alone() -> None:
    for graph in ("append", "scatter"):
        for name in TARGETS:
            target = get_target(name)
            data = _parsed(target, emitted(graph, name).artifacts[target.file])
            assert [other for other in TARGETS if get_target(other).matches(data)] == [name]


@pytest.mark.parametrize("data", [None, 1, "a", [], {}, {"specializations": 1}, {"specializations": [1]}, {"a": 1}])
def test_no_target_recognises_what_is_no_manifest(data: object, tmp_path: Path) -> None:
    assert [name for name in TARGETS if get_target(name).matches(data)] == []
    (tmp_path / "file.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ManifestInvalid, match=r"no target's manifest.*coreml_shapes.json \(coreml\)"):
        read_manifest(tmp_path / "file.json")


def _parsed(target: Target, text: str) -> object:
    from onnx_llm_passes.ir.manifests.strict import load_json, load_yaml

    return (load_yaml if target.file.endswith("yaml") else load_json)(text, where="")
