"""The stopwatch of a state idiom: how a runtime writes rows of a cache is one row of the table of operators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from .scatter_graphs import scatter_elements, scatter_nd_transposed

SCRIPT = """
import sys
from onnx_llm_passes.ir.core.operators import OPERATORS, Addressing, Grids, Operator
if "{addressing}":  # the recipe's one edit: a row, before anything reads the table
    OPERATORS["toy", "RowWrite"] = Operator(
        dtype=0, writes=Addressing["{addressing}"], slots=1, truth=(0, 2), grids=Grids.ALL
    )
from onnx_llm_passes.cli.app import run
sys.exit(run(sys.argv[1:]))
"""
GRAPHS = {"ELEMENTS": (scatter_elements, "ScatterElements"), "ND": (scatter_nd_transposed, "ScatterND")}


def toy_graph(addressing: str, path: Path) -> Path:
    """A decoder whose caches the operator of another domain writes."""
    build, op_type = GRAPHS[addressing]
    model = build()
    for node in model.graph:
        if node.op_type == op_type:
            node.domain, node.op_type = "toy", "RowWrite"
    model.graph.opset_imports["toy"] = 1
    ir.save(model, path)
    return path


def command(addressing: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in which the table has the row, or has it not."""
    script = SCRIPT.format(addressing=addressing)
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("addressing", GRAPHS)
def test_a_new_operator_that_writes_rows_is_one_row(addressing: str, tmp_path: Path) -> None:
    model = toy_graph(addressing, tmp_path / "toy.onnx")
    shown = command(addressing, "inspect", model, "--json")
    found: dict[str, Any] = json.loads(shown.stdout)["graphs"]["toy"]
    assert {state["layout"] for state in found["states"]} == {"scatter"}, shown.stdout
    roles = {item["name"]: item["role"] for item in found["inputs"]}
    assert roles["position_ids"] == "positions"
    stripped = command(addressing, "run", "strip-states", model, "-o", tmp_path / "out")
    assert stripped.returncode == 0, stripped.stderr
    after = ir.load(next((tmp_path / "out").glob("*.onnx"))).graph
    assert {value.name for value in after.inputs} == {"input_ids", "position_ids"}
    assert not any(node.op_type == "RowWrite" for node in after)


@pytest.mark.parametrize("addressing", GRAPHS)
def test_without_the_row_it_is_refused_by_name_of_the_state(addressing: str, tmp_path: Path) -> None:
    model = toy_graph(addressing, tmp_path / "toy.onnx")
    refused = command("", "run", "strip-states", model, "-o", tmp_path / "out")
    assert refused.returncode == 1, refused.stdout
    assert "cache_" in refused.stderr
    assert not (tmp_path / "out").exists()
