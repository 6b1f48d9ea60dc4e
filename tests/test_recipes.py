"""Recipes: which tensors rules take, what wins, what is counted, and what is refused by name."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes import PassManager, PassRefused, Program, UsageError, parse_pipeline
from onnx_llm_passes.ir.core.encoding import Evidence, NoEvidence
from onnx_llm_passes.ir.core.errors import OnnxPassesError, UnknownNameError
from onnx_llm_passes.ir.core.histogram import Histogram
from onnx_llm_passes.ir.interface.places import places_of
from onnx_llm_passes.ir.quantization import EncodingTable, print_encodings
from onnx_llm_passes.ir.quantization.clip import resolve
from onnx_llm_passes.ir.quantization.decide import Choice
from onnx_llm_passes.ir.quantization.qdq import quantized, read_qdq
from onnx_llm_passes.ir.quantization.recipe import RecipeInvalid, load_recipe, parse_recipe, recipe_schema
from onnx_llm_passes.ir.quantization.recipes import RECIPES
from onnx_llm_passes.ir.quantization.weight_grids import weight_encoding
from onnx_llm_passes.runtime.calibrate.calibrate import Method, Plan, calibrate
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

from .quantized_graphs import fused_decoder
from .renaming import rename_everything

TEXTS = [np.random.default_rng(5).integers(0, 60, 24) for _ in range(2)]


def model(layers: int = 2) -> ir.Model:
    made = append_decoder(Tiny(layers=layers))
    made.graph.opset_imports[""] = 21  # blocks
    return made


@pytest.fixture(scope="module")
def ranges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ranges") / "e.json"
    file.write_text(print_encodings(calibrate(Program(graphs={"model": model()}), TEXTS, Plan(Method.MSE))))
    return file


def run(rules: str, ranges: Path, made: ir.Model | None = None) -> Program:
    program = Program(graphs={"model": made or model()})
    name = rules
    if rules not in RECIPES:
        file = ranges.with_name("recipe.yaml")
        file.write_text(f"recipe: 1\nrules:\n{rules}")
        name = f"{file}"
    return PassManager(parse_pipeline(f"quantize{{file={ranges} recipe={name}}}")).run(program)


def counted(program: Program) -> Counter[tuple[str, int, int | None]]:
    """The bits of the graph, by reading it back."""
    table = read_qdq(program.graphs["model"]).encodings
    return Counter((e.kind.value, e.bits, e.block) for e in table.values() if e.kind is not None)


def notes(program: Program, name: str = "insert-qdq") -> str:
    return " ".join(text for record in program.history if record.text.startswith(name) for text in record.notes)


_A16 = {("activation", 16, None): 107, ("activation", 8, None): 30}
WANTED = {
    "a16w8kv8": {**_A16, ("param", 8, None): 15},
    "a16w4b32": {**_A16, ("param", 4, 32): 14, ("param", 8, None): 1},
    "a8w8": {("activation", 8, None): 137, ("param", 8, None): 15},
    "w4-only": {("param", 4, 32): 14, ("param", 8, None): 1},
    "qnn-htp": {**_A16, ("param", 8, None): 15},
    "ort-cpu": {("activation", 8, None): 107, ("param", 8, None): 15},
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_asked_bits_are_what_the_graph_has(name: str, ranges: Path) -> None:
    program = run(name, ranges)
    assert counted(program) == WANTED[name]
    states = [value for value in program.graphs["model"].graph.inputs if "past" in value.name]
    integers = {value.dtype for value in states}
    assert integers == ({ir.DataType.FLOAT} if name in ("w4-only", "ort-cpu") else {ir.DataType.INT8})


def test_later_rules_win_and_every_rule_says_what_it_took(ranges: Path) -> None:
    program = run(
        "- weights: {bits: 4, granularity: block 16}\n"
        "- where: {layers: 1, roles: [down, up]}\n  weights: {bits: 8, granularity: channel}\n"
        "- where: {names: '*lm_head*'}\n  weights: {bits: float}\n",
        ranges,
    )
    assert counted(program) == {("param", 4, 16): 12, ("param", 8, None): 2}
    assert "rule 1, anywhere: 15 weights at 4 (3 left to later rules)" in notes(program)
    assert "rule 2, of layers 1, roles down up: 2 weights at 8" in notes(program)
    assert "rule 3, of names *lm_head*: 1 weights at float" in notes(program)


def test_a_rule_changes_what_it_says_and_nothing_else(ranges: Path) -> None:
    program = run(
        "- weights: {bits: 4, granularity: block 16}\n- where: {layers: last}\n  weights: {bits: 8}\n", ranges
    )
    assert counted(program) == {("param", 4, 16): 8, ("param", 8, 16): 7}


def test_states_of_each_layer_have_their_own_bits(ranges: Path) -> None:
    program = run("- caches: {bits: 16}\n- where: {layers: 0, roles: [v]}\n  caches: {bits: 8}\n", ranges)
    kinds = {value.name: value.dtype for value in program.graphs["model"].graph.inputs if "past" in value.name}
    assert kinds.pop("past_key_values.0.value") == ir.DataType.INT8
    assert set(kinds.values()) == {ir.DataType.INT16}
    assert "rule 2, of layers 0, roles v: 1 caches at 8" in notes(program, "tie-states")


def test_scores_may_take_other_bits_than_norms(ranges: Path) -> None:
    program = run(
        "- activations: {bits: 16}\n- where: {roles: [score]}\n  activations: {bits: 8, method: percentile 99}\n",
        ranges,
    )
    table = read_qdq(program.graphs["model"]).encodings
    softmax = [node.outputs[0].name for node in program.graphs["model"].graph if node.op_type == "Softmax"]
    assert {table[name].bits for name in softmax} == {8}
    assert {e.bits for e in table.values()} == {8, 16}


def test_a_tied_head_leaves_no_float_table_behind(ranges: Path) -> None:
    made = model()
    head = next(node for node in made.graph if node.op_type == "MatMul" and node.outputs[0].name == "logits")
    table = next(node for node in made.graph if node.op_type == "Gather" and node.inputs[0].is_initializer()).inputs[0]
    turned = ir.node("Transpose", [table], attributes={"perm": [1, 0]})
    made.graph.insert_before(head, turned)
    head.replace_input_with(1, turned.outputs[0])
    program = run("- where: {roles: [head]}\n  weights: {bits: 8}\n", ranges, made)
    found = read_qdq(program.graphs["model"]).encodings
    (encoding,) = found.values()
    assert encoding.axis == 0
    assert not [v for v in program.graphs["model"].graph.initializers.values() if v.shape == table.const_value.shape
                and v.const_value.dtype == ir.DataType.FLOAT]  # fmt: skip


def test_an_embedding_is_taken_by_its_role_alone(ranges: Path) -> None:
    program = run("- where: {roles: embedding}\n  weights: {bits: 8, granularity: block 16}\n", ranges)
    assert counted(program) == {("param", 8, 16): 1}
    assert "1 weights at 8" in notes(program)


def experts() -> ir.Model:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[2,8] x, int64[1] which, float[4,8,6] stack) => (float[2,6] y) <int64[1] first = {0}> {
       one = Gather <axis = 0> (stack, which)
       flat = Squeeze (one, first)
       y = MatMul (x, flat)
    }"""
    made = ir.from_onnx_text(text)
    value = made.graph.inputs.pop()
    array = np.random.default_rng(2).standard_normal((4, 8, 6)).astype(np.float32)
    value.const_value = ir.tensor(array, name="stack")
    made.graph.register_initializer(value)
    return made


