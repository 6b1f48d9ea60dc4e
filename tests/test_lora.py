"""lora's options, refusals and files, and how it goes with clones; numbers on exporters' models stand beside."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.lora import Lora, Mode
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import verify

from .adapter_tools import PREFIX, Tensors, matrices, write_peft, write_safetensors
from .renaming import rename_everything

MODULES = {
    f"model.layers.{layer}.{name}": widths
    for layer in range(2)
    for name, widths in (("self_attn.q_proj", (32, 32)), ("self_attn.v_proj", (32, 16)))
}


def program(build: Callable[[], ir.Model] = append_decoder) -> Program:
    return Program({"model": build()})


def changed(pipeline: str, build: Callable[[], ir.Model] = append_decoder) -> Program:
    return PassManager(parse_pipeline(pipeline)).run(program(build))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_peft(tmp_path / "one", matrices(MODULES))


@pytest.mark.parametrize(
    ("mode", "build"),
    [(Mode.INPUTS, append_decoder), (Mode.SLOTS, scatter_decoder), (Mode.FOLD, append_decoder)],
)
def test_verify_proves_each_mode(mode: Mode, build: Callable[[], ir.Model], adapter: Path) -> None:
    other = write_peft(adapter.parent / "two", matrices(MODULES, rank=4, seed=5), use_rslora=True)
    result = changed(f"lora{{mode={mode.value} adapters={adapter},{other}}}", build)
    report = verify(program(build), result)
    assert report.equal, report.first_difference
    titles = {case.case.rpartition(", ")[2] for case in report.cases}
    assert mode is not Mode.INPUTS or "random adapters" in titles
    assert mode is not Mode.SLOTS or {"adapter one", "adapter two"} <= titles


@pytest.mark.parametrize("mode", list(Mode))
def test_verify_sees_an_adapter_that_is_another(mode: Mode, adapter: Path) -> None:
    """A weight of the low-rank path, of a stack, or of a folded product is not what the contract says."""
    result = changed(f"lora{{mode={mode.value} adapters={adapter}}}")
    graph = result.graphs["model"].graph
    if mode is Mode.INPUTS:
        node = next(node for node in graph if node.op_type == "Add" and (node.name or "").startswith("lora/"))
        node.replace_input_with(1, node.inputs[0])
    else:
        value = next(
            v for n, v in graph.initializers.items() if ("lora_B" in n if mode is Mode.SLOTS else "q_proj" in n)
        )
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)
    assert not verify(program(), result).equal


@pytest.mark.parametrize("mode", ["inputs", *(pytest.param(m, marks=pytest.mark.slow) for m in ("slots", "fold"))])
def test_clones_take_part(mode: str, adapter: Path) -> None:
    pipeline = (
        f"lora{{mode={mode} adapters={adapter}}},speculative{{k=0,2 prefill=8 ctx=32 bind=lora_rank:6 form=graphs}}"
    )
    result = changed(pipeline if mode == "inputs" else pipeline.replace(" bind=lora_rank:6", ""))
    assert sorted(result.names) == ["decode_k0", "decode_k2", "prefill"]
    if mode == "inputs":
        shapes = {str(value.shape) for value in result.graph("decode_k2").graph.inputs if "lora" in (value.name or "")}
        assert shapes == {"[32,6]", "[6,32]", "[6,16]"}
    report = verify(program(), result)
    assert report.equal, report.first_difference


def test_an_unbound_rank_is_named() -> None:
    with pytest.raises(OnnxPassesError, match="lora_rank"):
        changed("lora,speculative{k=0 prefill=8 ctx=32}")


def test_projections_are_found_without_names() -> None:
    renamed = append_decoder()
    rename_everything(renamed, random.Random(3))
    before, after = (
        PassManager([Lora(targets=tuple("qkvo"), rank=2)]).run(Program({"m": m})) for m in (append_decoder(), renamed)
    )
    shapes = [
        [(v.name, str(v.shape)) for v in p.graphs["m"].graph.inputs if "lora" in (v.name or "")]
        for p in (before, after)
    ]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 16


def test_the_adapter_is_written_as_onnxruntime_reads_it(adapter: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    changed(f"lora{{adapters={adapter}}}").save(tmp_path / "out")
    read = onnxruntime.AdapterFormat.read_adapter(str(tmp_path / "out" / "one.onnx_adapter")).get_parameters()
    made = matrices(MODULES)
    assert len(read) == 8
    for name, value in read.items():
        stored = made[PREFIX + name].T
        assert np.array_equal(value.numpy(), stored * np.float32(2) if "lora_B" in name else stored)
    again = changed(f"lora{{mode=fold adapters={tmp_path / 'out' / 'one.onnx_adapter'}}}")
    first = changed(f"lora{{mode=fold adapters={adapter}}}")
    for name, value in first.graphs["model"].graph.initializers.items():
        assert np.array_equal(
            value.const_value.numpy(), again.graphs["model"].graph.initializers[name].const_value.numpy()
        )  # pyright: ignore[reportOptionalMemberAccess]


def test_ranks_are_filled_up_where_one_is_given(adapter: Path, tmp_path: Path) -> None:
    wide = write_peft(tmp_path / "wide", matrices(MODULES, rank=6, seed=2), rank=6)
    with pytest.raises(OnnxPassesError, match=r"ranks differ.*one: 4, wide: 6.*rank=6"):
        changed(f"lora{{mode=slots adapters={adapter},{wide}}}")
    with pytest.raises(OnnxPassesError, match=r"larger rank.*wide: 6.*wanted 5"):
        changed(f"lora{{mode=slots rank=5 adapters={adapter},{wide}}}")
    result = changed(f"lora{{mode=slots rank=6 adapters={adapter},{wide}}}")
    report = verify(program(), result)
    assert report.equal, report.first_difference


def _nan(tensors: Tensors) -> None:
    tensors[f"{PREFIX}model.layers.1.self_attn.v_proj.lora_B.weight"][3, 1] = np.nan


def _alone(tensors: Tensors) -> None:
    del tensors[f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"]


def _ranks(tensors: Tensors) -> None:
    tensors[f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"] = np.zeros((3, 32), np.float32)


def _dora(tensors: Tensors) -> None:
    tensors[f"{PREFIX}model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = np.zeros(32, np.float32)


def _integers(tensors: Tensors) -> None:
    tensors[f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"] = np.zeros((4, 32), np.int32)


BROKEN: dict[str, tuple[Callable[[Tensors], object], dict[str, object], str]] = {
    "NaN": (_nan, {}, r"v_proj.lora_B.weight'.*not finite.*nan at \[3, 1\]"),
    "half": (_alone, {}, r"q_proj': has .lora_B alone"),
    "ranks": (_ranks, {}, r"ranks of the two halves differ.*3 in lora_A, 4 in lora_B"),
    "config rank": (len, {"r": 8}, r"rank is not that of adapter_config.json.*found 4.*wanted 8"),
    "magnitude": (_dora, {}, "belongs to DoRA"),
    "dora": (len, {"use_dora": True}, "DoRA.*merge_and_unload"),
    "bias": (len, {"bias": "all"}, "biases"),
    "saved": (len, {"modules_to_save": ["lm_head"]}, "whole modules"),
    "kind": (len, {"peft_type": "IA3"}, "'IA3'.*wanted LORA"),
    "integers": (_integers, {}, "no half of a low-rank pair"),
    "pattern": (len, {"rank_pattern": {"layers.[01].*": 4}}, "no name of a module"),
}


@pytest.mark.parametrize(("case", "mode"), [*((c, "inputs") for c in BROKEN), ("NaN", "slots"), ("NaN", "fold")])
def test_a_broken_adapter_is_named_and_changes_nothing(case: str, mode: str, tmp_path: Path) -> None:
    spoil, config, message = BROKEN[case]
    tensors = matrices(MODULES)
    spoil(tensors)
    write_peft(tmp_path / "bad", tensors, **config)  # pyright: ignore[reportArgumentType]
    refused(f"lora{{mode={mode} adapters={tmp_path / 'bad'}}}", message)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"model.layers.0.self_attn.q_proj": (48, 32)}, r"another base model.*48 to 32.*wanted 32 to 32"),
        ({"model.layers.7.self_attn.q_proj": (32, 32)}, r"1 of 1 modules match no projection.*no layer 7"),
        ({"model.layers.0.self_attn.rotary": (32, 32)}, r"rotary \(its name tells no projection"),
        ({"model.layers.0.mlp.gate_up_proj": (32, 32)}, r"none of its layer's projections \(q, k, v, o"),
        ({"model.layers.0.attn.query": (32, 32), "model.layers.0.self_attn.q_proj": (32, 32)}, "two modules are one"),
    ],
)  # fmt: skip
def test_an_adapter_of_another_model_is_refused(
    modules: dict[str, tuple[int, int]], message: str, tmp_path: Path
) -> None:
    refused(f"lora{{adapters={write_peft(tmp_path / 'other', matrices(modules))}}}", message)


def refused(pipeline: str, message: str) -> None:
    given = program()
    before = ir.to_proto(given.graphs["model"]).SerializeToString()
    with pytest.raises(OnnxPassesError, match=message):
        PassManager(parse_pipeline(pipeline)).run(given)
    assert ir.to_proto(given.graphs["model"]).SerializeToString() == before


def test_a_spoilt_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "bad", matrices(MODULES))
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    spoils: list[tuple[bytes, str]] = [
        (b"", "no safetensors file"),
        (whole[:7], "no safetensors file"),
        (b"\xff" * 16, "no safetensors file"),
        (whole[:-4], "bytes of its shape"),
        (whole[:8] + b"[" + whole[9:], "header"),
    ]
    for data, message in spoils:
        weights.write_bytes(data)
        refused(f"lora{{adapters={folder}}}", message)
    write_safetensors(weights, matrices(MODULES), lambda header: header.popitem()[1].update(shape=[1 << 40, 1 << 40]))
    weights.unlink()
    refused(f"lora{{adapters={folder}}}", "no such file")


@pytest.mark.parametrize("at", range(0, 400, 47))
def test_a_spoilt_adapter_file_is_read_or_refused(at: int, adapter: Path, tmp_path: Path) -> None:
    """Any byte of the tables changed: an answer or one of our errors, no other exception."""
    changed(f"lora{{adapters={adapter}}}").save(tmp_path / "out")
    path = tmp_path / "out" / "one.onnx_adapter"
    data = bytearray(path.read_bytes())
    data[at if at % 2 else -1 - at] ^= 0xFF
    path.write_bytes(data)
    try:
        changed(f"lora{{mode=slots adapters={path}}}")
    except OnnxPassesError as error:
        assert str(path.name) in str(error) or "one" in str(error)


def test_weights_that_are_shared_are_not_folded(adapter: Path) -> None:
    model = append_decoder()
    products = [node for node in model.graph if node.op_type == "MatMul" and "q_proj" in (node.inputs[1].name or "")]  # pyright: ignore[reportOptionalMemberAccess]
    products[1].replace_input_with(1, products[0].inputs[1])
    with pytest.raises(OnnxPassesError, match=r"weight is shared.*mode=inputs"):
        PassManager([Lora(mode=Mode.FOLD, adapters=(adapter,))]).run(Program({"model": model}))


def test_fold_reads_weights_one_at_a_time_when_they_are_written(adapter: Path, tmp_path: Path) -> None:
    result = changed(f"lora{{mode=fold adapters={adapter}}}")
    lazy = [v for v in result.graphs["model"].graph.initializers.values() if isinstance(v.const_value, ir.LazyTensor)]
    assert len(lazy) == 4
    result.save(tmp_path / "out")
    contracts = json.loads((tmp_path / "out" / "program.json").read_text())["contracts"]
    assert contracts[0]["kind"] == "weights-folded" and contracts[0]["sources"][0]["name"] == "one"
    report = verify(program(), Program.load(tmp_path / "out"))
    assert report.equal, report.first_difference
