"""Spreading a program over devices: layers by the dataflow, stages that never turn back, the file that says so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_llm_passes.ir.core.errors import OnnxPassesError, PassRefused, UsageError
from onnx_llm_passes.ir.core.scopes import bodies, nested
from onnx_llm_passes.ir.core.specialization import Specialization, SpecRole
from onnx_llm_passes.ir.manifests.layers import layer_bounds, layer_of, stage_of
from onnx_llm_passes.ir.manifests.partition import MAX_DEVICES, pipeline, tensor_slices
from onnx_llm_passes.ir.manifests.stages import split_stages
from onnx_llm_passes.ir.program.clone import Clone
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.emit_manifest import EmitManifest
from onnx_llm_passes.passes.partition import Partition

from .builders import BUILDERS, OTHERS


@given(st.integers(0, 200), st.integers(1, 20))
def test_layers_spread_evenly_and_the_last_stage_has_none_more(layers: int, stages: int) -> None:
    bounds = layer_bounds(layers, stages)
    counts = [sum(stage_of(layer, bounds) == stage for layer in range(layers)) for stage in range(stages)]
    assert sum(counts) == layers and max(counts) - min(counts) <= 1
    assert counts[-1] == layers // stages
    middle = counts[1:-1]
    assert counts[0] == layers // stages or all(count > layers // stages for count in middle)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/model/layers.3/mlp/Mul", 3),
        ("/transformer/h.11/attn", 11),
        ("layer_0//x", 0),
        ("/model/layers.3.mlp/x", None),
        ("/model/sublayers.3/x", None),
        ("/layers.³/x", None),
        ("/layers.12345678901234567890/x", None),
        ("", None),
    ],
)
def test_the_layer_that_a_name_tells(name: str, layer: int | None) -> None:
    assert layer_of(name) == layer


@pytest.mark.parametrize(("layers", "stages"), [(4, 0), (-1, 2)])
def test_no_stage_or_negative_layers(layers: int, stages: int) -> None:
    with pytest.raises(UsageError):
        layer_bounds(layers, stages)


def test_a_pipeline_shares_the_devices_out() -> None:
    made = pipeline(4, 8, [["a"], ["b", "c"]])
    assert made["connections"] == [{"devices": [0, 1, 2, 3], "type": "p2p"}]
    assert [p["nodeList"] for p in made["partitions"]] == [["a"], ["b", "c"]]
    assert [[d["deviceId"] for d in p["devices"]] for p in made["partitions"]] == [[0, 1], [2, 3]]
    assert {d["numCores"] for p in made["partitions"] for d in p["devices"]} == {8}


@pytest.mark.parametrize(("devices", "cores"), [(0, 16), (-1, 16), (2, 0), (MAX_DEVICES + 1, 16)])
def test_counts_that_are_none(devices: int, cores: int) -> None:
    with pytest.raises(UsageError):
        tensor_slices(devices, cores)


def check_stages(model: ir.Model, stages: int) -> list[list[str]]:
    """Splits, and holds the split against what a pipeline needs: each node once, no value against the flow."""
    found = split_stages(model, find_states(model), stages)
    where = {name: stage for stage, names in enumerate(found.nodes) for name in names}
    named = [node for node in model.graph if node.name]
    assert sorted(where) == sorted(node.name or "" for node in named)
    for node in named:
        inside = [inner for body in bodies(node) for scope in nested(body) for inner in scope]
        for value in [value for each in (node, *inside) for value in each.inputs if value is not None]:
            producer = value.producer()
            if producer is not None and producer.name in where and producer not in inside:
                assert where[producer.name] <= where[node.name or ""], (producer.name, node.name)
    assert all(found.nodes)
    return found.nodes


@pytest.mark.parametrize("name", ["append", "append plain", "scatter", "append dynamo"])
def test_stages_follow_the_dataflow(name: str) -> None:
    model = BUILDERS[name]()
    layers = len({state.layer for state in find_states(model)})
    if layers < 2:
        with pytest.raises(PassRefused, match="too few layers"):
            split_stages(model, find_states(model), layers + 1)
        check_stages(model, 1)
    else:
        check_stages(model, layers)


def test_the_split_is_the_same_whatever_the_nodes_are_called() -> None:
    model = BUILDERS["append"]()
    layers = len({state.layer for state in find_states(model)})
    before = [len(names) for names in check_stages(model, layers)]
    for index, node in enumerate(model.graph):
        node.name = f"n{index}"
    assert [len(names) for names in check_stages(model, layers)] == before


def test_names_that_tell_another_stage_are_counted() -> None:
    model = BUILDERS["append"]()
    layers = len({state.layer for state in find_states(model)})
    first = next(iter(model.graph))
    first.name = f"/model/layers.{layers - 1}/misnamed"
    program = Program({"model": model})
    report = Partition(devices=layers, stages=layers).run(program)
    assert layers == 1 or "misnamed" in " ".join(report.warnings)


def test_unnamed_nodes_are_refused() -> None:
    model = BUILDERS["append"]()
    for node in model.graph:
        node.name = ""
    with pytest.raises(PassRefused, match="without names"):
        split_stages(model, find_states(model), 1)


def test_a_graph_without_states_has_no_layers() -> None:
    with pytest.raises(PassRefused, match="too few layers"):
        Partition(devices=2, stages=2).run(Program({"model": OTHERS["no states"]()}))


def test_the_file_is_written_and_nothing_where_counts_cannot_be() -> None:
    program = Program({"model": BUILDERS["append"]()})
    Partition(devices=2).run(program)
    assert json.loads(program.artifacts["partition.json"]) == tensor_slices(2, 16)
    program.artifacts.clear()
    with pytest.raises(OnnxPassesError):
        Partition(devices=3, stages=2).run(program)
    assert program.artifacts == {}


MODELS = {  # folder/file -> layers, of real exporters where they lie beside the checkout
    "optimum-llama/model.onnx": 2,
    "qeff-llama/LlamaForCausalLM.onnx": 2,
    "qeff-llama-subfn/LlamaForCausalLM.onnx": 2,
    "genai-gemma2-fp32-cpu/model.onnx": 2,
    "torch-flat-gemma3/model.onnx": 2,
    "torch-ts-qwen2/model.onnx": 2,
}


@pytest.mark.skipif("ONNX_PASSES_MODELS" not in os.environ, reason="ONNX_PASSES_MODELS names no folder of models")
@pytest.mark.parametrize("name", sorted(MODELS))
def test_real_graphs_split_where_their_names_say(name: str) -> None:
    program = Program.load(Path(os.environ["ONNX_PASSES_MODELS"]) / name)
    (model,) = program.graphs.values()
    found = split_stages(model, find_states(model), MODELS[name])
    assert found.layers >= MODELS[name] and found.disputed == ()
    check_stages(model, MODELS[name])


def test_each_clone_gets_the_file_that_its_manifest_names() -> None:
    program = Program({"model": BUILDERS["scatter"]()})
    names = ("prefill", "decode")
    program.clones = {name: Clone("model") for name in names}
    program.specializations = [
        Specialization(name=name, binding={"batch_size": 1, "seq_len": seq, "ctx_len": 32}, role=role, graph=name)
        for name, seq, role in (("prefill", 8, SpecRole.PREFILL), ("decode", 1, SpecRole.DECODE))
    ]
    Partition(devices=2).run(program)
    EmitManifest("qaic").run(program)
    assert {f"{name}.partition.json" for name in names} < set(program.artifacts)
    commands = json.loads(program.artifacts["compile_args.json"])["commands"]
    assert all(f"-mdp-load-partition-config={c['graph']}.partition.json" in c["arguments"] for c in commands)
