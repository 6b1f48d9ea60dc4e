"""verify on programs: clones replay a text as the original does, and every way of being wrong shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import NotEqualError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.clone_decode import CloneDecode
from onnx_llm_passes.passes.keep_last_logits import KeepLastLogits
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.host import Host
from onnx_llm_passes.runtime.decode.kv_cache import Caches
from onnx_llm_passes.runtime.decode.step import Step
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.closeness import OTHER_SUMS, compare_rows, sums_of
from onnx_llm_passes.runtime.verify.replay import proposals
from onnx_llm_passes.runtime.verify.report import Verdict
from onnx_llm_passes.runtime.verify.verify import verify

from .cross_graphs import cross_decoder
from .scatter_graphs import scatter_shared_positions


def cloned(model: ir.Model, **options: Any) -> Program:
    program = Program({"model": model})
    CloneDecode(**{"ctx": 32, "k": (0, 1, 4), "prefill": 8, **options}).run(program)
    return program


def kept_rows(**options: Any) -> ir.Model:
    model = scatter_decoder(**options)
    KeepLastLogits(symbol="num_logits_to_keep").call(model)
    return model


@pytest.mark.parametrize(
    "build", [append_decoder, kept_rows, lambda: kept_rows(batch_index=True)], ids=["append", "scatter", "cb"]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_clones_are_bit_equal_on_the_same_inputs(build: Callable[[], ir.Model], batch: int) -> None:
    report = verify(Program({"model": build()}), cloned(build(), k=(0, 1, 4, 8), batch=batch))
    assert report.equal, report.first_difference
    same = [case for case in report.cases if "same inputs" in case.case]
    assert len(same) == 5
    assert all(output.max_abs == 0 for case in same for output in case.outputs)
    assert {output.output for case in same for output in case.outputs} > {"logits"}
    tokens = [output for case in report.cases for output in case.outputs if output.output == "tokens"]
    assert len(tokens) == 5
    assert all(output.equal and output.max_abs == 0 for output in tokens)


def test_positions_that_a_batch_shares_hold_no_padding() -> None:
    report = verify(Program({"model": scatter_shared_positions()}), cloned(scatter_shared_positions()))
    assert report.equal, report.first_difference
    assert report.runs == 2 * 4  # prefill and three decodes: on the same inputs, and token by token


def _scaled() -> ir.Model:
    """Logits times an input of one random number, which nothing explains."""
    model = append_decoder()
    scale = ir.Value(name="scale", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    logits = model.graph.outputs[0]
    node = ir.node("Mul", [logits, scale])
    node.outputs[0].type, node.outputs[0].shape = logits.type, logits.shape
    logits.name, node.outputs[0].name = "unscaled", logits.name
    model.graph.append(node)
    model.graph.inputs.append(scale)
    model.graph.outputs[0] = node.outputs[0]
    return model


def test_inputs_that_nothing_explains_are_the_same_in_every_run() -> None:
    report = verify(Program({"model": _scaled()}), cloned(_scaled()))
    assert report.equal, report.first_difference
    assert any("token by token" in case.case for case in report.cases)


@pytest.mark.parametrize("own_mask", [False, True])
def test_clones_see_the_encoder_that_the_original_sees(own_mask: bool) -> None:
    program = Program({"model": cross_decoder(own_mask=own_mask)})
    text = "convert-states,clone-decode{ctx=32 k=0,3 prefill=8 bind=frames:5}"
    report = verify(
        program, PassManager(parse_pipeline(text)).run(Program({"model": cross_decoder(own_mask=own_mask)}))
    )
    assert report.equal, report.first_difference
    assert len([case for case in report.cases if "token by token" in case.case]) == 3


def without_embedding() -> ir.Model:
    """The decoder from its embedded rows on, as exporters leave the table to the host."""
    model = append_decoder()
    graph = model.graph
    ids = graph.inputs[0]
    lookup = next(node for node in graph if node.op_type == "Gather" and node.inputs[1] is ids)
    rows = ir.Value(name="inputs_embeds", type=ir.TensorType(ir.DataType.FLOAT))
    rows.shape = ir.Shape(["batch_size", "sequence_length", 32])
    lookup.outputs[0].replace_all_uses_with(rows)
    graph.remove(lookup, safe=True)
    for use in list(ids.uses()):
        use.node.replace_input_with(use.idx, rows)
    graph.inputs[0] = rows
    return model


def test_the_same_token_has_the_same_embedding_in_every_run() -> None:
    report = verify(Program({"model": without_embedding()}), cloned(without_embedding()))
    assert report.equal, report.first_difference
    assert any("token by token" in case.case for case in report.cases)


def with_hidden_rows() -> ir.Model:
    """The decoder that hands out what its head reads, before the logits."""
    model = append_decoder()
    head = model.graph.outputs[0].producer()
    assert head is not None and head.inputs[0] is not None
    rows = head.inputs[0]
    rows.type, rows.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch_size", "sequence_length", 32])
    model.graph.outputs.insert(0, rows)
    return model


def test_logits_are_told_from_hidden_rows_that_leave_before_them() -> None:
    text = "convert-states,keep-last-logits{symbol=kept},clone-decode{ctx=32 k=0,2 prefill=8},check"
    before = Program({"model": with_hidden_rows()})
    result = PassManager(parse_pipeline(text)).run(Program({"model": with_hidden_rows()}))
    assert {item["name"]: item["logits_rows"] for item in map(dict, result.specializations)} == {
        "prefill": 1,
        "decode_k0": 1,
        "decode_k2": 3,
    }
    report = verify(before, result)
    assert report.equal, report.first_difference


def test_tokens_whose_logits_are_as_large_are_the_same() -> None:
    expected, near, far = (
        np.array([[1.0, 2.0, 2.0 - 1e-6]]),
        np.array([[1.0, 2.0 - 1e-6, 2.0]]),
        np.array([[3.0, 2, 2]]),
    )
    assert all(found.equal for found in compare_rows(expected, near, 2e-6))
    assert not any(found.equal for found in compare_rows(expected, far, 2e-6))
    assert compare_rows(expected, np.array([2]), 2e-6)[0].equal
    assert not compare_rows(expected, np.array([0]), 2e-6)[0].equal


def test_activations_of_8_bits_may_round_otherwise() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float[n, 16] x, uint8[4, 1, 8] w, float[4] s) => (float[n, 4] y)
        {
           y = com.microsoft.MatMulNBits <K = 16, N = 4, bits = 4, block_size = 16, accuracy_level = LEVEL> (x, w, s)
        }"""
    exact, rounded = (sums_of(ir.from_onnx_text(text.replace("LEVEL", level))) for level in ("1", "4"))
    assert exact == OTHER_SUMS < rounded


