"""A decoder in parts: the parts run one after the other give what the whole gives, bit for bit, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UsageError
from onnx_llm_passes.ir.program.contracts.sizes import SplitInto
from onnx_llm_passes.ir.program.joined import joined
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.specialize.budget import bytes_of, grouped
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.decoder import Decoder
from onnx_llm_passes.runtime.decode.generate import plain
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .builders import BUILDERS
from .manifest_tools import real

REAL = (
    "genai-llama-fp32-cpu/model.onnx", "genai-qwen3-int4-cpu/model.onnx", "genai-mistralsw-fp32-cpu/model.onnx",
    "hf-dyn-llama/decode.onnx", "optimum-gpt2/model.onnx", "optimum-gemma3/model.onnx", "optimum-qwen3/model.onnx",
    "qeff-llama/LlamaForCausalLM.onnx", "qeff-gpt2/GPT2LMHeadModel.onnx", "qeff-gemma2/Gemma2ForCausalLM.onnx",
    "torch-flat-llama/model.onnx", "torch-ts-qwen2/model.onnx",
)  # fmt: skip


def run(pipeline: str, program: Program | None = None) -> Program:
    return PassManager(parse_pipeline(pipeline)).run(program or Program({"model": append_decoder()}))


def saved(program: Program, folder: Path) -> Program:
    program.save(folder, weights="copy")
    return Program.load(folder)


@pytest.mark.parametrize("how", ["parts=1", "parts=2", "layers=1", "bytes=50kB", "layers=1 weights=shared"])
@pytest.mark.parametrize("name", ["append", "scatter"])
def test_the_parts_give_what_the_whole_gives(name: str, how: str, tmp_path: Path) -> None:
    result = saved(run(f"split{{{how}}}", Program({"model": BUILDERS[name]()})), tmp_path / "p")
    assert result.names[0] == "embed" and result.names[-1] == "head"
    report = verify(Program({"model": BUILDERS[name]()}), result)
    assert report.verdict is Verdict.EQUAL and report.max_abs == 0, report.first_difference
    assert [case for case in report.cases if case.case == "part by part" and case.ran]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("parts=2", ["embed", "layers_0_0", "layers_1_1", "head"]),
        ("layers=5", ["embed", "layers_0_1", "head"]),
        ("parts=2 embedding=false", ["layers_0_0", "layers_1_1", "head"]),
        ("parts=1 embedding=false head=false", ["layers_0_1"]),
        ("parts=2 head=false", ["embed", "layers_0_0", "layers_1_1"]),
    ],
)
def test_parts_are_named_after_what_they_hold(options: str, names: list[str]) -> None:
    program = run(f"split{{{options}}}")
    assert program.names == names
    (chain,) = (link for link in program.contracts if isinstance(link, SplitInto))
    assert chain.parts == tuple(names) and chain.graph == "model"
    assert verify(Program({"model": append_decoder()}), program).equal


def test_each_part_takes_its_own_states_alone() -> None:
    program = run("split{layers=1}")
    for layer in (0, 1):
        model = program.graphs[f"layers_{layer}_{layer}"]
        pasts = {v.name for v in model.graph.inputs if "past_key_values" in (v.name or "")}
        assert pasts == {f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"}
        assert {v.name for v in model.graph.outputs} >= {f"present.{layer}.key", f"present.{layer}.value"}
    assert [v.name for v in program.graphs["head"].graph.outputs] == ["logits"]


def test_own_weight_files_hold_what_their_part_needs(tmp_path: Path) -> None:
    big = run("split{bytes=40kB}")
    big.save(tmp_path / "p", weights="copy")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "p").glob("*.data")}
    assert max(sizes.values()) <= 40_000 and len(sizes) == len(big.names)
    for name in big.names:
        content = onnx.load(tmp_path / "p" / f"{name}.onnx", load_external_data=False)
        places = {e.value for i in content.graph.initializer for e in i.external_data if e.key == "location"}
        assert places <= {f"{name}.data"}


def test_shared_weights_are_one_file(tmp_path: Path) -> None:
    run("split{layers=1 weights=shared}").save(tmp_path / "p")
    assert [path.name for path in (tmp_path / "p").glob("*.data")] == ["weights.data"]


def test_specializations_and_manifests_go_with_their_parts(tmp_path: Path) -> None:
    whole = run("speculative{k=0,2 prefill=8 ctx=32}")
    program = run("split{parts=2},emit-manifest{target=qaic}", whole)
    written = {name: text for name, text in program.artifacts.items() if name.endswith("specializations.json")}
    symbols = {name: json.loads(text) for name, text in written.items()}
    entries: dict[str, Any] = symbols["layers_0_0.specializations.json"]
    assert [entry["name"] for entry in entries["specializations"]] == ["Prefill", "Decode_0", "Decode_1"]
    assert "ctx_len" not in symbols["embed.specializations.json"]["specializations"][0]["symbols"]
    result = saved(program, tmp_path / "p")
    report = verify(Program({"model": append_decoder()}), result)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert {case.claim for case in report.cases if case.ran} >= {"Prefill", "Decode_0", "Decode_1"}
    prompt = np.random.default_rng(1).integers(0, 60, 9).tolist()
    expected = plain(Decoder(Program({"model": append_decoder()}), ctx=32), prompt, 10)
    assert plain(Decoder(result), prompt, 10) == expected


def test_clones_are_split_with_shared_nodes_and_weight_files(tmp_path: Path) -> None:
    program = run("clone-decode{k=0,2 prefill=8 ctx=32},split{parts=2}")
    assert program.names[:4] == ["prefill_embed", "prefill_layers_0_0", "prefill_layers_1_1", "prefill_head"]
    result = saved(program, tmp_path / "p")
    files = {path.name for path in (tmp_path / "p").glob("*.data")}
    assert files == {"embed.data", "layers_0_0.data", "layers_1_1.data", "head.data"}
    assert verify(Program({"model": append_decoder()}), result).equal


def test_a_part_that_changed_is_told(tmp_path: Path) -> None:
    result = saved(run("split{parts=2}"), tmp_path / "p")
    weights = result.graphs["layers_1_1"].graph.initializers
    name = next(
        name for name, value in weights.items() if value.const_value is not None and value.const_value.size > 99
    )
    tensor = weights[name].const_value
    assert tensor is not None
    weights[name].const_value = ir.tensor(tensor.numpy() * np.float32(1.01))
    assert verify(Program({"model": append_decoder()}), result).verdict is Verdict.DIFFERENT


def looking_back() -> ir.Model:
    """A decoder whose second layer adds what the first one's past holds."""
    model = append_decoder()
    past = next(value for value in model.graph.inputs if value.name == "past_key_values.0.key")
    tail = next(n for n in model.graph if n.op_type == "Add" and "layers.1/mlp" in (n.name or ""))
    node = ir.Node("", "ReduceSum", [past], {"keepdims": ir.AttrInt64("keepdims", 0)}, name="/model/layers.1/past")
    more = ir.Node("", "Add", [tail.inputs[0], node.outputs[0]], name="/model/layers.1/more")
    for made in (node, more):
        made.outputs[0].name, made.outputs[0].type = f"{made.name}_output", ir.TensorType(ir.DataType.FLOAT)
        model.graph.insert_before(tail, made)
    tail.replace_input_with(0, more.outputs[0])
    return model


