"""Quantized graphs: pairs, integer caches, shared weights, transfer, accuracy, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError
from onnx_llm_passes.ir.interface.roles import Role, find_roles
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import (
    Encoding,
    EncodingsInvalid,
    EncodingTable,
    Evidence,
    NoEvidence,
    encoding_groups,
)
from onnx_llm_passes.ir.quantization.carried import put_table, table_of
from onnx_llm_passes.ir.quantization.qdq import quantized, read_qdq
from onnx_llm_passes.ir.quantization.variants import RULES, Ports, Variant, add_rule, rule_of
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.kv_io import KvIo
from onnx_llm_passes.passes.load_encodings import LoadEncodings
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.tie_states import TieStates
from onnx_llm_passes.passes.transfer_encodings import TransferEncodings
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.calibrate.feed import Feeder
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.session.session import Session

from .builders import BUILDERS
from .quantized_graphs import delta_decoder, fused_decoder
from .renaming import rename_everything

FOUR = Tiny(layers=4, hidden=64, heads=4, kv_heads=2, head=16, ffn=96)
RANDOM = np.random.default_rng(3)
TEXTS = [RANDOM.integers(0, 128, 48) for _ in range(3)]
HELD_OUT = RANDOM.integers(0, 128, 48)
IDIOMS = ["append", "append other axes", "append three dims", "append dynamo", "scatter", "scatter elements"]


def calibrated(model: ir.Model, chunk: int = 16) -> Program:
    program = Program(graphs={"model": model})
    put_table(program, calibrate(program, TEXTS, Plan(chunk=chunk)))
    return program


def logits(model: ir.Model, tokens: np.ndarray, chunk: int = 1) -> np.ndarray:
    feeder = Feeder.of(model, chunk, len(tokens))
    session, found = Session(feeder.model), list[np.ndarray]()
    states = {state.output.name for state in feeder.states}

    def run(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = session.run(arrays)
        found.append(next(array for name, array in results.items() if name not in states))
        return results

    for _ in feeder.feed(tokens, run):
        pass
    return np.concatenate(found, axis=1)[0].astype(np.float64)


def sqnr(exact: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - other) ** 2).sum()))


def divergence(exact: np.ndarray, other: np.ndarray) -> float:
    p, q = (x - x.max(-1, keepdims=True) for x in (exact, other))
    p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def quantize(program: Program, **options: object) -> Program:
    TieStates().run(program)
    InsertQdq(**options).run(program)
    return program


@pytest.mark.parametrize("build", [delta_decoder, fused_decoder])
def test_delta_and_fused_caches_become_integers_too(build: Callable[[], ir.Model]) -> None:
    exact = logits(build(), HELD_OUT)
    program = quantize(calibrated(build()))
    KvIo().run(program)
    model = program.graphs["model"]
    for state in find_states(model):
        assert (state.input.dtype, state.output.dtype) == (ir.DataType.INT8, ir.DataType.INT8)
    applied = table_of(program).encodings
    for state in find_states(build()):
        assert applied[state.input.name] == applied[state.output.name]
    assert sqnr(exact, logits(model, HELD_OUT)) > 25
    assert sqnr(exact, logits(model, HELD_OUT, 16)) > 25


@pytest.mark.parametrize("build", [delta_decoder, fused_decoder])
def test_delta_and_fused_graphs_are_calibrated_alike_in_chunks_and_steps(build: Callable[[], ir.Model]) -> None:
    tables = [calibrate(Program(graphs={"g": build()}), TEXTS, Plan(chunk=chunk)) for chunk in (16, 1)]
    for name, seen in tables[0].ranges.items():
        if seen.usable:
            span = max(seen.high, 0) - min(seen.low, 0)
            other = tables[1].ranges[name]
            assert abs(min(seen.low, 0) - min(other.low, 0)) <= 1e-5 * span
            assert abs(max(seen.high, 0) - max(other.high, 0)) <= 1e-5 * span


@pytest.mark.parametrize("name", IDIOMS)
def test_a_graph_with_an_integer_cache_runs_and_is_close(name: str) -> None:
    exact = logits(BUILDERS[name](), HELD_OUT)
    program = quantize(calibrated(BUILDERS[name]()))
    KvIo().run(program)
    model = program.graphs["model"]
    for state in find_states(model):
        assert (state.input.dtype, state.output.dtype) == (ir.DataType.INT8, ir.DataType.INT8)
    assert sqnr(exact, logits(model, HELD_OUT)) > 25


@pytest.mark.parametrize("name", IDIOMS)
def test_no_rounding_again_on_the_cache_path(name: str) -> None:
    program = quantize(calibrated(BUILDERS[name]()))
    model = program.graphs["model"]
    applied = read_qdq(model)
    for group in encoding_groups(BUILDERS[name]()):
        grids = {(e.scale, e.zero_point, e.bits) for n, e in applied.encodings.items() if n in group.names()}
        assert len(grids) == 1
        assert {group.states[0].input.name, group.leader.name} <= set(applied.encodings)


def told(model: ir.Model) -> tuple[dict[str, Role], list[tuple[object, ...]]]:
    """What is known of a graph's inputs and states."""
    states = find_states(model)
    places = [(s.input.name, s.output.name, s.layout, s.axis, s.kind, s.layer) for s in states]
    return find_roles(model, states), places