def test_loaded_clones_verify_too(tmp_path: Path) -> None:
    cloned(append_decoder()).save(tmp_path)
    assert verify(Program({"model": append_decoder()}), Program.load(tmp_path)).equal


@pytest.mark.parametrize("options", ["", "static=false", "fold=true", "batch=2 fold=true"])
def test_a_converted_program_is_compared_token_by_token(options: str) -> None:
    program = Program({"model": append_decoder()})
    clones = f"clone-decode{{ctx=48 k=0,4 prefill=8 {options}}}"
    text = f"convert-states,keep-last-logits{{symbol=rows}},{clones}"
    PassManager(parse_pipeline(text)).run(program)
    report = verify(Program({"model": append_decoder()}), program)
    assert report.equal, report.first_difference
    assert [case.case.rpartition(", ")[2] for case in report.cases] == ["the original token by token"] * 3
    assert 0 <= report.max_rel <= 2e-6


@pytest.mark.parametrize("preset", ["speculative{k=0,1,4 prefill=16 ctx=64}", "prefill-decode{prefill=16 ctx=64}"])
def test_presets(tmp_path: Path, preset: str) -> None:
    program = Program({"model": append_decoder()})
    PassManager(parse_pipeline(preset)).run(program)
    assert program.names == ["model"]
    assert program.specializations[0].name == "Prefill"
    assert "compile_args.json" in program.artifacts
    program.save(tmp_path)
    assert verify(Program({"model": append_decoder()}), Program.load(tmp_path)).equal


