"""extract-layer: what comes in and goes out, the same numbers as in the whole graph, and what cannot be cut."""

from __future__ import annotations

import functools
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.cli.app import run
from onnx_llm_passes.ir.core.errors import PassRefused, UsageError
from onnx_llm_passes.ir.core.specialization import Specialization, SpecRole, read_specialization
from onnx_llm_passes.ir.core.verifier import check_structure
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import print_encodings
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.compare.layers import compare_layers
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.legalize import legalized
from onnx_llm_passes.runtime.session.session import Session
from onnx_llm_passes.runtime.verify.verify import verify

from .layer_graphs import plain_decoder, skip_norm_decoder
from .renaming import rename_everything

THREE = Tiny(layers=3)
CTX = 32
DECODE = f"clone-decode{{k=0 ctx={CTX}}}"
DECODERS: dict[str, Callable[[], ir.Model]] = {
    "append": functools.partial(append_decoder, THREE),
    "scatter": functools.partial(scatter_decoder, THREE),
    "fused": functools.partial(skip_norm_decoder, 3),
    "fused with a bias": functools.partial(skip_norm_decoder, 3, ", gamma"),
}
decoders = pytest.mark.parametrize("name", DECODERS)


def cut(model: ir.Model, options: str, before: str = DECODE) -> Program:
    program = Program({"model": model})
    return PassManager(parse_pipeline(f"{before},extract-layer{{{options}}}")).run(program)


def only(program: Program) -> ir.Model:
    assert len(program.graphs) == 1
    return next(iter(program.graphs.values()))


@decoders
@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("shared", ["inside", "inputs"])
def test_a_layer_answers_as_in_the_whole_graph(name: str, index: int, shared: str) -> None:
    program = cut(DECODERS[name](), f"index={index} shared={shared}")
    check_structure(only(program))
    report = verify(Program({"model": DECODERS[name]()}), program)
    assert report.equal, report.first_difference
    assert report.runs == 1
    if "fused" not in name:  # there a norm alone takes another kernel than with its sum
        assert report.max_abs == 0


@decoders
@pytest.mark.parametrize(("k", "length"), [(0, 1), (3, 4)])
def test_inputs_and_outputs_are_static(name: str, k: int, length: int) -> None:
    program = cut(DECODERS[name](), "index=1", f"keep-last-logits{{symbol=n}},clone-decode{{k={k} ctx={CTX}}}")
    model = only(program)
    assert model.graph.name == f"decode_k{k}_layer1"
    ports = [*model.graph.inputs, *model.graph.outputs]
    assert all(value.shape is not None and value.shape.is_static() for value in ports)
    states = find_states(model)
    assert [(state.layer, state.kind, state.layout) for state in states] == [
        (1, "key", Layout.DELTA),
        (1, "value", Layout.DELTA),
    ]
    hidden, result = model.graph.inputs[0], model.graph.outputs[0]
    assert hidden.shape == result.shape == [1, length, hidden.shape[-1] if hidden.shape is not None else 0]
    for state in states:
        assert state.output is not None
        assert state.output.shape is not None
        assert state.output.shape[2] == length


@decoders
def test_layers_in_a_row_are_the_whole_graph(name: str) -> None:
    """Not by our own verification: the layers run one after another, each on what the one before it gave."""
    whole = Program({"model": DECODERS[name]()})
    PassManager(parse_pipeline(DECODE)).run(whole)
    decode = whole.graph("decode_k0" if "decode_k0" in whole.names else whole.names[0])
    layers = [only(cut(DECODERS[name](), f"index={index}")) for index in range(3)]
    results, hidden = ([ports(layer)[0].name for layer in layers] for ports in (outputs_of, inputs_of))
    assert results[:-1] == hidden[1:]
    ids = decode.graph.inputs[0]
    start = next(node for node in decode.graph if node.op_type == "Gather" and node.inputs[1] is ids)
    decode.graph.outputs.append(start.outputs[0])
    fed = dict(feeds(decode))
    expected = Session(legalized(decode).model).run(fed)
    known = {**fed, layers[0].graph.inputs[0].name or "": expected[start.outputs[0].name or ""]}
    for layer in layers:
        session = Session(legalized(layer).model)
        found = session.run({name: known[name] for name in session.input_names})
        known |= {layer.graph.outputs[0].name or "": found[layer.graph.outputs[0].name or ""]}
        for state in find_states(layer):
            assert state.output is not None
            name_of_rows = state.output.name or ""
            rows = np.take(expected[name_of_rows], [-1 if state.inside is Layout.APPEND else 0], axis=2)
            assert np.allclose(found[name_of_rows], rows, atol=1e-6)


def inputs_of(model: ir.Model) -> list[ir.Value]:
    return list(model.graph.inputs)