@pytest.mark.parametrize("name", IDIOMS)
def test_a_renamed_graph_is_still_understood_when_it_is_quantized(name: str) -> None:
    """No name helps here: masks, positions, keys and values are told through the pairs."""
    model = BUILDERS[name]()
    rename_everything(model, random.Random(5))
    before = told(model)
    program = quantize(calibrated(model))
    assert told(model) == before
    KvIo().run(program)
    assert told(model) == before
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = "com.microsoft"
    assert told(model) == before


def test_a_sixteen_bit_cache() -> None:
    program = calibrated(append_decoder())
    exact = logits(program.graphs["model"], HELD_OUT)
    TieStates(bits=16).run(program)
    InsertQdq().run(program)
    with pytest.raises(PassRefused, match="another width"):
        KvIo(bits=8).run(program)
    KvIo(bits=16).run(program)
    caches = [value for value in program.graphs["model"].graph.inputs if value.name.startswith("past")]
    assert {value.dtype for value in caches} == {ir.DataType.INT16}
    assert sqnr(exact, logits(program.graphs["model"], HELD_OUT)) > 25


def test_prefill_calibration_is_as_good_as_step_by_step() -> None:
    exact = logits(append_decoder(FOUR), HELD_OUT)
    found = {}
    for chunk in (48, 1):
        program = quantize(calibrated(append_decoder(FOUR), chunk))
        found[chunk] = logits(program.graphs["model"], HELD_OUT)
    assert abs(sqnr(exact, found[48]) - sqnr(exact, found[1])) <= 0.3
    by_chunk, by_step = (divergence(exact, found[chunk]) for chunk in (48, 1))
    assert abs(by_chunk - by_step) <= 0.05 * by_step


def test_decode_and_prefill_of_a_quantized_graph_agree() -> None:
    model = quantize(calibrated(append_decoder())).graphs["model"]
    step, chunk = logits(model, HELD_OUT), logits(model, HELD_OUT, 16)
    assert sqnr(step, chunk) > 35


def test_an_untied_past_is_an_error_not_a_default_scale() -> None:
    program = calibrated(append_decoder())
    table = table_of(program)
    TieStates().run(program)
    tied = table_of(program)
    past = find_states(program.graphs["model"])[0].input.name
    tied.encodings[past] = Encoding((1.0,), (0,), 8, signed=True)  # what a quantizer writes for an empty past
    put_table(program, tied)
    before = program.graphs["model"].graph.num_nodes()
    with pytest.raises(PassRefused, match=r"not tied.*tie-states"):
        InsertQdq().run(program)
    put_table(program, table)
    with pytest.raises(PassRefused, match="not tied"):
        InsertQdq().run(program)
    assert program.graphs["model"].graph.num_nodes() == before


def test_the_silent_failure_would_have_been_terrible() -> None:
    """What the refusal saves from: the same graph with scale 1.0 on its past."""
    exact = logits(append_decoder(), HELD_OUT)
    good = sqnr(exact, logits(quantize(calibrated(append_decoder())).graphs["model"], HELD_OUT))
    bad = quantize(calibrated(append_decoder())).graphs["model"]
    for state in find_states(bad):
        node = next(n for n, _ in state.input.uses() if n.op_type == "QuantizeLinear")
        scale = node.inputs[1]
        scale.const_value = ir.tensor(np.float32(1.0), name=scale.name)
    assert sqnr(exact, logits(bad, HELD_OUT)) < good - 10


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


