"""lower: small decoders with fused operators go through every pipeline, and keep what they computed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError
from onnx_llm_passes.ir.core.scopes import all_nodes
from onnx_llm_passes.ir.manifests.targets import TABLES, table_of
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.rewrite.lower import ROWS
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.writer import FLOAT, INT32, INT64, Writer
from onnx_llm_passes.runtime.verify.verify import verify

MS = "com.microsoft"
HEADS, KV, SIZE, HIDDEN, VOCAB = 4, 2, 16, 64, 96


def fused_decoder(*, shared: bool = False, int4: bool = False) -> ir.Model:
    """Two layers as onnxruntime-genai's builder writes them: packed projections, lengths summed from the mask."""
    w = Writer(opset=22, seed=0)
    ids = w.input("input_ids", INT64, ["batch_size", "sequence_length"])
    mask = w.input("attention_mask", INT64, ["batch_size", "total_sequence_length"])
    rows = "max_length" if shared else "past_sequence_length"
    past = [
        w.input(f"past_key_values.{layer}.{kind}", FLOAT, ["batch_size", KV, rows, "size"])
        for layer in range(2)
        for kind in ("key", "value")
    ]
    last = w.op("Cast", w.op("Sub", w.op("ReduceSum", mask, [1], keepdims=0), [1]), to=INT32)
    total = w.op("Cast", w.op("Gather", w.op("Shape", mask), 1, axis=0), to=INT32)
    angles = np.arange(64)[:, None] * (100.0 ** -(np.arange(0, SIZE, 2) / SIZE))[None, :]
    cos, sin = (w.initializer(n, f(angles).astype(np.float32)) for n, f in (("cos", np.cos), ("sin", np.sin)))
    x = w.op("Gather", w.weight("embed", VOCAB, HIDDEN, scale=1.0), ids)
    scale = w.initializer("norm", np.linspace(0.5, 1.5, HIDDEN).astype(np.float32))
    normed = w.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=1e-6, stash_type=1)
    presents: list[ir.Value] = []
    for layer in range(2):
        qkv = _linear(w, normed, (HEADS + 2 * KV) * SIZE, f"qkv.{layer}", int4)
        y, key, value = _attention(w, qkv, past[2 * layer : 2 * layer + 2], (last, total, cos, sin))
        presents += [key, value]
        normed, x = _skip_norm(w, x, _linear(w, y, HIDDEN, f"out.{layer}", int4), scale)
    logits = w.op("MatMul", normed, w.weight("head", HIDDEN, VOCAB))
    w.output("logits", logits, ["batch_size", "sequence_length", VOCAB])
    after = rows if shared else "total_sequence_length"
    for index, present in enumerate(presents):
        name = f"present.{index // 2}.{('key', 'value')[index % 2]}"
        w.output(name, present, ["batch_size", KV, after, "size"])
    return w.model()


def _outputs(w: Writer, value: ir.Value, count: int) -> list[ir.Value]:
    node = value.producer()
    assert node is not None
    node.resize_outputs(count)
    for index, output in enumerate(node.outputs[1:], 1):
        output.name = f"{value.name}_{index}"
    return list(node.outputs)


def _attention(
    w: Writer, qkv: ir.Value, past: list[ir.Value], rest: tuple[ir.Value, ...]
) -> tuple[ir.Value, ir.Value, ir.Value]:
    attributes = {"num_heads": HEADS, "kv_num_heads": KV, "do_rotary": 1, "softcap": 30.0}
    first = w.op("GroupQueryAttention", qkv, None, None, *past, *rest, domain=MS, **attributes)
    y, key, value = _outputs(w, first, 3)
    return y, key, value


def _skip_norm(w: Writer, x: ir.Value, y: ir.Value, scale: ir.Value) -> tuple[ir.Value, ir.Value]:
    first = w.op("SkipSimplifiedLayerNormalization", x, y, scale, domain=MS, epsilon=1e-6)
    outputs = _outputs(w, first, 4)
    return outputs[0], outputs[3]


