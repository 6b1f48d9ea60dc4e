"""Models with recurrent states beside caches, and exports of one token a run, have a static decode."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.core.specialization import SpecRole
from onnx_llm_passes.ir.program.contracts.padding import WholeChunks
from onnx_llm_passes.ir.program.contracts.sizes import Claims
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

MODELS = os.environ.get("ONNX_PASSES_MODELS", "")
EXPORTED = ("hf-dyn-lfm2/decode.onnx", "hf-dyn-mamba/decode.onnx")
TAPS = 3


def hybrid() -> ir.Model:
    """The sample decoder with a short convolution behind its embedding, whose last rows are a state."""
    model = append_decoder()
    graph = model.graph
    rows = next(node for node in graph if node.op_type == "Gather" and node.inputs[1] is graph.inputs[0]).outputs[0]
    width = Tiny().hidden
    readers = list(rows.uses())
    batch = graph.inputs[0].shape[0] if graph.inputs[0].shape is not None else None
    float_type, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([batch, width, TAPS])
    past = ir.Value(name="past_conv", type=float_type, shape=shape)
    graph.inputs.append(past)
    kernel = np.random.default_rng(0).standard_normal((width, 1, TAPS)).astype(np.float32)
    held = {"kernel": kernel, "from": np.array([-TAPS]), "end": np.array([2**62])}
    held |= {"axis": np.array([2]), "one": np.array([1])}
    tensors = [ir.Tensor(array, name=f"conv/{name}") for name, array in held.items()]
    made = {name: ir.Value(name=tensor.name, const_value=tensor) for name, tensor in zip(held, tensors, strict=True)}
    for value in made.values():
        graph.register_initializer(value)

    def add(kind: str, inputs: list[ir.Value], **attributes: object) -> ir.Value:
        node = ir.node(kind, inputs, attributes, name=f"conv/{kind}{len(graph)}")
        node.outputs[0].name = f"{node.name}/out"
        graph.append(node)
        return node.outputs[0]

    turned = add("Transpose", [rows], perm=[0, 2, 1])
    joined = add("Concat", [past, turned], axis=2)
    present = add("Slice", [joined, made["from"], made["end"], made["axis"]])
    present.name, present.type, present.shape = "present_conv", float_type, shape
    mixed = add("Conv", [joined, made["kernel"]], group=width, kernel_shape=[TAPS])
    new = add("Slice", [mixed, made["one"], made["end"], made["axis"]])
    total = add("Add", [rows, add("Transpose", [new], perm=[0, 2, 1])])
    for node, index in readers:
        node.replace_input_with(index, total)
    graph.outputs.append(present)
    graph.sort()
    return model


def run(program: Program, pipeline: str) -> Program:
    """The program after the pipeline."""
    PassManager(parse_pipeline(pipeline)).run(program)
    return program


def test_a_prefill_of_a_hybrid_reads_whole_chunks() -> None:
    result = run(Program({"model": hybrid()}), "speculative{k=0 prefill=4 ctx=24}")
    (chunks,) = [contract for contract in result.contracts if isinstance(contract, WholeChunks)]
    assert (chunks.length, chunks.carried, len(chunks.graphs)) == (4, True, 1)
    assert "recurrent states" in chunks.sentence()
    report = verify(Program({"model": hybrid()}), result)
    assert report.verdict is Verdict.EQUAL and report.runs > 1, report.first_difference


def test_a_hybrid_goes_back_over_no_token() -> None:
    with pytest.raises(PassRefused, match=r"past_conv is a recurrent state without a snapshot.*k=0"):
        run(Program({"model": hybrid()}), "speculative{k=0,2 prefill=4 ctx=24}")


def test_a_graph_of_one_token_a_run_gets_no_prefill() -> None:
    model = append_decoder()
    for value in model.graph.inputs[:3]:
        assert value.shape is not None
        if value.name in ("input_ids", "position_ids"):
            value.shape = ir.Shape([value.shape[0], 1])
    program = Program({"model": model})
    report = PassManager(parse_pipeline("clone-decode{k=0 prefill=4 ctx=24}")).run(program)
    assert [spec.role for spec in program.specializations] == [SpecRole.DECODE]
    assert Claims(prefill=False, ks=(0,)) in program.contracts
    assert report is not None


@pytest.mark.skipif(not MODELS, reason="ONNX_PASSES_MODELS names no folder of exported models")
@pytest.mark.parametrize("name", EXPORTED)
def test_exports_of_one_token_a_run_decode(name: str) -> None:
    path = Path(MODELS) / name
    result = run(Program.load(path), "speculative{k=0 prefill=8 ctx=32}")
    report = verify(Program.load(path), result)
    assert report.verdict is Verdict.EQUAL and report.runs, report.first_difference
