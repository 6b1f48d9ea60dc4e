"""convert-states: every edge exact step by step, padding, rewinds, the last slot; refusals change nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UsageError
from onnx_llm_passes.ir.core.verifier import check_structure
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.ir.symbolic.symbols import substitute_symbols
from onnx_llm_passes.passes.convert_states import ConvertStates, MaskInput, Names, Ops, To
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.runtime.decode.step import Chunk
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .append_graphs import append_by_data, append_other_axes, append_plain, append_three_dims, one_token
from .builders import BUILDERS, OTHERS
from .convert_graphs import COUNTED
from .convert_tools import CLOSE, CTX, Stepper, compare, convert, rel, rows, unpadded
from .renaming import rename_everything

Build = Callable[[], ir.Model]
GROWING: dict[str, Build] = {
    "append": append_decoder,
    "append plain": append_plain,
    "append window": lambda: append_plain(window=4),
    "append whole mask": lambda: append_plain(whole_mask=True),
    "append by data": append_by_data,
    "one token window": lambda: one_token(window=4),
    "append dynamo": BUILDERS["append dynamo"],
    "append other axes": append_other_axes,
    "append three dims": append_three_dims,
    **COUNTED,
}


def newest_opset() -> ir.Model:
    """The sample with the opset that has TensorScatter; its operators mean the same there."""
    model = append_decoder()
    model.graph.opset_imports[""] = 24
    model.ir_version = 11
    return model


@pytest.mark.parametrize("ops", [Ops.ONNX, Ops.CTX], ids=lambda ops: ops.value)
@pytest.mark.parametrize("name", list(GROWING))
def test_append_to_scatter_is_exact_step_by_step(name: str, ops: Ops) -> None:
    before = GROWING[name]()
    if ops is Ops.CTX and name in ("append other axes", "append three dims"):
        with pytest.raises(PassRefused, match="CtxScatter writes caches"):
            ConvertStates(ops=ops).call(before)
        return
    after = convert(before, ops=ops)
    assert {state.layout for state in find_states(after)} == {Layout.SCATTER}
    assert compare(before, after) <= CLOSE


def test_tensor_scatter_is_exact_up_to_the_last_slot() -> None:
    before = append_decoder()
    after = convert(before, ops=Ops.TENSOR_SCATTER)
    assert after.opset_imports[""] == 24
    assert compare(before, after, width=8) <= CLOSE
    before.opset_imports[""] = 17
    with pytest.raises(PassRefused, match="newer than the graph"):
        ConvertStates(ops=Ops.TENSOR_SCATTER).call(before)


def test_a_comparison_sees_another_graph() -> None:
    assert compare(append_decoder(seed=0), convert(append_decoder(seed=1))) > 1e-2


@pytest.mark.parametrize("name", ["append", "append window"])
def test_one_prefill_equals_chunks(name: str) -> None:
    model = convert(GROWING[name]())
    tokens = tuple(int(x) for x in np.random.default_rng(3).integers(0, 30, 13))
    whole, parts = Stepper(model, 1, CTX), Stepper(model, 1, CTX)
    expected = whole.step([Chunk(tokens)])[0]
    found, start = [], 0
    for count in (1, 2, 5, 3, 1, 1):
        found.append(parts.step([Chunk(tokens[start : start + count], start)])[0])
        start += count
    assert rel(expected, np.concatenate(found)) <= CLOSE
    assert rel(rows(whole, 0, "key", 0), rows(parts, 0, "key", 0)) <= CLOSE


@pytest.mark.parametrize("ops", list(Ops), ids=lambda ops: ops.value)
def test_padding_changes_no_row(ops: Ops) -> None:
    model = convert(newest_opset(), ops=ops)
    stepper = Stepper(model, 2, CTX)
    stepper.step([Chunk((1, 2, 3), 0), Chunk((4, 5, 6, 7), 0)])
    before = {name: cache.array().copy() for name, cache in stepper.caches[0].states.items()}
    stepper.step([Chunk((), 0), Chunk((9,), 4)], width=7)
    for name, cache in stepper.caches[0].states.items():
        idle, other = cache.array()
        assert idle.tobytes() == before[name][0].tobytes()
        assert np.delete(other, 4, axis=1).tobytes() == np.delete(before[name][1], 4, axis=1).tobytes()
        assert np.any(other[:, 4])


@pytest.mark.parametrize("ops", list(Ops), ids=lambda ops: ops.value)
def test_fixed_dimensions_load_as_they_are(ops: Ops) -> None:
    before = newest_opset()
    after = convert(before, ops=ops)
    substitute_symbols(after, {"batch_size": 2, "sequence_length": 5, "ctx_len": CTX})
    step = [Chunk((1, 2, 3, 4, 5)), Chunk((6, 7, 8))]
    for x, y in zip(Stepper(before, 2).step(step), Stepper(after, 2, CTX).step(step, 5), strict=True):
        assert rel(x, y) <= CLOSE


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("append", "delta append scatter delta scatter append"),
        ("append plain", "delta scatter delta append"),
        ("append other axes", "delta append scatter delta append"),
        ("append three dims", "scatter append delta"),
        ("scatter index 0", "delta scatter append scatter delta append"),
        ("scatter elements", "delta scatter append"),
        ("scatter three dims", "append scatter"),
        ("scatter nd transposed", "delta append scatter"),
    ],
)
def test_every_edge_is_exact_and_done_once(name: str, path: str) -> None:
    before = BUILDERS[name]()
    after = before.clone()
    for number, to in enumerate(path.split()):
        ctx = "" if number < 2 else f"rows_{number}"
        assert ConvertStates(to=To(to), ctx=ctx).call(after).modified
        check_structure(after)
        onnx.checker.check_model(ir.to_proto(after))
        assert unpadded(before, after) <= CLOSE, f"after {to}"
        assert not ConvertStates(to=To(to)).call(after).modified, f"a second {to}"


@pytest.mark.parametrize("name", ["append", "append other axes", "scatter index 0"])
def test_delta_is_bit_equal(name: str) -> None:
    before = BUILDERS[name]()
    assert unpadded(before, convert(before, to=To.DELTA)) == 0


def test_transposed_keys() -> None:
    before = append_decoder()
    after = convert(before, to=To.DELTA, transpose_keys=True)
    shapes = {value.name: [str(dim) for dim in value.shape or ()] for value in after.graph.inputs}
    assert shapes["past_key_values.0.key"][2:] == ["8", "past_sequence_length"]
    assert shapes["past_key_values.0.value"][2:] == ["past_sequence_length", "8"]
    outputs = {value.name: [str(dim) for dim in value.shape or ()] for value in after.graph.outputs}
    assert outputs["present.0.key"][2:] == ["8", "sequence_length"]
    assert unpadded(before, after) == 0
    assert unpadded(before, convert(after, to=To.SCATTER)) <= CLOSE


def test_none_strips() -> None:
    model = append_decoder()
    assert ConvertStates(to=To.NONE).call(model).modified
    assert find_states(model) == []


def test_a_converted_graph_strips() -> None:
    before = append_decoder()
    after = convert(before)
    ConvertStates(to=To.NONE).call(after)
    feeds = {
        "input_ids": np.array([[3, 1, 2], [5, 4, 6]], np.int64),
        "position_ids": np.array([[0, 1, 2], [0, 1, 2]], np.int64),
        "attention_mask": np.ones((2, 3), np.int64),
    }
    from onnx_llm_passes.runtime.session.session import Session

    expected = Stepper(before, 2).step([Chunk((3, 1, 2)), Chunk((5, 4, 6))])
    found = Session(after).run({v.name or "": feeds[v.name or ""] for v in after.graph.inputs})["logits"]
    assert max(rel(x, y) for x, y in zip(expected, found, strict=True)) <= CLOSE


def test_the_contract() -> None:
    model = append_decoder()
    program = PassManager([ConvertStates(names=Names.RETAINED, ctx="rows")]).run(Program({"model": model}))
    names = [value.name for value in model.graph.inputs]
    assert names[:4] == ["input_ids", "attention_mask", "position_ids", "past_key.0"]
    assert [str(dim) for dim in model.graph.inputs[1].shape or ()] == ["batch_size", "rows"]
    assert [value.name for value in model.graph.outputs][1:3] == [
        "past_key.0_RetainedState",
        "past_value.0_RetainedState",
    ]
    assert [str(dim) for dim in model.graph.outputs[1].shape or ()] == ["batch_size", "2", "rows", "8"]
    assert any(line.startswith("position_ids: a token's position is its cache row") for line in program.assumptions)


def test_the_mask_goes() -> None:
    before = append_decoder()
    after = convert(before, mask=MaskInput.POSITIONS, ctx=str(CTX))
    assert [v.name for v in after.graph.inputs][:2] == ["input_ids", "position_ids"]
    assert compare(before, after) <= CLOSE


def test_positions_are_added_where_there_are_none() -> None:
    model = convert(COUNTED["triangle, outer product"]())
    positions = model.graph.inputs[1]
    assert (positions.name, [str(dim) for dim in positions.shape or ()]) == ("position_ids", ["batch", "seq"])


def test_names_play_no_part() -> None:
    before = append_plain(window=4)
    rename_everything(before, random.Random(5))
    after = convert(before)
    rng = np.random.default_rng(2)
    left, right = Stepper(before, 1), Stepper(after, 1, CTX)
    for start, count in ((0, 6), (6, 1), (5, 4)):
        step = [Chunk(tuple(int(x) for x in rng.integers(0, 30, count)), start)]
        assert rel(left.step(step)[0], right.step(step, 7)[0]) <= CLOSE


@pytest.mark.parametrize(
    ("build", "to", "message"),
    [
        (OTHERS["baked length"], To.SCATTER, "is baked into the graph; found 8 rows"),
        (OTHERS["input only"], To.SCATTER, "has no output"),
        (OTHERS["output only"], To.DELTA, "has no input"),
        (one_token, To.SCATTER, "no mask hides the rows"),
        (BUILDERS["scatter batch index"], To.APPEND, "cache lines chosen by batch index"),
        (BUILDERS["scatter compute context"], To.APPEND, "are not read whole and in order"),
        (BUILDERS["scatter mrope"], To.APPEND, "does not hold one position a token"),
        (BUILDERS["tensor scatter"], To.APPEND, "are not written at an input's positions"),
    ],
)
def test_refusals_change_nothing(build: Build, to: To, message: str) -> None:
    model = build()
    text = ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(PassRefused, match=message):
        ConvertStates(to=to).call(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == text


def test_dimensions_named_apart_are_one() -> None:
    before = append_plain()
    for name, dims in (("position_ids", ["s11", "s12"]), ("attention_mask", ["s43", "s53"])):
        next(v for v in before.graph.inputs if v.name == name).shape = ir.Shape(dims)
    after = convert(before)
    assert [str(d) for d in next(v for v in after.graph.inputs if v.name == "position_ids").shape or ()] == [
        "batch",
        "seq",
    ]
    assert compare(before, after) <= CLOSE


def test_a_body_that_takes_the_length_is_refused() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[B, S, 4] x, bool twice, float[B, past, 4] past_key) =>
      (float[B, S, 4] y, float[B, "past + S", 4] present_key) {
       present_key = Concat <axis = 1> (past_key, x)
       kt = Transpose <perm = [0, 2, 1]> (present_key)
       plain = MatMul (x, kt)
       length = Shape <start = 1, end = 2> (past_key)
       scale = If (twice) <
          then_branch = t () => (a) { a = Cast <to = 1> (length) },
          else_branch = e () => (b) { b = Constant <value_floats = [1.0]> () }>
       scores = Mul (plain, scale)
       weights = Softmax <axis = -1> (scores)
       y = MatMul (weights, present_key)
    }
    """
    with pytest.raises(PassRefused, match="a body of If or Loop works on"):
        ConvertStates().call(ir.from_onnx_text(text))


def test_a_symbol_that_is_taken_is_refused() -> None:
    with pytest.raises(PassRefused, match="has a dimension 'batch_size' already"):
        ConvertStates(ctx="batch_size").call(append_decoder())


def test_nothing_to_convert_is_said() -> None:
    result = ConvertStates().call(OTHERS["no states"]())
    assert not result.modified
    assert result.notes == ("no carried state to convert in this graph",)


def test_a_run_that_leaves_a_gap_is_refused() -> None:
    with pytest.raises(UsageError, match="starts behind the end of its text"):
        Stepper(append_decoder()).step([Chunk((1,), 3)])
