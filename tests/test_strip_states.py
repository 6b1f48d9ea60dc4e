"""strip-states leaves what it leaves exactly as it was: every idiom, renamed graphs, exported models."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.simplify import Simplify
from onnx_llm_passes.passes.strip_states import Positions, StripStates
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .builders import BUILDERS, OTHERS
from .renaming import rename_everything

MODELS = os.environ.get("ONNX_PASSES_MODELS")
EXACT, CLOSE = 0.0, 2e-6

# Of the models that the project's issues name: what they must do, where the folder has them.
STRIPPED_BIT_EQUAL = (
    "optimum-llama optimum-gpt2 optimum-gemma3 optimum-mistralsw optimum-qwen3 optimum-llama-O2 torch-flat-llama "
    "torch-flat-gemma3 torch-ts-llama torch-ts-qwen2 torch-flat-qwen3-sdpa hf-dyn-llama/decode "
    "hf-dynmulti-qwen3/decode qeff-llama qeff-llama-cb qeff-llama-tlm qeff-gpt2 qeff-gemma2 qeff-qwen3vl-kv"
).split()


def programs(build: Callable[[], ir.Model]) -> tuple[Program, Program]:
    return Program(graphs={"g": build()}), Program(graphs={"g": build()})


@pytest.mark.parametrize("positions", Positions)
@pytest.mark.parametrize("name", BUILDERS)
def test_stripped_and_simplified_computes_the_same(name: str, positions: Positions) -> None:
    original, result = programs(BUILDERS[name])
    PassManager([StripStates(positions=positions), Simplify()]).run(result)
    model = result.graphs["g"]
    states = {"past", "present", "key", "cache", "ctx", "batch_index", "beam", "write"}
    assert not [v.name for v in (*model.graph.inputs, *model.graph.outputs) if any(s in (v.name or "") for s in states)]
    report = verify(original, result, tolerance=CLOSE if positions is Positions.ANY else EXACT)
    assert report.equal, report.first_difference
    assert report.runs > 0


@pytest.mark.parametrize("name", ["append", "append dynamo", "scatter", "scatter batch index", "tensor scatter"])
def test_renamed_graph_gives_the_same_result(name: str) -> None:
    plain, renamed = BUILDERS[name](), BUILDERS[name]()
    names = rename_everything(renamed, random.Random(1))
    for model in (plain, renamed):
        Simplify()(StripStates()(model).model)
    assert [node.op_type for node in renamed.graph] == [node.op_type for node in plain.graph]
    surviving = {names.get(v.name or "") for v in (*plain.graph.inputs, *plain.graph.outputs)}
    assert {v.name for v in (*renamed.graph.inputs, *renamed.graph.outputs)} == surviving


@pytest.mark.parametrize("name", ["baked length", "input only"])
def test_refusal_changes_nothing(name: str) -> None:
    model = OTHERS[name]()
    before = ir.to_onnx_text(model)
    with pytest.raises(PassRefused, match="state"):
        StripStates()(model)
    assert ir.to_onnx_text(model) == before


def test_symbols_that_only_sized_the_cache_are_gone() -> None:
    model = BUILDERS["append"]()
    StripStates()(model)
    dims = {str(d) for v in (*model.graph.inputs, *model.graph.outputs) for d in v.shape or ()}
    assert not [d for d in dims if "past" in d]


def test_surviving_names_are_spelled_as_before() -> None:
    model = BUILDERS["scatter"]()
    before = {n.name for n in model.graph} | {v.name for n in model.graph for v in n.outputs}
    Simplify()(StripStates()(model).model)
    new = [n for n in model.graph if n.name not in before]
    assert all(n.metadata_props.get("pass") in ("strip-states", "simplify") for n in new)


def test_one_token_graph_warns() -> None:
    result = StripStates()(BUILDERS["one token"]())
    assert "one token a run" in " ".join(result.warnings)  # type: ignore[attr-defined]


def exported() -> list[Path]:
    return sorted(Path(MODELS).glob("*/*.onnx")) if MODELS else []


def ids(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def named(path: Path) -> bool:
    return path.parent.name in STRIPPED_BIT_EQUAL or ids(path) in STRIPPED_BIT_EQUAL


def crashes_the_runtime(path: Path) -> bool:
    """genai's Whisper encoder kills onnxruntime itself (its Attention on 1500 rows), so nothing can run it."""
    return any(node.op_type == "Attention" and node.domain for node in ir.load(path).graph)


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
@pytest.mark.parametrize("path", exported(), ids=ids)
def test_exported_model_single_shot(path: Path, tmp_path: Path) -> None:
    original, result = Program.load(path), Program.load(path)
    try:
        PassManager(parse_pipeline("single-shot")).run(result)
    except OnnxPassesError as refusal:
        assert not named(path), refusal
        assert isinstance(refusal, PassRefused)
        assert refusal.hint
        return
    result.save(tmp_path / "out")
    if crashes_the_runtime(path):
        pytest.skip("stripped and saved, but onnxruntime itself crashes on the original's Attention operator")
    report = verify(original, Program.load(tmp_path / "out"))
    assert report.verdict is not Verdict.DIFFERENT, report.first_difference
    assert report.verdict is Verdict.EQUAL or not named(path)


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
@pytest.mark.parametrize("path", [p for p in exported() if p.parent.name.startswith("qeff") and named(p)], ids=ids)
def test_exported_model_any_positions(path: Path) -> None:
    original, result = Program.load(path), Program.load(path)
    PassManager(parse_pipeline("single-shot{positions=any}")).run(result)
    report = verify(original, result, tolerance=CLOSE)
    assert report.equal, report.first_difference


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
def test_stripped_equals_the_export_without_past() -> None:
    with_past, without = (
        Path(MODELS or "") / name / "model.onnx" for name in ("optimum-qwen3", "optimum-qwen3-nopast")
    )
    if not (with_past.exists() and without.exists()):
        pytest.skip("the folder has no model exported both with and without past")
    stripped = Program.load(with_past)
    PassManager(parse_pipeline("single-shot")).run(stripped)
    stripped.graphs = {"model": stripped.graphs.popitem()[1]}
    report = verify(Program.load(without), stripped)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert report.runs >= 10


@pytest.mark.parametrize("truth", ["true", "false"])
@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
def test_merged_decoders_with_a_branch_selected(truth: str, tmp_path: Path) -> None:
    merged = [path for path in exported() if path.stem.endswith("_merged")]
    if not merged:
        pytest.skip("the folder has no decoder with its two forms merged")
    for path in merged:
        result = Program.load(path)
        pipeline = f"select-branch{{input=use_cache_branch value={truth}}},single-shot{{kinds=key,value}}"
        PassManager(parse_pipeline(pipeline)).run(result)
        result.save(tmp_path / path.parent.name)
        report = verify(Program.load(path), Program.load(tmp_path / path.parent.name))
        assert report.verdict is Verdict.EQUAL, report.first_difference