def test_rows_of_another_parts_past_are_refused_or_carried() -> None:
    with pytest.raises(PassRefused, match=r"'layers_1_1' needs what 'layers_0_0' has.*carry=true"):
        run("split{parts=2}", Program({"model": looking_back()}))
    carried = run("split{parts=2 carry=true}", Program({"model": looking_back()}))
    assert "past_key_values.0.key" in {v.name for v in carried.graphs["layers_1_1"].graph.inputs}
    report = verify(Program({"model": looking_back()}), carried)
    assert report.verdict is Verdict.EQUAL and report.max_abs == 0, report.first_difference


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        ("", UsageError, "one of parts, layers and bytes"),
        ("parts=2 bytes=2GB", UsageError, "one of parts, layers and bytes"),
        ("parts=0", UsageError, "too small"),
        ("bytes=lots", UsageError, "is no size"),
        ("parts=3", PassRefused, r"fewer layers than parts.*parts=2"),
        ("bytes=20kB", PassRefused, r"layer 0 does not fit the budget.*Give bytes=\d+ or more"),
        ("bytes=10kB", PassRefused, "the embedding does not fit the budget"),
    ],
)
def test_what_cannot_be_split_so_is_refused(options: str, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        run(f"split{{{options}}}")


def test_the_size_that_a_refusal_names_is_enough() -> None:
    with pytest.raises(PassRefused) as refused:
        run("split{bytes=20kB}")
    size = int(str(refused.value).split("bytes=")[1].split(" ")[0])
    assert len(run(f"split{{bytes={size}}}").names) == 4


def test_sizes_are_read_as_people_write_them() -> None:
    sizes = {"2GB": 2 * 10**9, "1.5kB": 1500, "1GiB": 2**30, "77": 77, "3M": 3 * 10**6}
    assert {text: bytes_of(text, where="") for text in sizes} == sizes


def test_groups_are_as_few_as_there_can_be() -> None:
    weights = [3, 3, 1, 5, 2, 2]
    groups = grouped(range(6), lambda at: sum(weights[i] for i in at), 6, lambda at, size: ValueError(at))  # type: ignore[arg-type]
    assert [list(group) for group in groups] == [[0, 1], [2, 3], [4, 5]]


def test_joined_is_the_program_itself_where_nothing_was_split() -> None:
    program = Program({"model": append_decoder()})
    assert joined(program) is program


@pytest.mark.parametrize("name", REAL)
def test_exported_decoders_are_equal_in_parts(name: str, tmp_path: Path) -> None:
    source = real(name.split("/", maxsplit=1)[0]) / name.split("/")[1]
    if not source.exists():
        pytest.skip("ONNX_PASSES_MODELS holds no such export")
    result = saved(run("split{layers=1}", Program.load(source)), tmp_path / "p")
    report = verify(Program.load(source), result)
    assert report.verdict is Verdict.EQUAL and report.max_abs == 0, report.first_difference