def outputs_of(model: ir.Model) -> list[ir.Value]:
    return list(model.graph.outputs)


def feeds(model: ir.Model) -> Iterator[tuple[str, np.ndarray]]:
    """A first token at position 0, nothing cached, every hidden row zero."""
    for value in model.graph.inputs:
        shape = [int(size) for size in value.shape or ()]
        array = np.zeros(shape, value.dtype.numpy() if value.dtype is not None else np.float32)
        if value.name == "attention_mask":
            array[:, 0 if model.functions or "GroupQueryAttention" in {n.op_type for n in model.graph} else -1] = 1
        if value.name == "input_ids":
            array[:] = 7
        yield value.name or "", array


@decoders
def test_every_layer_has_the_same_operators(name: str) -> None:
    """The last one ends before the final norm, as those before it end before the next one's."""
    layers = [only(cut(DECODERS[name](), f"index={index}")) for index in range(3)]
    kinds = [Counter(node.op_type for node in layer.graph) for layer in layers]
    assert kinds[1] == kinds[2]


def test_one_layer_alone_ends_before_the_final_norm() -> None:
    model = only(cut(append_decoder(Tiny(layers=1)), "index=0"))
    producer = model.graph.outputs[0].producer()
    assert producer is not None
    assert producer.op_type == "Add"
    report = verify(Program({"model": append_decoder(Tiny(layers=1))}), cut(append_decoder(Tiny(layers=1)), "index=0"))
    assert report.equal, report.first_difference


@pytest.mark.parametrize("name", ["append", "fused", "fused with a bias"])
def test_names_do_not_matter(name: str) -> None:
    model = DECODERS[name]()
    rename_everything(model, random.Random(5))
    layers = [only(cut(model.clone(), f"index={index}")) for index in range(3)]
    plain = [only(cut(DECODERS[name](), f"index={index}")) for index in range(3)]
    for renamed, named in zip(layers, plain, strict=True):
        assert Counter(n.op_type for n in renamed.graph) == Counter(n.op_type for n in named.graph)
        assert [v.shape for v in renamed.graph.inputs] == [v.shape for v in named.graph.inputs]
        assert len(find_states(renamed)) == 2


def test_shared_values_come_in_once() -> None:
    inside, entering = (only(cut(append_decoder(), f"index=0 shared={mode}")) for mode in ("inside", "inputs"))
    assert {"attention_mask", "position_ids"} <= {value.name for value in inside.graph.inputs}
    names = {value.name for value in entering.graph.inputs}
    assert not {"attention_mask", "position_ids"} & names
    assert len(names) == 6  # hidden states, mask, cosine, sine, key, value
    assert not any(node.op_type in ("Cos", "Sin", "Cast", "LessOrEqual") for node in entering.graph)


def test_each_decode_gives_a_layer_and_the_rest_goes() -> None:
    program = cut(append_decoder(), "index=1", f"clone-decode{{k=0,2 prefill=8 ctx={CTX}}}")
    assert program.names == ["decode_k0_layer1", "decode_k2_layer1"]
    specs = [read_specialization(item) for item in program.specializations]
    assert [(spec.graph, spec.role, spec.k) for spec in specs] == [
        ("decode_k0_layer1", SpecRole.LAYER, 0),
        ("decode_k2_layer1", SpecRole.LAYER, 2),
    ]
    prefill = cut(append_decoder(), "index=0 role=prefill", f"clone-decode{{k=0 prefill=8 ctx={CTX}}}")
    assert prefill.names == ["prefill_layer0"]
    assert only(prefill).graph.inputs[0].shape == [1, 8, 32]


def test_a_layer_is_cut_out_of_a_saved_program(tmp_path: Path) -> None:
    whole, layer = tmp_path / "whole", tmp_path / "layer"
    program = Program({"model": append_decoder()})
    PassManager(parse_pipeline(f"clone-decode{{k=0,2 prefill=8 ctx={CTX}}}")).run(program)
    program.save(whole)
    assert run(["run", "extract-layer{index=1}", str(whole), "-o", str(layer)]) == 0
    for original in (whole, program):
        loaded = Program.load(original) if isinstance(original, Path) else Program({"model": append_decoder()})
        report = verify(loaded, Program.load(layer))
        assert report.equal, report.first_difference
        assert report.runs == 2
    assert run(["check", str(layer), "--run"]) == 0


def test_a_tensor_that_a_layer_alone_takes_comes_in() -> None:
    """Embeddings of its own, as some families give every layer: the tokens come in beside the hidden states."""
    model = plain_decoder(second="Add (x1, e1)", extra="e1 = Gather (table2, input_ids)")
    program = cut(model.clone(), "index=0")
    assert "input_ids" in {value.name for value in only(program).graph.inputs}
    report = verify(Program({"model": model}), program)
    assert report.equal, report.first_difference


