"""The command ``check``, manifests of every form, bind and custom-io on whole programs, and the reranker preset."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.core.specialization import Manifest, Specialization, SpecRole
from onnx_llm_passes.ir.manifests import TARGETS, get_target
from onnx_llm_passes.ir.manifests.deployment import deployment_of
from onnx_llm_passes.ir.manifests.read_any import read_manifest
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.proof import Claims, prove, prove_program
from onnx_llm_passes.passes.check import Check
from onnx_llm_passes.runtime.samples.samples import scatter_decoder

from .append_graphs import append_dynamo
from .cli_tools import Command, sample
from .manifest_tools import SETS, made, real
from .sound_pairs import BY_NAME


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def manifest(folder: Path, entries: object, name: str = "specializations.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"specializations": entries}), encoding="utf-8")
    return path


def test_sound_manifests_exit_0(command: Command, tmp_path: Path) -> None:
    model = sample(tmp_path, "scatter")
    ran = command("check", model, manifest(tmp_path, BY_NAME["scatter"].manifest()), "--run")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "sound"
    assert ran.out.count("ran") == 2


def test_unsound_manifests_exit_1_and_say_why(command: Command, tmp_path: Path) -> None:
    entries = BY_NAME["scatter"].manifest()
    entries[0]["symbols"]["seq_len"] = "64"
    ran = command("check", sample(tmp_path, "scatter"), manifest(tmp_path, entries), "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert (found["sound"], found["target"]) == (False, "qaic")
    (failure,) = found["graphs"][0]["specializations"][0]["failures"]
    assert (failure["item"], failure["specialization"], failure["nearest"]) == ("seq_len", "Prefill", "seq_len = 32")
    assert found["graphs"][0]["specializations"][1]["sound"] is True


def test_a_manifest_that_cannot_be_read_exits_1(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "specializations.json"
    path.write_text("{", encoding="utf-8")
    ran = command("check", sample(tmp_path, "scatter"), path)
    assert ran.code == 1
    assert "JSON" in ran.error


def test_mistakes_of_usage_exit_2(command: Command, tmp_path: Path) -> None:
    model = sample(tmp_path, "scatter")
    assert command("check", model).code == 2
    assert command("check", model, tmp_path / "none.json").code == 2
    assert command("check", tmp_path / "none.onnx").code == 2


def test_a_programs_own_specializations_are_checked(command: Command, tmp_path: Path) -> None:
    assert command("run", SETS, sample(tmp_path, "append"), "-o", tmp_path / "out").code == 0
    assert command("check", tmp_path / "out").code == 0
    index = tmp_path / "out" / "program.json"
    data = json.loads(index.read_text(encoding="utf-8"))
    data["specializations"] = data["specializations"][1:]
    index.write_text(json.dumps(data), encoding="utf-8")
    ran = command("check", tmp_path / "out")
    assert ran.code == 1
    assert "claims a prefill" in ran.out


def test_an_index_that_says_a_thing_twice_is_refused(command: Command, tmp_path: Path) -> None:
    command("run", SETS, sample(tmp_path, "append"), "-o", tmp_path / "out")
    index = tmp_path / "out" / "program.json"
    text = index.read_text(encoding="utf-8").replace('"batch_size": 1', '"batch_size": 1, "batch_size": 1', 1)
    index.write_text(text, encoding="utf-8")
    ran = command("check", tmp_path / "out")
    assert ran.code == 1
    assert "batch_size" in ran.error


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["scatter", "append", "append dynamo"])
def test_what_a_target_writes_is_read_and_sound(name: str, target: str, tmp_path: Path) -> None:
    first = "convert-states{names=retained}," if deployment_of(target).retained and name != "scatter" else ""
    program = made(name, f"{first}{SETS},emit-manifest{{target={target}}}")
    wanted = [spec.binding for spec in Manifest.of(program.specializations).specializations]
    for file, content in program.artifacts.items():
        (tmp_path / file).write_text(content, encoding="utf-8")
    reading = read_manifest(tmp_path / get_target(target).file)
    assert reading.target == target
    assert read_manifest(tmp_path) == reading
    assert len(reading.specializations) == len(wanted)
    (proof,) = prove_program(program, reading.specializations, tolerated=reading.tolerated)
    assert proof.all_failures == []


def test_a_dimension_of_a_profile_that_contradicts_is_named() -> None:
    binding = {"input_ids[0]": 1, "input_ids[1]": 8, "position_ids[0]": 2, "position_ids[1]": 8}
    binding |= {f"past_{kind}.{layer}[{axis}]": size for kind in ("key", "value") for layer in range(2)
                for axis, size in enumerate((1, 2, 32, 8))}  # fmt: skip
    spec = Specialization(name="Prefill", role=SpecRole.PREFILL, binding=binding)
    (failure,) = prove(scatter_decoder(), [spec]).all_failures
    assert failure.item == "position_ids[0]"
    assert failure.nearest == "position_ids[0] = 1"


def test_a_clash_names_the_node_both_shapes_and_the_chain() -> None:
    model = append_dynamo()
    value = next(v for v in model.graph.inputs if v.name == "past_key_values.0.value")
    value.shape = ir_shape(["s10", 2, "s99", value.shape[3]])  # pyright: ignore[reportOptionalSubscript]
    binding = {"s10": 1, "s70": 1, "s43": 1, "s53": 32, "s15": 31, "s99": 30}
    proof = prove(model, [Specialization(name="Decode", role=SpecRole.DECODE, binding=binding)])
    failure = next(f for f in proof.all_failures if f.item == "s99")
    assert failure.node.startswith("MatMul")
    assert failure.nearest == "s99 = 31"
    assert all(" from [" in shape for shape in failure.shapes)
    assert "s15" in str(failure.shapes)
    assert failure.chain[0] == "s99 = 30 at past_key_values.0.value[2] (past)"
    assert "both past" in failure.chain[1]


def ir_shape(dims: list[object]):
    import onnx_ir as ir

    return ir.Shape(dims)  # pyright: ignore[reportArgumentType]


def test_claims_come_from_the_pipeline() -> None:
    program = made("append", "specialize{family=causal-lm prefill=8 ctx=32 k=0,4}")
    assert program.claims == Claims(prefill=True, ks=(0, 4))
    kept = [item for item in Manifest.of(program.specializations).specializations if item.k != 4]
    (proof,) = prove_program(program, kept, claims=program.claims)
    assert [failure.what for failure in proof.failures] == ["the set claims K = 4 and has no decode of 5 tokens"]


def test_custom_io_beside_a_manifest_is_checked(command: Command, tmp_path: Path) -> None:
    model = sample(tmp_path, "scatter")
    path = manifest(tmp_path, BY_NAME["scatter"].manifest())
    (tmp_path / "custom_io.yaml").write_text(" - IOName: past_keys.0\n   Precision: float16\n\n", encoding="utf-8")
    ran = command("check", model, path)
    assert ran.code == 1
    assert "past_keys.0" in ran.out


def test_the_reranker_preset_leaves_four_inputs_and_one_specialization(command: Command, tmp_path: Path) -> None:
    model, out = real("qeff-qwen3vl-kv"), tmp_path / "out"
    assert command("run", "reranker{prefill=128 height=256 width=320}", model, "-o", out).code == 0
    graph = onnx.load(next(out.glob("*.onnx")), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    assert inputs == ["input_ids", "position_ids", "pixel_values", "image_idx"]
    assert not [value.name for value in graph.output if value.name.endswith("_RetainedState")]
    written = json.loads((out / "specializations.json").read_text(encoding="utf-8"))["specializations"]
    assert [entry["name"] for entry in written] == ["Prefill"]
    assert (out / "custom_io.yaml").read_text(encoding="utf-8") == " - IOName: pixel_values\n   Precision: float16\n\n"
    assert command("check", out, "--run").code == 0
    assert command("verify", model, out).code == 0


def test_a_folder_may_stand_for_its_manifest(command: Command, tmp_path: Path) -> None:
    command("run", f"{SETS},emit-manifest{{target=qaic}}", sample(tmp_path, "scatter"), "-o", tmp_path / "out")
    assert command("check", tmp_path / "out", tmp_path / "out").code == 0
    assert command("check", tmp_path / "model.onnx", tmp_path / "out" / "program.json").code == 0


def test_a_binding_of_a_symbol_that_the_graph_does_not_have_is_refused() -> None:
    program = Program({"model": ir.from_onnx_text(UNARY)})
    program.specializations = [Specialization(name="wide", binding={"B": 2, "S": 3, "wide": 4})]
    with pytest.raises(PassRefused, match="the graph has no symbol 'wide'"):
        Check().run(program)


UNARY = '<ir_version: 10, opset_import: ["" : 18]> g (float[B,S] x) => (float[B,S] y) { y = Relu (x) }'
