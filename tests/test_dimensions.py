"""Dimensions: what each one is, which symbols are one, and bindings under the graph's own names."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_llm_passes.ir.interface.axes import Axis, Buffers
from onnx_llm_passes.ir.interface.dimensions import analyze_dimensions
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.serialization.loading import load_graph
from onnx_llm_passes.ir.shapes.demands import Relation, demands_of
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.ir.symbolic.dims import parse, substitute
from onnx_llm_passes.ir.symbolic.equations import Equation, Solution
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

from .append_graphs import append_dynamo, append_three_dims, no_states
from .builders import BUILDERS


def meanings(model: ir.Model) -> dict[str, str]:
    found = analyze_dimensions(model)
    return {name: found.meaning(name).value for name in found.needed}


def test_written_caches() -> None:
    assert meanings(scatter_decoder(batch_index=True)) == {
        "batch_size": "batch",
        "seq_len": "seq",
        "full_batch_size": "cache batch",
        "ctx_len": "ctx",
    }


def test_grown_caches() -> None:
    assert meanings(append_decoder()) == {
        "batch_size": "batch",
        "sequence_length": "seq",
        "past_sequence_length": "past",
    }
    assert meanings(append_three_dims()) == {"batch": "batch", "seq": "seq", "past": "past"}


def test_unrelated_symbols_of_equal_dimensions_are_one() -> None:
    found = analyze_dimensions(append_dynamo())
    assert found.solution.solved["s43"] == parse("s10")
    assert found.solution.solved["s53"] == parse("s15 + s70")
    assert found.solution.reasons["s43"] == ("attention_mask[0] and input_ids[0] are both batch",)
    assert found.solution.reasons["s53"] == ("And '/And' takes both",)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_renamed_graph_has_the_same_meanings(name: str) -> None:
    plain = analyze_dimensions(BUILDERS[name]())
    model = BUILDERS[name]()
    for number, value in enumerate((*model.graph.inputs, *model.graph.outputs)):
        value.name = f"tensor_{number}"
    renamed = analyze_dimensions(model)
    assert [place.meaning for place in renamed.places] == [place.meaning for place in plain.places]
    assert renamed.solution.solved == plain.solution.solved


def test_a_mask_without_states_covers_the_tokens() -> None:
    model = no_states()
    mask = next(value for value in model.graph.inputs if value.name == "attention_mask")
    mask.shape = ir.Shape(["mask_batch", "mask_length"])
    found = analyze_dimensions(model)
    assert found.solution.solved == {"mask_batch": parse("batch"), "mask_length": parse("seq")}


def test_numbers_written_as_symbols_are_numbers() -> None:
    model = append_decoder()
    for value in model.graph.inputs:
        if (value.name or "").startswith("past"):
            heads, width = value.shape[1], value.shape[3]  # pyright: ignore[reportOptionalSubscript]
            value.shape = ir.Shape(["batch_size", str(heads), "past_sequence_length", str(width)])
    assert analyze_dimensions(model).needed == ("batch_size", "sequence_length", "past_sequence_length")


def test_sizes_by_meaning_become_a_binding_under_the_graphs_names() -> None:
    found = analyze_dimensions(append_dynamo())
    binding = found.bind({Axis.BATCH: 2, Axis.SEQ: 5, Axis.PAST: 27})
    assert binding == {"s10": 2, "s70": 5, "s43": 2, "s53": 32, "s15": 27}
    assert found.bind({Axis.BATCH: 2, Axis.SEQ: 5, Axis.TOTAL: 32}) == binding
    assert found.complete({"s10": 2, "s70": 5, "s15": 27}) == binding
    assert found.size(Axis.TOTAL, {"s70": 5, "s15": 27}) == 32


def test_a_given_size_is_kept_where_it_contradicts() -> None:
    found = analyze_dimensions(append_dynamo())
    assert found.complete({"s10": 2, "s43": 3})["s43"] == 3


def test_outputs_are_told_by_propagation() -> None:
    found = analyze_dimensions(scatter_decoder())
    assert found.derived == ("Castlogits_dim_0", "Castlogits_dim_1")
    assert found.solution.solved["Castlogits_dim_0"] == parse("batch_size")
    assert found.solution.solved["Castlogits_dim_1"] == 1


SYMBOLS = st.sampled_from("abcd")


@given(st.lists(st.tuples(SYMBOLS, SYMBOLS, st.integers(-3, 3)), max_size=6))
def test_solutions_satisfy_their_equations(pairs: list[tuple[str, str, int]]) -> None:
    solution = Solution(lambda name: (ord(name),))
    equations = [Equation(parse(a), parse(b) + shift, "given") for a, b, shift in pairs]
    for equation in equations:
        solution.add(equation)
    free = {name: number for number, name in enumerate("abcd", start=11) if name not in solution.solved}
    values = {name: substitute(solution.reduce(parse(name)), free) for name in "abcd"}
    for equation in equations:
        holds = substitute(equation.left, values) == substitute(equation.right, values)
        assert holds or any(equation is broken for broken in solution.broken)


@pytest.mark.parametrize(
    ("relation", "holding", "broken"),
    [
        (Relation.EQUAL, (3, 3), (3, 1)),
        (Relation.BROADCAST, (3, 1), (3, 2)),
        (Relation.MULTIPLE, (6, 3), (7, 3)),
        (Relation.AT_MOST, (3, 3), (4, 3)),
    ],
)
def test_relations(relation: Relation, holding: tuple[int, int], broken: tuple[int, int]) -> None:
    assert relation.holds(*holding)
    assert not relation.holds(*broken)


def text(body: str, inputs: str, outputs: str) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {{ {body} }}')


DEMANDS = {
    "matmul": ("y = MatMul (a, b)", "float[n, k] a, float[m, p] b", "float[n, p] y", "k EQUAL m"),
    "add": ("y = Add (a, b)", "float[n] a, float[m] b", "float[q] y", "n BROADCAST m"),
    "concat": ("y = Concat <axis = 0> (a, b)", "float[n, k] a, float[m, p] b", "float[q, k] y", "k EQUAL p"),
    "squeeze": ("y = Squeeze (a, z)", "float[n, k] a, int64[1] z", "float[k] y", ""),
    "gemm": ("y = Gemm <transB = 1> (a, b)", "float[n, k] a, float[m, p] b", "float[n, m] y", "k EQUAL p"),
    "einsum": ('y = Einsum <equation = "ij,jk->ik"> (a, b)', "float[n, k] a, float[m, p] b", "float[n, p] y",
               "k BROADCAST m"),
    "scatter": (
        "y = ScatterElements (a, i, u)", "float[n] a, int64[m] i, float[k] u", "float[n] y", "m EQUAL k"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEMANDS)
def test_nodes_state_their_demands(name: str) -> None:
    body, inputs, outputs, wanted = DEMANDS[name]
    found = [f"{d.left} {d.relation.name} {d.right}" for d in demands_of(text(body, inputs, outputs)).items]
    assert found == ([wanted] if wanted else [])


def test_a_demand_inside_a_function_names_the_call() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 18, "own" : 1]> g (float[n] a, float[m] b) => (float[q] y)'
        ' { [outer] y = own.sum (a, b) } <domain: "own", opset_import: ["" : 18]> sum (u, v) => (w)'
        " { [inner] w = Add (u, v) }"
    )
    (demand,) = demands_of(model).items
    assert demand.place == "Add 'inner' in sum 'outer'"


def real(model: str) -> ir.Model:
    place = os.environ.get("ONNX_PASSES_MODELS")
    if not place:
        pytest.skip("ONNX_PASSES_MODELS names no folder of exported models")
    return next(iter(Program.load(Path(place) / model).graphs.values()))


def test_real_head_dim_comes_from_widths() -> None:
    found = analyze_dimensions(real("genai-llama-fp32-cpu/model.onnx"))
    assert found.solution.solved["kv_cache_dim"] == 16
    assert found.solution.solved["total_sequence_length"] == parse("past_sequence_length + sequence_length")


def test_real_shared_buffers_hold_the_context() -> None:
    found = analyze_dimensions(real("genai-llama-fp32-cpu/model.onnx"), buffers=Buffers.SHARED)
    assert found.solution.solved["total_sequence_length"] == parse("past_sequence_length")
    assert found.meaning("past_sequence_length") is Axis.CTX


def test_real_unrelated_pasts_are_one() -> None:
    found = analyze_dimensions(real("torch-flat-qwen3-sdpa/model.onnx"))
    assert {name: str(dim) for name, dim in found.solution.solved.items()} == {
        "s43": "s10",
        "s89": "s15",
        "s81": "s15",
        "s53": "s15 + s70",
    }


def test_real_pictures() -> None:
    found = analyze_dimensions(real("qeff-qwen3vl-kv/Qwen3VLForConditionalGeneration.onnx"))
    meanings = {name: found.meaning(name) for name in found.needed}
    assert meanings["grid_height"] is Axis.PATCHES
    assert meanings["grid_width"] is Axis.PATCH_WIDTH
    assert (meanings["time"], meanings["grid_h"], meanings["grid_w"]) == (
        Axis.TIME,
        Axis.GRID_HEIGHT,
        Axis.GRID_WIDTH,
    )


@pytest.mark.parametrize(("bits", "rows", "width"), [(8, "int8", 8), (4, "uint8", 4)])
def test_a_rounded_cache_is_as_wide_as_its_numbers_are_packed(bits: int, rows: str, width: int) -> None:
    model = ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float[B, S, 8] q, float[B, S, 8] k, float[B, S, 8] v, {rows}[B, 1, past, D] a, {rows}[B, 1, past, D] b,
           int32[B] last, int32 total)
        => (float[B, S, 8] y, {rows}[B, 1, T, D] c, {rows}[B, 1, T, D] d) <float[1] s = {{0.01}}> {{
           y, c, d = com.microsoft.GroupQueryAttention <num_heads = 1, kv_num_heads = 1, kv_cache_bit_width = {bits}>
               (q, k, v, a, b, last, total, , , , , , s, s)
        }}
    """)
    assert analyze_dimensions(model).complete({})["D"] == width


def test_a_paged_cache_has_no_axis_that_grows() -> None:
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float[N, 8] q, float[N, 8] k, float[N, 8] v, float[blocks, 256, 1, 8] a, float[blocks, 256, 1, 8] b,
           int32[C] ends, int32[B] held, int32[B, M] table)
        => (float[N, 8] y, float[blocks, 256, 1, 8] c, float[blocks, 256, 1, 8] d) {
           y, c, d = com.microsoft.PagedAttention <num_heads = 1, kv_num_heads = 1> (q, k, v, a, b, ends, held, table)
        }
    """)
    assert [(state.layout, state.axis) for state in find_states(model)] == [(Layout.FUSED, None)] * 2


def test_dimensions_named_by_digits_are_numbers_once_a_graph_is_loaded(tmp_path: Path) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> g (float[B, "2", "16"] x) => (float[B, "2", 16] y) { y = Relu (x) }'
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx").model.graph
    assert [list(map(str, value.shape or ())) for value in (*graph.inputs, *graph.outputs)] == [["B", "2", "16"]] * 2
    assert all(isinstance(dim, int) for value in (*graph.inputs, *graph.outputs) for dim in list(value.shape or ())[1:])