def test_further_outputs_that_a_layer_computes_leave_it_too() -> None:
    """Attention weights, or a state that nobody took for one: an output of the whole graph is lost on no layer."""
    model = plain_decoder()
    weights = next(node.outputs[0] for node in model.graph if node.op_type == "Softmax")
    weights.type, weights.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["B", "S", "T"])
    model.graph.outputs.append(weights)
    program = cut(model.clone(), "index=0")
    assert [value.name for value in only(program).graph.outputs] == ["x1", "present_0", weights.name]
    assert weights.name not in {value.name for value in only(cut(model.clone(), "index=1")).graph.outputs}
    report = verify(Program({"model": model}), program)
    assert report.equal, report.first_difference


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (plain_decoder(third="Add (x2, x0)"), "no single value carries everything from one layer to the next"),
        (plain_decoder(cache="present_0"), "no single value carries everything from one layer to the next"),
        (
            plain_decoder(joined="Sum (y1, a1, r0)", extra="r0 = ReduceSum <keepdims = 1> (past_0, one)"),
            "layer 1 reads what layer 0 carries",
        ),
    ],
)
def test_what_goes_around_a_layer_is_refused(model: ir.Model, wrong: str) -> None:
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(PassRefused, match=wrong):
        cut(model, "index=1")
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize(
    ("options", "wrong", "kind"),
    [
        ("index=3", "no such layer; found 3; wanted one of 0, 1, 2", UsageError),
        ("index=0 role=prefill", "no prefill graph of known sizes; found decode_k0", PassRefused),
    ],
)
def test_what_there_is_not_is_named(options: str, wrong: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=wrong):
        cut(append_decoder(THREE), options)


def test_sizes_that_stay_open_are_refused() -> None:
    program = Program({"model": append_decoder()})
    program.specializations = [Specialization(name="Decode", role=SpecRole.DECODE, binding={"batch_size": 1})]
    with pytest.raises(PassRefused, match="the shape of 'input_ids' is not decided"):
        PassManager(parse_pipeline("extract-layer{index=0}")).run(program)


def test_layers_inside_functions_are_refused_with_a_way_out() -> None:
    with pytest.raises(PassRefused, match=r"lives inside a local function\. Put ir-inline before this pass"):
        cut(in_a_function(), "index=0", f"clone-decode{{ctx={CTX}}}")
    program = cut(in_a_function(), "index=0", f"ir-inline,clone-decode{{ctx={CTX}}}")
    assert {state.layout for state in find_states(only(program))} == {Layout.DELTA}


