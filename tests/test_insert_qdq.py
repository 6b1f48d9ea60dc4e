"""insert-qdq: pairs, rules of operators, weights held once, and what is refused."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import (
    Encoding,
    EncodingsInvalid,
    EncodingTable,
    Evidence,
    NoEvidence,
)
from onnx_llm_passes.ir.quantization.carried import put_table, table_of
from onnx_llm_passes.ir.quantization.qdq import read_qdq
from onnx_llm_passes.ir.quantization.variants import RULES, Ports, Variant, add_rule, rule_of
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.tie_states import TieStates
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .qdq_tools import HELD_OUT, calibrated, logits, quantize, sqnr


def test_pairs_come_back_as_the_table_and_make_the_same_graph() -> None:
    program = quantize(calibrated(append_decoder()))
    first = program.graphs["model"]
    read = read_qdq(first)
    applied = {n: e for n, e in table_of(program).encodings.items() if n in read.encodings}
    assert read.encodings == applied
    assert len(read.encodings) > 100
    again = Program(graphs={"model": append_decoder()})
    put_table(again, EncodingTable(dict(read.encodings)))
    InsertQdq().run(again)
    assert ir.to_proto(again.graphs["model"]).SerializeToString() == ir.to_proto(first).SerializeToString()


def test_a_second_run_changes_nothing() -> None:
    program = quantize(calibrated(append_decoder()))
    once = ir.to_proto(program.graphs["model"]).SerializeToString()
    assert not InsertQdq().run(program).modified
    assert ir.to_proto(program.graphs["model"]).SerializeToString() == once


def test_a_tensor_without_evidence_is_named() -> None:
    program = calibrated(append_decoder())
    table = table_of(program)
    name = next(n for n in table.ranges if "mlp" in n)
    table.ranges[name] = Evidence(0.0, 0.0)
    put_table(program, table)
    TieStates().run(program)
    with pytest.raises(NoEvidence, match=name):
        InsertQdq().run(program)


def test_what_is_kept_stays_in_float() -> None:
    program = calibrated(append_decoder())
    TieStates().run(program)
    InsertQdq(keep=("Softmax", "MatMul")).run(program)
    model = program.graphs["model"]
    for node in model.graph:
        if node.op_type in ("Softmax", "MatMul"):
            makers = [value.producer() for value in node.inputs]
            assert not any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)
    assert any(node.op_type == "QuantizeLinear" for node in model.graph)


def test_an_operator_without_a_rule_is_refused() -> None:
    text = '<ir_version: 10, opset_import: ["" : 21, "x": 1]> g (float[N,4] features) => (float[N,4] y)\n'
    model = ir.from_onnx_text(text + "{ y = x.Strange (features) }")
    program = Program(graphs={"g": model})
    put_table(program, EncodingTable(ranges={n: Evidence(-1.0, 1.0) for n in ("features", "y")}))
    with pytest.raises(PassRefused, match=r"Strange.*keep=Strange"):
        InsertQdq().run(program)
    InsertQdq(keep=("Strange",)).run(program)


def test_rules_go_from_the_exact_variant_to_the_common_one() -> None:
    assert rule_of("MatMul", Variant.DECODE) is Ports.ALL
    add_rule("MatMul", Ports.OUTPUTS, Variant.DECODE)
    try:
        assert rule_of("MatMul", Variant.DECODE) is Ports.OUTPUTS
        assert rule_of("MatMul", Variant.PREFILL) is Ports.ALL
        with pytest.raises(PassRefused, match="has a rule already"):
            add_rule("MatMul", Ports.ALL, Variant.DECODE)
    finally:
        del RULES["MatMul", Variant.DECODE]
    with pytest.raises(PassRefused, match="Strange"):
        rule_of("Strange", Variant.DECODE)


def grids_read(model: ir.Model, op_type: str) -> set[bool]:
    """Whether operators of that type read numbers that come off a grid."""
    nodes = [node for node in model.graph if node.op_type == op_type]
    makers = [[v.producer() for v in node.inputs if v is not None] for node in nodes]
    return {any(m is not None and m.op_type == "DequantizeLinear" for m in made) for made in makers}


@pytest.mark.parametrize("variant", list(Variant))
def test_an_operator_can_opt_in_to_a_variant(variant: Variant) -> None:
    """Exactly this variant, then the common one: the graph shows which of them counted."""
    add_rule("MatMul", Ports.OUTPUTS, Variant.DECODE)
    try:
        program = calibrated(append_decoder())
        quantize(program, variant=variant)
    finally:
        del RULES["MatMul", Variant.DECODE]
    read = True in grids_read(program.graphs["model"], "MatMul")  # not all do: angles are no activations
    assert read is (variant is not Variant.DECODE)
    assert grids_read(program.graphs["model"], "Softmax") == {True}
    weights = [name for name in program.graphs["model"].graph.initializers if name.endswith("/quantized")]
    assert bool(weights) is (variant is not Variant.DECODE)


def test_a_pipeline_can_give_an_operator_a_rule() -> None:
    text = '<ir_version: 10, opset_import: ["" : 21, "x": 1]> g (float[N,4] features) => (float[N,4] y)\n'
    text += "{ a = Relu (features)\n b = x.Strange (a)\n y = Relu (b) }"
    for kind, reads in (("all", True), ("outputs", False)):
        program = Program(graphs={"g": ir.from_onnx_text(text)})
        put_table(program, EncodingTable(ranges={n: Evidence(-1.0, 1.0) for n in ("features", "a", "b", "y")}))
        PassManager(parse_pipeline(f"insert-qdq{{variant=prefill rules=Strange:{kind}}}")).run(program)
        assert grids_read(program.graphs["g"], "Strange") == {reads}
        assert grids_read(program.graphs["g"], "Relu") == {True}
    with pytest.raises(UnknownNameError, match="outputs"):
        InsertQdq(rules={"Strange": "output"}).run(program)


def test_a_zero_point_that_its_type_cannot_hold_is_refused() -> None:
    """It would wrap round, and every number with it."""
    program = calibrated(append_decoder())
    TieStates().run(program)
    table = table_of(program)
    name = next(n for n in table.ranges if "mlp" in n and n not in table.encodings)
    table.encodings[name] = Encoding((0.1,), (5000,), 8)
    put_table(program, table)
    with pytest.raises(EncodingsInvalid, match=f"{name}.*not on its grid.*5000.*0 to 255"):
        InsertQdq().run(program)


def test_weights_are_quantized_once_for_all_graphs() -> None:
    program = calibrated(append_decoder())
    program.graphs["decode"] = program.graphs["model"].clone()
    quantize(program)
    held = [
        {n: v.const_value for n, v in model.graph.initializers.items() if n.endswith("/quantized")}
        for model in program.graphs.values()
    ]
    assert held[0].keys() == held[1].keys()
    assert held[0]
    assert all(held[0][name] is held[1][name] for name in held[0])


def test_a_saved_program_carries_no_weight_that_was_quantized(tmp_path: Path) -> None:
    wide = Tiny(layers=2, hidden=256, heads=4, kv_heads=2, head=64, ffn=688)
    calibrated(append_decoder(wide)).save(tmp_path / "float")
    program = quantize(Program.load(tmp_path / "float"))
    program.save(tmp_path / "quantized")
    floats, rest = (
        sum(path.stat().st_size for path in (tmp_path / name).glob("*.data")) for name in ("float", "quantized")
    )
    table = 128 * 256 * 4  # the embedding table is looked up, not multiplied
    assert floats > 1 << 22
    assert rest < (floats - table) / 4 + table + (1 << 17)
    again = Program.load(tmp_path / "quantized").graphs["model"]
    assert sqnr(logits(append_decoder(wide), HELD_OUT), logits(again, HELD_OUT)) > 25


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_both_widths(bits: int) -> None:
    program = calibrated(append_decoder())
    exact = logits(program.graphs["model"], HELD_OUT)
    quantize(program, weights=f"w{bits}")
    assert sqnr(exact, logits(program.graphs["model"], HELD_OUT)) > {4: 8, 8: 25}[bits]


def test_eight_bit_activations_survive_a_huge_mask_fill() -> None:
    """A fill of -3.4e38 on an 8-bit grid would leave nothing of the scores."""
    program = calibrated(append_decoder())
    exact = logits(program.graphs["model"], HELD_OUT)
    quantize(program, activations="a8")
    assert sqnr(exact, logits(program.graphs["model"], HELD_OUT)) > 15


def test_a_scale_that_the_float_type_cannot_hold_is_refused_without_a_word_of_numpys(
    recwarn: pytest.WarningsRecorder,
) -> None:
    program = calibrated(append_decoder())
    TieStates().run(program)
    table = table_of(program)
    name = next(n for n in table.ranges if "mlp" in n and n not in table.encodings)
    for scale in (1e300, 1e-300):
        table.encodings[name] = Encoding((scale,), (0,), 8)
        put_table(program, table)
        with pytest.raises(EncodingsInvalid, match=f"{name}.*FLOAT cannot hold"):
            InsertQdq().run(program)
    assert not recwarn.list


def test_a_pattern_keeps_what_it_matches() -> None:
    program = calibrated(append_decoder())
    TieStates().run(program)
    everything = [node.name or "" for node in program.graphs["model"].graph if node.op_type == "MatMul"]
    prefix = everything[0][:4]
    InsertQdq(keep=(f"{prefix}*",)).run(program)
    for node in program.graphs["model"].graph:
        fed = [value.producer() for value in node.inputs]
        on_grid = any(maker is not None and maker.op_type == "DequantizeLinear" for maker in fed)
        assert not (on_grid and node.op_type == "MatMul" and (node.name or "").startswith(prefix))


@pytest.mark.parametrize("entry", ["MatMul_lm", "/model/nosuch*", "Conv"])
def test_what_is_kept_must_be_there(entry: str) -> None:
    program = calibrated(append_decoder())
    TieStates().run(program)
    with pytest.raises(UnknownNameError, match="unknown node or operator"):
        InsertQdq(keep=(entry,)).run(program)