def test_experts_behind_gather_are_quantized_channel_by_channel(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("recipe: 1\nrules:\n- weights: {bits: 4}\n")
    program = Program(graphs={"model": experts()})
    PassManager(parse_pipeline(f"insert-qdq{{recipe={file}}}")).run(program)
    (encoding,) = read_qdq(program.graphs["model"]).encodings.values()
    assert encoding.shape == (4, 1, 6)
    assert encoding.block == 8
    assert "stack" not in program.graphs["model"].graph.initializers


@pytest.mark.parametrize("build", [append_decoder, scatter_decoder, fused_decoder])
def test_roles_are_found_by_structure(build: object) -> None:
    before, after = build(), build()  # type: ignore[operator]
    rename_everything(after, random.Random(4))
    found = [
        Counter(
            (place.layer, tuple(sorted(part.value for part in place.parts))) for place in places_of(m).weights.values()
        )
        for m in (before, after)
    ]
    assert [sum(c.values()) for c in found] == [sum(found[0].values())] * 2
    assert Counter(parts for _, parts in found[0].elements()) == Counter(parts for _, parts in found[1].elements())
    parts = {part for _, several in found[0] for part in several}
    assert {"q", "k", "v", "o", "head", "embedding"} <= parts or build is fused_decoder


def test_a_heavy_tail_is_cut_at_8_bits_and_kept_at_16() -> None:
    """Student's t with 2 degrees of freedom, as the hidden rows of decoders with a few huge channels."""
    numbers = np.random.default_rng(1).standard_t(2, 200_000)
    counts, edges = np.histogram(numbers, 2048)
    seen = Evidence(edges[0], edges[-1], method="mse", histogram=Histogram.of(counts, edges[0], edges[-1]))
    whole = seen.high - seen.low
    spans = {bits: (found := resolve(seen, bits)).high - found.low for bits in (4, 8, 16)}
    assert spans[4] < spans[8] < 0.7 * whole
    assert spans[16] > 0.9 * whole
    errors = {}
    for name, found in (("minmax", seen), ("mse", resolve(seen, 8))):
        step = (found.high - found.low) / 255
        errors[name] = np.mean((np.clip(np.round(numbers / step) * step, found.low, found.high) - numbers) ** 2)
    assert errors["mse"] < 0.97 * errors["minmax"]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [None, 0, 5])