def in_a_function() -> ir.Model:
    """One layer, its cache and all, as a local function."""
    return ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 18, "layers" : 1]>
        g (int64[B,S] input_ids, float[S,T] mask, float[B,P,4] past)
          => (float[B,S,8] logits, float[B,"P + S",4] present)
        <float[8,4] table = {0,1,2,3,4,5,6,7,0,1,2,3,4,5,6,7,0,1,2,3,4,5,6,7,0,1,2,3,4,5,6,7}> {
           x = Gather (table, input_ids)
           y, present = layers.Layer (x, mask, past)
           turned = Transpose <perm = [1, 0]> (table)
           logits = MatMul (y, turned)
        }
        <domain: "layers", opset_import: ["" : 18]>
        Layer (x, mask, past) => (y, present) {
           new = Neg (x)
           present = Concat <axis = 1> (past, new)
           keys = Transpose <perm = [0, 2, 1]> (present)
           scores = MatMul (x, keys)
           masked = Add (scores, mask)
           weights = Softmax <axis = -1> (masked)
           mixed = MatMul (weights, present)
           y = Add (x, mixed)
        }"""
    )


KINDS = ["hidden", "new_key", "new_value"]
TEXTS = [np.random.default_rng(6).integers(0, 32, 24) for _ in range(2)]


@decoders
@pytest.mark.parametrize("bits", [8, 16])
def test_a_quantized_layer_is_measured_alone(name: str, bits: int, tmp_path: Path) -> None:
    whole = Program({"model": DECODERS[name]()})
    table = calibrate(whole, TEXTS, Plan(chunk=8))
    file = tmp_path / "encodings.json"
    file.write_text(print_encodings(table), encoding="utf-8")
    quantized = cut(
        DECODERS[name](), f"index=1}},quantize{{file={file} activations=a16 weights=w8 kv={bits}", f"{DECODE}"
    )
    states = find_states(only(quantized))
    assert {str(state.input.dtype) for state in states if state.input is not None} == {f"INT{bits}"}
    found = compare_layers(cut(DECODERS[name](), "index=1"), quantized, whole, TEXTS)
    assert [row.what for row in found.rows] == KINDS
    assert found.tokens == 48
    floor = {8: 30, 16: 40}[bits]
    for row in found.rows:
        assert row.measures["sqnr"] > (35 if row.what == "hidden" else floor)
        assert row.measures["mean_abs"] > 0
    report = verify(whole, quantized)
    assert not report.equal
    assert "--within" in report.first_difference


def test_the_same_layer_differs_by_nothing() -> None:
    whole = Program({"model": append_decoder()})
    found = compare_layers(cut(append_decoder(), "index=0"), cut(append_decoder(), "index=0"), whole, TEXTS)
    assert {row.measures["max_abs"] for row in found.rows} == {0.0}


def test_layers_that_are_not_the_same_are_not_compared() -> None:
    whole = Program({"model": append_decoder()})
    with pytest.raises(UsageError, match="not the same layer"):
        compare_layers(cut(append_decoder(), "index=0"), cut(append_decoder(), "index=1"), whole, TEXTS)
    with pytest.raises(UsageError, match="one layer each"):
        compare_layers(whole, cut(append_decoder(), "index=1"), whole, TEXTS)


def test_a_wrong_layer_is_caught() -> None:
    """A weight changed, a row dropped: verification sees it."""
    program = cut(append_decoder(), "index=1")
    model = only(program)
    values = model.graph.initializers.values()
    weight = next(v for v in values if v.const_value is not None and v.const_value.size > 500)
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array[0] += 0.01
    weight.const_value = ir.tensor(array, name=weight.name)
    assert not verify(Program({"model": append_decoder()}), program).equal


def test_the_command_shows_the_three_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, layer, tokens = tmp_path / "m", tmp_path / "layer", tmp_path / "t.npy"
    Program({"model": append_decoder()}).save(model)
    cut(append_decoder(), "index=0").save(layer)
    np.save(tokens, np.stack(TEXTS))
    assert run(["compare", str(layer), str(layer), "--tokens", str(tokens), "--within", str(model)]) == 0
    shown = capsys.readouterr().out
    assert [line.split(": ")[1] for line in shown.splitlines() if "Tensor" in line] == KINDS
    arguments = ["compare", str(layer), str(layer), "--tokens", str(tokens)]
    assert run([*arguments, "--within", str(model), "--json"]) == 0
    assert [row["tensor"] for row in json.loads(capsys.readouterr().out)["tensors"]] == KINDS
    assert run(arguments) == 2
    assert "--within WHOLE" in capsys.readouterr().err


MODELS = os.environ.get("ONNX_PASSES_MODELS")
EXPORTED = {  # a folder of exported models, its file, and what comes before the cut
    "optimum-llama/model": "clone-decode{ctx=64 k=0,4 prefill=16}",
    "optimum-gpt2/model": "clone-decode{ctx=64 k=0,4}",
    "optimum-gemma3/model": "clone-decode{ctx=64 k=0}",
    "optimum-whisper-automatic/decoder_with_past_model": "clone-decode{ctx=64 k=0 bind=encoder_sequence_length:12}",
    "torch-flat-qwen3-sdpa/model": "clone-decode{ctx=64 k=0}",
    "hf-staticcache-llama/decode": "clone-decode{ctx=64 k=0 batch=2}",
    "hf-dyn-mamba/decode": "clone-decode{ctx=64 k=0 bind=s41:4,s65:4}",
    "genai-gemma2-fp32-cpu/model": "clone-decode{ctx=64 k=0}",
    "genai-lfm2-fp32-cpu/model": "clone-decode{ctx=64 k=0}",
    "genai-llama-fp16-dml/model": "clone-decode{ctx=64 k=0}",
    "genai-qwen3-int4-cpu/model": "clone-decode{ctx=64 k=0}",
    "genai-whisper-fp32-cpu/decoder": "clone-decode{ctx=64 k=0}",
    "qeff-llama-cb/LlamaForCausalLM": "clone-decode{ctx=64 k=0 batch=2}",
    "qeff-gemma2/Gemma2ForCausalLM": "clone-decode{ctx=64 k=0}",
    "qeff-llama-tlm/LlamaForCausalLM": "clone-decode{ctx=64 k=0,4 prefill=16}",
}


@pytest.mark.skipif(MODELS is None, reason="ONNX_PASSES_MODELS names no folder of models")
@pytest.mark.parametrize("shared", ["inside", "inputs"])
@pytest.mark.parametrize("path", EXPORTED)
def test_exported_models(path: str, shared: str) -> None:
    file = Path(MODELS or "") / f"{path}.onnx"
    if not file.exists():
        pytest.skip(f"{path}.onnx is not in the folder of models")
    for index in range(2):
        program = Program.load(file)
        PassManager(parse_pipeline(f"{EXPORTED[path]},extract-layer{{index={index} shared={shared}}}")).run(program)
        report = verify(Program.load(file), program)
        assert report.equal, report.first_difference
        assert report.max_rel <= 2e-6