def test_a_quantized_file_gives_its_encodings_to_a_float_graph(tmp_path: Path) -> None:
    quantized_program = quantize(calibrated(append_decoder()))
    quantized_program.save(tmp_path / "q")
    again = Program(graphs={"model": append_decoder()})
    LoadEncodings(tmp_path / "q" / "model.onnx").run(again)
    InsertQdq().run(again)
    first = ir.to_proto(quantized_program.graphs["model"]).SerializeToString()
    assert ir.to_proto(again.graphs["model"]).SerializeToString() == first


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


def test_zero_filled_rows_of_a_cache_come_back_as_zero() -> None:
    program = quantize(calibrated(scatter_decoder()))
    KvIo().run(program)
    applied = table_of(program).encodings
    for state in find_states(program.graphs["model"]):
        assert applied[state.input.name].zero_point == (0,)
        assert quantized(np.zeros(3, np.float32), applied[state.input.name]).tolist() == [0, 0, 0]


def saved(program: Program, folder: Path) -> Path:
    program.save(folder)
    return folder


def test_encodings_go_to_a_clone_by_name_and_to_a_renamed_one_by_structure(tmp_path: Path) -> None:
    source = calibrated(append_decoder(FOUR))
    TieStates().run(source)
    place = saved(source, tmp_path / "calibrated")
    same = Program(graphs={"decode": append_decoder(FOUR)})
    report = TransferEncodings(place).run(same)
    assert report.counts["by_structure"] == report.counts["unmatched"] == 0
    assert table_of(same).encodings == table_of(source).encodings
    model = append_decoder(FOUR)
    names = rename_everything(model, random.Random(4))
    other = Program(graphs={"decode": model})
    TransferEncodings(place).run(other)
    renamed = table_of(other)
    for name, encoding in table_of(source).encodings.items():
        assert renamed.encodings[names.get(name, name)] == encoding
    for name, seen in table_of(source).ranges.items():
        assert renamed.ranges[names.get(name, name)] == seen
    assert InsertQdq().run(other).counts["activations"] > 100


def test_transfer_refuses_other_weights_and_other_operators(tmp_path: Path) -> None:
    place = saved(calibrated(append_decoder()), tmp_path / "calibrated")
    with pytest.raises(PassRefused, match="other weights"):
        TransferEncodings(place).run(Program(graphs={"g": append_decoder(seed=9)}))
    swapped = append_decoder()
    node = next(node for node in swapped.graph if node.op_type == "Sigmoid")
    node.op_type = "Tanh"
    with pytest.raises(PassRefused, match="Sigmoid and Tanh"):
        TransferEncodings(place).run(Program(graphs={"g": swapped}))
    empty = saved(Program(graphs={"g": append_decoder()}), tmp_path / "empty")
    with pytest.raises(PassRefused, match="holds no encodings"):
        TransferEncodings(empty).run(Program(graphs={"g": append_decoder()}))


def test_transfer_guesses_nothing_where_one_graph_has_more_of_a_kind(tmp_path: Path) -> None:
    place = saved(calibrated(append_decoder()), tmp_path / "calibrated")
    model = append_decoder()
    names = rename_everything(model, random.Random(4))
    node = next(node for node in model.graph if node.op_type == "Sigmoid")
    twin = ir.node("Sigmoid", [node.inputs[0]], name="twin")
    twin.outputs[0].name = "twin_output"
    model.graph.insert_after(node, twin)
    program = Program(graphs={"g": model})
    report = TransferEncodings(place).run(program)
    assert report.counts["unmatched"] > 0
    known = table_of(program)
    assert {node.outputs[0].name, "twin_output"}.isdisjoint(known.ranges)
    other = next(node for node in model.graph if node.op_type == "Sigmoid" and node.outputs[0].name in known.ranges)
    source = {new: old for old, new in names.items()}[other.outputs[0].name]
    assert known.ranges[other.outputs[0].name] == table_of(Program.load(place)).ranges[source]