def test_clipped_weights_err_less_and_zero_channels_stay_zero(symmetric: bool, block: int | None) -> None:
    array = np.random.default_rng(3).standard_t(3, (16, 12)).astype(np.float32)
    array[:, 4] = 0
    errors = {}
    for method in ("", "mse"):
        choice = Choice(4, symmetric, block, method)
        e = weight_encoding("w", array, choice, 1)
        back = dequantized(quantized(array, e), e, array.shape)
        errors[method] = ((back - array) ** 2).sum()
        assert not back[:, 4].any() or block is None
    assert errors["mse"] <= errors[""]
    assert errors["mse"] < 0.99 * errors[""] or block == 5


def dequantized(q: np.ndarray, e: object, shape: tuple[int, ...]) -> np.ndarray:
    scale, zero = (np.array(numbers, np.float32).reshape(e.shape) for numbers in (e.scale, e.zero_point))  # type: ignore[attr-defined]
    if e.block is not None:  # type: ignore[attr-defined]
        scale, zero = (np.repeat(n, e.block, axis=e.axis)[: shape[0]] for n in (scale, zero))  # type: ignore[attr-defined]
    elif e.shape:  # type: ignore[attr-defined]
        scale, zero = scale[None], zero[None]
    return (q - zero) * scale


BAD = {
    "unknown role": ("- where: {roles: [kq]}\n  weights: {bits: 8}\n", "rule 1, where, roles: unknown role 'kq'"),
    "no such bits": ("- weights: {bits: 5}\n", "rule 1, weights, bits: .*found '?5'?"),
    "contradiction": ("- weights: {bits: 8}\n- weights: {bits: 4}\n", "rules 1 and 2 contradict each other"),
    "twice": ("- weights: {bits: 8, bits: 4}\n", "line 3: 'bits' stands twice"),
    "nothing said": ("- where: {roles: [q]}\n", "rule 1: says nothing of weights"),
    "takes nothing": ("- where: {layers: 7}\n  weights: {bits: 8}\n", "rule 1 takes no tensor: no weights of layers 7"),
    "takes no name": ("- where: {names: zz*}\n  caches: {bits: 8}\n", "rule 1 takes no tensor: no caches of names zz"),
    "a misspelt field": ("- weigths: {bits: 8}\n", "rule 1, weigths"),
    "half a range": ("- where: {layers: 1-}\n  weights: {bits: 8}\n", "layers are numbers, ranges as 0-3, or last"),
    "no method": ("- activations: {bits: 8, method: best}\n", "minmax, mse, entropy, or percentile"),
    "blocks of nothing": ("- weights: {bits: 8, granularity: block 0}\n", "rule 1, weights, granularity"),
    "caches of 4 bits": ("- caches: {bits: 4}\n", "rule 1, caches, bits"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_recipe_that_is_none_is_refused_and_nothing_changes(case: str, ranges: Path) -> None:
    rules, wanted = BAD[case]
    made = model()
    before = ir.to_proto(made).SerializeToString()
    with pytest.raises(RecipeInvalid, match=wanted):
        run(rules, ranges, made)
    assert ir.to_proto(made).SerializeToString() == before


def test_a_recipe_stands_beside_no_other_bits(ranges: Path) -> None:
    with pytest.raises(UsageError, match="do not stand beside it"):
        PassManager(parse_pipeline("insert-qdq{recipe=a8w8 activations=a8}")).run(Program(graphs={"model": model()}))
    with pytest.raises(UnknownNameError, match="a8w8"):
        load_recipe("a8w88")
    with pytest.raises(OnnxPassesError, match="no such file"):
        load_recipe("nowhere.yaml")


def test_weights_with_a_nan_are_named(ranges: Path) -> None:
    made = model()
    value = next(v for v in made.graph.initializers.values() if "q_proj" in v.name)
    array = value.const_value.numpy().copy()
    array[0, 0] = np.nan
    value.const_value = ir.tensor(array, name=value.name)
    with pytest.raises(NoEvidence, match="q_proj"):
        run("w4-only", ranges, made)


@pytest.mark.parametrize("symmetry", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("granularity", ["channel", "block 16", "tensor"])
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_channel_of_zeros_stays_zeros(symmetry: str, granularity: str, method: str, ranges: Path) -> None:
    made = model()
    value = next(v for v in made.graph.initializers.values() if "q_proj" in str(v.name))
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[:, 3] = 0
    value.const_value = ir.tensor(array, name=value.name)
    said = f"{{bits: 4, symmetry: {symmetry}, granularity: {granularity}, method: {method}}}"
    program = run(f"- weights: {said}\n", ranges, made)
    grid = read_qdq(program.graphs["model"]).encodings[str(value.name)]
    assert all(0 < scale < np.inf for scale in grid.scale)
    points = np.array(grid.zero_point).reshape(grid.shape)
    assert (quantized(array, grid)[:, 3] == np.unique(points[..., 3] if grid.shape else points)).all()


def test_optional_rules_may_take_nothing(ranges: Path) -> None:
    program = run("- weights: {bits: 8}\n- where: {layers: 9}\n  weights: {bits: 4}\n  optional: true\n", ranges)
    assert "rule 2, of layers 9: 0 weights at 4" in notes(program)


def test_json_and_yaml_are_one_recipe_and_the_schema_knows_both() -> None:
    yaml = "recipe: 1\nrules:\n- where: {layers: 0-2, roles: q}\n  weights: {bits: 4, granularity: block 32}\n"
    where, said = {"layers": ["0-2"], "roles": ["q"]}, {"bits": 4, "granularity": "block 32"}
    text = json.dumps({"recipe": 1, "rules": [{"where": where, "weights": said}]})
    assert parse_recipe(yaml) == parse_recipe(text)
    schema = json.loads(recipe_schema())
    assert schema["$defs"]["Weights"]["properties"]["bits"]["anyOf"][0]["enum"] == [4, 8, 16, "float"]


def test_a_grid_of_other_bits_is_made_anew_and_of_the_same_bits_kept(ranges: Path) -> None:
    from onnx_llm_passes.ir.core.encoding import Encoding, Kind
    from onnx_llm_passes.ir.quantization.choose import encoding_for

    given = Encoding((0.5,), (3,), 8, kind=Kind.ACTIVATION)
    value = ir.Value(name="x")
    table = EncodingTable({"x": given})
    assert encoding_for(table, value, Choice(8, symmetric=False, strict=True)) is given
    assert encoding_for(table, value, Choice(16, symmetric=False)) is given, "without a recipe the file's word counts"
    made = encoding_for(table, value, Choice(16, symmetric=False, strict=True))
    assert made.bits == 16
    assert made.scale[0] == pytest.approx(0.5 * 255 / 65535)
    with pytest.raises(PassRefused):
        encoding_for(EncodingTable(), value, Choice(8, symmetric=False))