def _linear(w: Writer, x: ir.Value, width: int, name: str, int4: bool) -> ir.Value:
    if not int4:
        return w.op("MatMul", x, w.weight(name, HIDDEN, width))
    blocks = w.initializer(name, w.random.integers(0, 256, (width, HIDDEN // 32, 16)).astype(np.uint8))
    scales = w.initializer(f"{name}.scales", w.random.uniform(0.01, 0.05, (width, HIDDEN // 32)).astype(np.float32))
    attributes = {"K": HIDDEN, "N": width, "bits": 4, "block_size": 32, "accuracy_level": 4}
    return w.op("MatMulNBits", x, blocks, scales, domain=MS, **attributes)


def run(model: ir.Model, pipeline: str) -> tuple[Program, Program]:
    """The program of a graph, and what a pipeline makes of it."""
    original, program = Program({"main_graph": model.clone()}), Program({"main_graph": model})
    PassManager(parse_pipeline(pipeline)).run(program)
    return original, program


CLONES = "speculative{k=0,4 prefill=8 ctx=32}"


@pytest.mark.parametrize("int4", [False, True])
@pytest.mark.parametrize("pipeline", ["lower", "lower,single-shot", f"lower,{CLONES}"])
def test_a_fused_decoder_keeps_its_logits(pipeline: str, int4: bool) -> None:
    original, program = run(fused_decoder(int4=int4), pipeline)
    report = verify(original, program)
    assert report.equal, str(report)
    worst = max(output.max_rel for case in report.cases for output in case.outputs)
    assert worst < 2e-6
    assert not any(node.domain for model in program.graphs.values() for node in all_nodes(model))


def test_packed_blocks_stay_packed_in_the_same_number_of_bytes() -> None:
    model = fused_decoder(int4=True)
    before = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    _, program = run(model, "lower")
    held = {v.name: v.const_value for v in program.graphs["main_graph"].graph.initializers.values()}
    packed = [t for t in held.values() if t is not None and t.dtype is ir.DataType.UINT4 and t.size >= 4096]
    assert len(packed) == 4
    after = sum(t.nbytes for t in held.values() if t is not None)
    assert after < before * 1.1  # zero points, which MatMulNBits leaves out where they are all the middle


def test_a_table_in_blocks_that_is_the_heads_weight_in_another_shape_is_lowered() -> None:
    w = Writer(opset=22, seed=0)
    ids = w.input("ids", INT64, ["n"])
    packed = w.initializer("head", w.random.integers(0, 256, (96, 2, 16)).astype(np.uint8))
    scales = w.initializer("scales", w.random.uniform(0.01, 0.05, (96, 2)).astype(np.float32))
    options = {"bits": 4, "block_size": 32}
    flat = w.op("Reshape", packed, [96, 32])  # as genai's builder ties them
    x = w.op("GatherBlockQuantized", flat, ids, scales, domain=MS, gather_axis=0, quantize_axis=1, **options)
    w.output("logits", w.op("MatMulNBits", x, packed, scales, domain=MS, K=64, N=96, **options), ["n", 96])
    original, program = run(w.model(), "lower")
    assert not any(node.domain for node in all_nodes(program.graphs["main_graph"]))
    report = verify(original, program)
    assert report.equal, str(report)


def test_blocks_are_dequantized_once_for_a_target_that_takes_none() -> None:
    original, program = run(fused_decoder(int4=True), "lower{target=iree}")
    assert not any(node.op_type == "DequantizeLinear" for node in all_nodes(program.graphs["main_graph"]))
    report = verify(original, program)
    assert report.equal, str(report)
    _, kept = run(fused_decoder(int4=True), "lower{target=openvino}")
    assert any(node.op_type == "DequantizeLinear" for node in all_nodes(kept.graphs["main_graph"]))


def test_gelu_by_tanh_is_spelled_out_for_a_target_that_computes_it_coarsely() -> None:
    w = Writer(opset=20, seed=0)
    x = w.input("x", FLOAT, ["n"])
    w.output("coarse", w.op("Gelu", x, approximate="tanh"), ["n"])
    w.output("fine", w.op("Gelu", x), ["n"])
    original, program = run(w.model(), "lower{target=iree}")
    left = [node for node in all_nodes(program.graphs["main_graph"]) if node.op_type == "Gelu"]
    assert len(left) == 1
    assert "approximate" not in left[0].attributes
    assert verify(original, program).equal


def test_every_row_says_where_it_comes_from_and_how_close_it_is() -> None:
    for (domain, op_type), row in ROWS.items():
        assert "1." in row.source, op_type
        assert row.tolerance <= 1e-5
        assert domain or row.since or op_type == "SimplifiedLayerNormalization"


@pytest.mark.parametrize("name", TABLES)
def test_every_limit_of_a_target_has_a_source_and_a_date(name: str) -> None:
    table = table_of(name)
    sources = [table.source, *table.limits.values(), *(rule.source for rule in table.rules)]
    assert all(source.text and source.date.startswith("20") for source in sources)


def test_an_unknown_target_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="openvino"):
        run(fused_decoder(), "lower{target=openvin}")


def test_a_preset_lowers_for_its_target_by_itself() -> None:
    _, program = run(fused_decoder(), "speculative{k=0,2 prefill=8 ctx=32}")
    assert not any(node.domain for model in program.graphs.values() for node in all_nodes(model))
    _, kept = run(fused_decoder(), "speculative{k=0,2 prefill=8 ctx=32 target=ort}")
    assert any(node.op_type == "GroupQueryAttention" for model in kept.graphs.values() for node in all_nodes(model))


def test_a_manifest_tells_what_its_target_does_not_take() -> None:
    program = Program({"main_graph": fused_decoder()})
    sizes = "symbols=batch_size:1,sequence_length:1,past_sequence_length:7,total_sequence_length:8,size:16"
    told = PassManager(parse_pipeline(f"specialize{{family=raw {sizes}}},emit-manifest{{target=openvino}}"))
    with pytest.raises(UnknownNameError):
        told.run(program)  # no manifest of openvino's own
    program = Program({"main_graph": fused_decoder()})
    PassManager(parse_pipeline(f"specialize{{family=raw {sizes}}},emit-manifest{{target=tensorrt}}")).run(program)
    told = [warning for record in program.history for warning in record.warnings]
    assert any("2 x com.microsoft.GroupQueryAttention" in warning for warning in told)
    refusing = f"specialize{{family=raw {sizes}}},emit-manifest{{target=tensorrt unsupported=refuse}}"
    with pytest.raises(PassRefused, match="does not take the graph"):
        PassManager(parse_pipeline(refusing)).run(Program({"main_graph": fused_decoder()}))


def test_norms_inside_an_attention_are_compared_by_a_copy_with_the_norms_before_it() -> None:
    model = fused_decoder()
    weight = ir.Value(name="q", const_value=ir.tensor(np.linspace(0.5, 1.5, SIZE).astype(np.float32), name="q"))
    weight.type, weight.shape = ir.TensorType(FLOAT), ir.Shape([SIZE])
    model.graph.register_initializer(weight)
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.resize_inputs(16)
            node.replace_input_with(14, weight)
            node.replace_input_with(15, weight)
    original, program = run(model, "lower,single-shot")
    report = verify(original, program)
    assert report.equal, str(report)
    assert any("norms inside 2 attentions" in note for note in report.notes)