def _scaled_weight(program: Program) -> None:
    value = program.graphs["decode_k4"].graph.initializers["lm_head.weight"]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.0001))


def _other_rows(program: Program) -> None:
    """The cache is written one position too far."""
    graph = program.graphs["decode_k4"].graph
    positions = next(value for value in graph.inputs if value.name == "position_ids")
    one = ir.Value(
        name="one", const_value=ir.tensor(np.int64(1)), type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([])
    )
    graph.register_initializer(one)
    uses = list(positions.uses())
    node = ir.Node("", "Add", [positions, one], name="shift")
    node.outputs[0].name = "shifted"
    graph.insert_before(graph[0], node)
    for use in uses:
        use.node.replace_input_with(use.idx, node.outputs[0])


def _lost_cache(program: Program) -> None:
    """Keys leave as they came in: the first run is right, later ones miss its rows."""
    graph = program.graphs["decode_k4"].graph
    past = next(value for value in graph.inputs if "key.0" in (value.name or "") or "0.key" in (value.name or ""))
    at, old = next((i, v) for i, v in enumerate(graph.outputs) if v.shape == past.shape or "key" in (v.name or ""))
    node = ir.Node("", "Identity", [past], name="lost")
    node.outputs[0].name, old.name = old.name, "old"
    node.outputs[0].type, node.outputs[0].shape = past.type, past.shape
    graph.append(node)
    graph.outputs[at] = node.outputs[0]


@pytest.mark.parametrize("fault", [_scaled_weight, _other_rows, _lost_cache])
def test_a_faulty_clone_is_found(fault: Callable[[Program], None]) -> None:
    program = cloned(kept_rows(no_index=0), k=(0, 4))
    program.unshare()
    fault(program)
    report = verify(Program({"model": kept_rows(no_index=0)}), program)
    assert report.verdict is Verdict.DIFFERENT
    assert {case.graph for case in report.cases if not case.equal} == {"decode_k4"}
    with pytest.raises(NotEqualError, match="decode_k4"):
        report.raise_if_different()


def test_a_clone_that_does_not_load_is_a_failure() -> None:
    program = cloned(append_decoder(), k=(0, 4))
    program.unshare()
    node = next(n for n in program.graphs["decode_k4"].graph if n.op_type == "MatMul")
    node.op_type = "Gemm"  # of three dimensions
    report = verify(Program({"model": append_decoder()}), program)
    assert "decode_k4" in report.first_difference
    assert report.verdict is Verdict.DIFFERENT


def test_a_fixed_past_that_nothing_hides_is_compared_on_its_own_inputs_only() -> None:
    model = append_decoder()
    mask = next(value for value in model.graph.inputs if value.name == "attention_mask")
    ones = ir.Node(
        "",
        "ConstantOfShape",
        [_shape_of(model, mask)],
        [ir.AttrTensor("value", ir.tensor(np.ones(1, np.int64)))],
        name="ones",
    )
    ones.outputs[0].name = "all_ones"
    ones.outputs[0].type = mask.type
    uses = [use for use in mask.uses() if use.node.op_type != "Shape"]
    model.graph.insert_after(model.graph[0], ones)
    for use in uses:
        use.node.replace_input_with(use.idx, ones.outputs[0])
    mask.name = "unused"
    original = model.clone()
    report = verify(Program({"model": original}), cloned(model, k=(0, 4)))
    assert report.equal, report.first_difference


def _shape_of(model: ir.Model, value: ir.Value) -> ir.Value:
    node = ir.Node("", "Shape", [value], name="mask_shape")
    node.outputs[0].name = "mask_shape"
    model.graph.insert_before(model.graph[0], node)
    return node.outputs[0]


@pytest.mark.parametrize("k", [0, 1, 4])
def test_steps_propose_many_few_and_none(k: int) -> None:
    steps = [proposals(k, step) for step in range(12)]
    assert all(0 <= right <= made <= k for made, right in steps)
    assert {made for made, _ in steps} == ({0} if k == 0 else {0, 1} if k == 1 else {0, 2, 3, 4})
    assert k == 0 or any(right < made for made, right in steps)