def test_transfer_refuses_a_name_that_stands_twice(tmp_path: Path) -> None:
    place = saved(calibrated(append_decoder()), tmp_path / "calibrated")
    model = append_decoder()
    first, second = [node for node in model.graph if node.op_type == "Sigmoid"][:2]
    second.outputs[0].name = first.outputs[0].name
    with pytest.raises(PassRefused, match="two values are named"):
        TransferEncodings(place).run(Program(graphs={"g": model}))


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


def test_transfer_tells_what_an_extra_node_left_without_a_partner(tmp_path: Path) -> None:
    place = saved(calibrated(append_decoder()), tmp_path / "calibrated")
    model = append_decoder()
    rename_everything(model, random.Random(4))
    node = next(node for node in model.graph if node.op_type == "Sigmoid")
    extra = ir.node("Relu", [node.outputs[0]], name="extra")
    extra.outputs[0].name = "extra_output"
    node.outputs[0].replace_all_uses_with(extra.outputs[0])
    extra.replace_input_with(0, node.outputs[0])
    model.graph.insert_after(node, extra)
    program = Program(graphs={"g": model})
    report = TransferEncodings(place).run(program)
    assert report.counts["unmatched"] > 0
    assert "found no tensor here" in report.warnings[0]
    with pytest.raises((NoEvidence, PassRefused)):
        InsertQdq().run(program)


def test_the_preset_does_it_all(tmp_path: Path) -> None:
    from onnx_llm_passes.ir.quantization import print_encodings

    program = Program(graphs={"model": append_decoder()})
    file = tmp_path / "encodings.json"
    file.write_text(print_encodings(calibrate(program, TEXTS)), encoding="utf-8")
    PassManager(parse_pipeline(f'quantize{{file="{file}"}}')).run(program)
    assert find_states(program.graphs["model"])[0].input.dtype is ir.DataType.INT8
    program.save(tmp_path / "out")
    assert (tmp_path / "out" / "encodings.json").is_file()
    again = Program.load(tmp_path / "out")
    assert table_of(again).encodings == table_of(program).encodings
    exact = logits(append_decoder(), HELD_OUT)
    assert sqnr(exact, logits(again.graphs["model"], HELD_OUT)) > 25


def test_a_graph_without_a_past_is_given_whole_texts() -> None:
    """A prefill graph that only gives its cache is calibrated in one run a text, whatever the chunk."""
    from .append_graphs import half_paired, no_states

    program = Program(graphs={"g": no_states()})
    first, second = (calibrate(program, TEXTS, Plan(chunk=chunk)) for chunk in (4, 64))
    assert first.ranges == second.ranges
    with pytest.raises(PassRefused, match="cannot be carried"):
        calibrate(Program(graphs={"g": half_paired("input")}), TEXTS)


def test_the_delta_sample_is_one() -> None:
    assert {state.layout for state in find_states(delta_decoder())} == {Layout.DELTA}
    assert {state.layout for state in find_states(fused_decoder())} == {Layout.FUSED}


def test_a_present_without_a_past_becomes_integers_as_the_decode_graph_expects() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (int64[B,S] input_ids) => (float[B,2,S,8] y, float[B,2,S,8] present_key, float[B,2,S,8] present_value)
    <float[32,16] table = {TABLE}, int64[4] heads = {0, 0, 2, 8}> {
       x = Gather (table, input_ids)
       split = Reshape (x, heads)
       present_key = Transpose <perm = [0, 2, 1, 3]> (split)
       present_value = Neg (present_key)
       turned = Transpose <perm = [0, 1, 3, 2]> (present_key)
       scores = MatMul (present_key, turned)
       weights = Softmax (scores)
       y = MatMul (weights, present_value)
    }""".replace("TABLE", ", ".join(f"{number:.3f}" for number in RANDOM.standard_normal(512)))
    program = Program(graphs={"g": ir.from_onnx_text(text)})
    put_table(program, calibrate(program, [np.arange(20)]))
    quantize(program)
    assert KvIo().run(program).counts["states"] == 2
    outputs = {value.name: value.dtype for value in program.graphs["g"].graph.outputs}
    assert outputs == {
        "y": ir.DataType.FLOAT,
        "present_key": ir.DataType.INT8,
        "present_value": ir.DataType.INT8,
    }
    results = Session(program.graphs["g"]).run({"input_ids": np.arange(20)[None, :]})
    assert {results[name].dtype for name in ("present_key", "present_value")} == {np.dtype(np.int8)}
