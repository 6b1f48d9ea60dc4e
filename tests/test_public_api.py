"""The public names: sorted, complete, each the thing its home module defines, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import onnx_llm_passes
from onnx_llm_passes.passes.registry import PASSES


def test_all_is_sorted_and_names_nothing_twice() -> None:
    assert list(onnx_llm_passes.__all__) == sorted(set(onnx_llm_passes.__all__))


@pytest.mark.parametrize("name", onnx_llm_passes.__all__)
def test_every_public_name_loads(name: str) -> None:
    thing = getattr(onnx_llm_passes, name)
    assert thing.__name__ == name
    assert thing.__module__.startswith("onnx_llm_passes.")
    assert thing.__doc__


@pytest.mark.parametrize("target", PASSES.values())
def test_every_pass_of_ours_is_public(target: str) -> None:
    assert target.partition(":")[2] in onnx_llm_passes.__all__


def test_a_row_of_the_registry_is_all_that_a_public_name_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("onnx_llm_passes.passes.another")
    monkeypatch.setattr(module, "Another", type("Another", (), {}), raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(PASSES, "another", "another:Another")
    assert "Another" in dir(onnx_llm_passes)
    assert onnx_llm_passes.Another.__name__ == "Another"
    del onnx_llm_passes.Another


def test_type_checkers_read_the_same_names(generator: types.ModuleType, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        generator.STUB.write_text(generator.stub(), encoding="utf-8")
    assert generator.STUB.read_text("utf-8") == generator.stub(), "pytest --update-golden tests/test_public_api.py"


def test_a_star_import_gives_the_public_names() -> None:
    space: dict[str, object] = {}
    exec("from onnx_llm_passes import *", space)  # noqa: S102
    assert set(onnx_llm_passes.__all__) <= set(space)


def test_nothing_but_the_public_names_and_modules_is_seen() -> None:
    assert dir(onnx_llm_passes) == sorted(onnx_llm_passes.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Frobnicate'"):
        _ = onnx_llm_passes.Frobnicate


def modules_after(code: str) -> set[str]:
    """The modules loaded in a fresh interpreter that ran ``code``."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import onnx_llm_passes", {"onnx", "onnx_ir", "numpy", "onnxruntime", "onnxscript", "onnx_graphsurgeon"}),
        (
            "from onnx_llm_passes.passes.registry import list_passes; list_passes()",
            {"onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnx_graphsurgeon"},
        ),
        (
            "from onnx_llm_passes import parse_pipeline; parse_pipeline('ir-checker,rename-io')",
            {"onnxruntime", "onnxscript", "onnx_graphsurgeon"},
        ),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str, unwanted: set[str]) -> None:
    assert modules_after(code) & unwanted == set()