@pytest.mark.parametrize("padded", [True, False])
def test_long_then_partial_then_long_proposals_leave_no_trace(padded: bool) -> None:
    """Positions are a function of (start, count, length) alone: what a step padded or rejected is written over."""
    host = Host.of(kept_rows(no_index=0), "original", 32)
    text = np.random.default_rng(0).integers(0, 60, (1, 24))
    caches, straight = Caches(1), Caches(1)
    for start, count in ((0, 5), (5, 2), (7, 5), (12, 1), (13, 5)):
        tokens = text[:, start : start + 5].copy()
        tokens[:, count:] = 61
        step: Step = host.step(tokens, start, count if padded else 5)
        found = host.rows(host.run(caches, step, count), step)
        for at in range(start, start + count):
            one = host.step(text[:, at : at + 1], at, 1)
            alone = host.rows(host.run(straight, one), one).values[:, 0]
            row = at - start - int(found.first[0])
            if 0 <= row < found.values.shape[1]:
                np.testing.assert_allclose(found.values[:, row], alone, rtol=0, atol=2e-6 * np.abs(alone).max())
    assert caches.held == straight.held == 18


def merged() -> ir.Model:
    """A decoder and its first run in one graph: without ``use_cache`` the past is not looked at."""
    numbers = np.random.default_rng(0).standard_normal(64).round(3)
    table, head = (", ".join(map(str, part)) for part in (numbers[:32], numbers[32:]))
    branch = """
        {k} = {keys}
        m_{k} = Cast <to = 9> (attention_mask) l_{k} = Unsqueeze (m_{k}, one) t_{k} = Transpose <perm = [0, 2, 1]> ({k})
        s_{k} = MatMul (x, t_{k}) b_{k} = Where (l_{k}, s_{k}, low) r_{k} = Shape <start = 1, end = 2> ({k})
        q_{k} = Shape <start = 1, end = 2> (x) p_{k} = Sub (r_{k}, q_{k}) e_{k} = Squeeze (r_{k}, zero)
        a_{k} = Squeeze (p_{k}, zero) n_{k} = Range (first, e_{k}, step) o_{k} = Range (a_{k}, e_{k}, step)
        u_{k} = Unsqueeze (o_{k}, one) c_{k} = LessOrEqual (n_{k}, u_{k}) d_{k} = Where (c_{k}, b_{k}, low)
        w_{k} = Softmax <axis = -1> (d_{k}) y_{k} = MatMul (w_{k}, {k})"""
    then, other = branch.format(k="k1", keys="Concat <axis = 1> (past_key, x)"), branch.format(k="k2", keys="Neg (x)")
    return ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["" : 18]>
        g (int64[B, S] input_ids, int64[B, "past + S"] attention_mask, float[B, past, 4] past_key, bool[1] use_cache)
          => (float[B, S, 8] logits, float[B, "past + S", 4] present_key)
        <float[8, 4] table = {{{table}}}, float[4, 8] head = {{{head}}}, float low = {{-1e30}}, int64[1] zero = {{0}},
         int64[1] one = {{1}}, int64 first = {{0}}, int64 step = {{1}}> {{
           x = Gather (table, input_ids)
           hidden, present_key = If (use_cache) <
             then_branch = with () => (float[B, S, 4] y_k1, float[B, T, 4] k1) {{ {then} }},
             else_branch = without () => (float[B, S, 4] y_k2, float[B, T, 4] k2) {{ {other} }}>
           logits = MatMul (hidden, head)
        }}""")


def test_the_original_takes_the_branch_that_was_selected() -> None:
    text = "select-branch{input=use_cache value=true},convert-states,clone-decode{ctx=24 k=0,2 prefill=8}"
    result = PassManager(parse_pipeline(text)).run(Program({"model": merged()}))
    report = verify(Program({"model": merged()}), result)
    assert report.equal, report.first_difference
    assert report.runs == 3
