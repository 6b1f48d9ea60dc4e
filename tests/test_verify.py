"""Verification: what it runs, what it calls equal, what it refuses, and what it says where it cannot run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import NotEqualError, PassRefused, UnknownNameError, UsageError
from onnx_llm_passes.ir.program.contract import Contract
from onnx_llm_passes.ir.program.contracts.chain import Chain
from onnx_llm_passes.ir.program.contracts.interface import RenamedIO
from onnx_llm_passes.ir.program.contracts.positions import AnyPositions, OrderedPositions, ZeroPosition
from onnx_llm_passes.ir.program.program import PassRecord, Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.strip_states import StripStates
from onnx_llm_passes.runtime.decode.cases import ANYWHERE, Padding, make_case
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.samples.writer import FLOAT, INT64, Writer
from onnx_llm_passes.runtime.session.legalize import legalized
from onnx_llm_passes.runtime.session.session import KernelMissing, Optimization, RunError, Session, SessionError
from onnx_llm_passes.runtime.verify.compare import compare
from onnx_llm_passes.runtime.verify.verify import Verdict, VerifyReport, verify

from .builders import BUILDERS

ORDERED = OrderedPositions("position_ids")
ANY = AnyPositions("position_ids")


def program(model: ir.Model, *contracts: Contract) -> Program:
    return Program({"model": model}, contracts=list(contracts))


def perturbed(model: ir.Model, name: str = "lm_head.weight", factor: float = 1.0001) -> ir.Model:
    """The same graph with one weight a little off."""
    value = model.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor((value.const_value.numpy() * factor).astype(np.float32), name=name)
    return model


def low_masks(model: ir.Model) -> ir.Model:
    """Masks of the lowest float in place of -inf: a query that sees no key averages all rows of the cache."""
    for node in model.graph:
        fill = node.attributes.get("value") if node.op_type == "ConstantOfShape" else None
        if fill is not None and np.isneginf(fill.as_tensor().numpy()).all():
            lowest = np.full(1, np.finfo(np.float32).min, np.float32)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(lowest))
    return model


# --- what is run, and what is equal


@pytest.mark.parametrize("name", BUILDERS)
def test_a_graph_equals_itself_and_not_its_perturbed_copy(name: str) -> None:
    same = verify(program(BUILDERS[name]()), program(BUILDERS[name]()))
    assert (same.verdict, same.max_abs) == (Verdict.EQUAL, 0.0)
    other = verify(program(BUILDERS[name]()), program(perturbed(BUILDERS[name]())))
    assert other.verdict is Verdict.DIFFERENT
    assert "logits" in other.first_difference
    assert other.runs == same.runs > 0


def test_rows_of_padding_that_average_unwritten_rows_are_left_out() -> None:
    after = low_masks(BUILDERS["scatter elements"]())
    StripStates().call(after)
    before = program(low_masks(BUILDERS["scatter elements"]()))
    report = verify(before, program(after, ORDERED))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert report.notes == ["model: logits: rows of padded tokens, which see no key, are not compared"]
    assert verify(before, program(perturbed(after), ORDERED)).verdict is Verdict.DIFFERENT


def real_models() -> list[Path]:
    folder = os.environ.get("ONNX_PASSES_MODELS")
    found = sorted(Path(folder).glob("*/*.onnx")) if folder else []
    # exporters of fused operators: onnxruntime leaves rows of their outputs uninitialized, or crashes on them
    return [path for path in found if path.parent.name.startswith(("optimum-l", "hf-d", "qeff-l", "qeff-g", "torch-"))]


@pytest.mark.parametrize("path", real_models(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_real_export_equals_itself_and_not_its_perturbed_copy(path: Path) -> None:
    assert verify(program(ir.load(path)), program(ir.load(path))).equal
    other = ir.load(path)
    weights = [v for v in other.graph.initializers.values() if v.dtype is ir.DataType.FLOAT and len(v.shape or ()) == 2]
    perturbed(other, weights[-1].name or "", 1.01)
    assert verify(program(ir.load(path)), program(other)).verdict is Verdict.DIFFERENT


def test_real_exports_are_there() -> None:
    if not real_models():
        pytest.skip("ONNX_PASSES_MODELS names no folder of exported models")
    assert real_models()


def test_sizes_and_paddings_of_a_graph_with_a_mask() -> None:
    report = verify(program(append_decoder()), program(append_decoder()))
    names = [case.case for case in report.cases]
    assert "batch 1, length 1, full" in names
    assert "batch 3, length 33, ragged" in names
    assert "batch 3, length 7, left-padded" in names
    assert not any("length 1, right" in name for name in names)
    assert report.runs == len(names) == 16


def test_sizes_that_the_graph_fixes_are_kept() -> None:
    report = verify(program(BUILDERS["one token"]()), program(BUILDERS["one token"]()))
    assert [case.case for case in report.cases] == ["batch 1, length 1, full", "batch 3, length 1, full"]
    assert any("only full rows" in note for note in report.notes)


def test_positions_in_any_order_are_run_only_where_the_result_allows_them() -> None:
    before = program(BUILDERS["scatter index 0"]())
    kinds = [verify(before, program(BUILDERS["scatter index 0"](), line)).cases for line in (ORDERED, ANY)]
    assert not any("permuted" in case.case for case in kinds[0])
    assert {"left-padded", "permuted", "holed"} <= {case.case.split(", ")[-1] for case in kinds[1]}


def test_an_assumption_of_any_order_allows_2e_6() -> None:
    assert verify(program(scatter_decoder()), program(scatter_decoder(), ANY)).tolerance == 2e-6
    assert verify(program(scatter_decoder()), program(scatter_decoder(), ORDERED)).tolerance == 0.0
    near = program(perturbed(scatter_decoder(), factor=1 + 2e-7), ANY)
    assert verify(program(scatter_decoder()), near).equal
    assert not verify(program(scatter_decoder()), near, tolerance=0.0).equal


def test_a_size_that_only_the_result_rejects_is_a_failure() -> None:
    after = scatter_decoder(no_index=0)
    for name in ("model.cos_cached", "model.sin_cached"):
        table = after.graph.initializers[name].const_value
        assert table is not None
        after.graph.initializers[name].const_value = ir.tensor(table.numpy()[:16], name=name)
        after.graph.initializers[name].shape = ir.Shape([16, 8])
    report = verify(program(scatter_decoder(no_index=0)), program(after))
    assert report.verdict is Verdict.DIFFERENT
    failed = [case for case in report.cases if case.failed]
    assert {case.case.split(", ")[1] for case in failed} == {"length 33"}
    assert all("out of data bounds" in case.failed for case in failed)


def test_a_size_that_the_original_rejects_is_skipped_with_the_reason() -> None:
    short = BUILDERS["scatter index 0"]
    models = [short(), short()]
    for model in models:
        for name in ("model.cos_cached", "model.sin_cached"):
            table = model.graph.initializers[name].const_value
            assert table is not None
            model.graph.initializers[name].const_value = ir.tensor(table.numpy()[:16], name=name)
            model.graph.initializers[name].shape = ir.Shape([16, 8])
    report = verify(*map(program, models))
    skipped = [case for case in report.cases if case.skipped]
    assert {case.case.split(", ")[1] for case in skipped} == {"length 33"}
    assert all("the original rejects it" in case.skipped for case in skipped)
    assert report.equal


def test_nothing_run_is_not_equal() -> None:
    report = VerifyReport()
    assert (report.equal, report.verdict) == (False, Verdict.NOT_RUN)
    with pytest.raises(NotEqualError, match="nothing could be run"):
        report.raise_if_different()


def test_graphs_that_share_no_output_are_different() -> None:
    after = append_decoder()
    for value in after.graph.outputs:
        value.name = f"other {value.name}"
    report = verify(program(append_decoder()), program(after))
    assert "share no output" in report.first_difference
    with pytest.raises(NotEqualError):
        report.raise_if_different()


def test_outputs_renamed_by_a_pass_are_compared_under_their_old_names() -> None:
    after = program(perturbed(append_decoder()))
    after.graphs["model"].graph.outputs[0].name = "scores"
    after.contracts.append(RenamedIO((("logits", "scores"),)))
    assert "scores" in verify(program(append_decoder()), after).first_difference


def test_names_that_were_swapped_after_another_rename_lead_back() -> None:
    after = program(append_decoder())
    after.history.extend(PassRecord(text) for text in ("one", "two", "simplify"))
    after.contracts = [RenamedIO((("a", "b"),), step=0), RenamedIO((("b", "c"), ("x", "b")), step=1)]
    whole = Chain.between(program(append_decoder()), after)
    assert [whole.input_before(name) for name in "cbz"] == ["a", "x", "z"]
    halfway = program(append_decoder())
    halfway.history.append(PassRecord("one"))
    half = Chain.between(halfway, after)
    assert [half.output_before(name) for name in "cb"] == ["b", "x"]


def test_renames_of_a_saved_program_are_known_too(tmp_path: Path) -> None:
    source = program(perturbed(append_decoder()))
    before = program(append_decoder())
    renamed = PassManager(parse_pipeline("rename-io{map=logits:scores,input_ids:tokens}")).run(source)
    renamed.save(tmp_path / "out")
    report = verify(before, Program.load(tmp_path / "out"))
    assert "scores" in report.first_difference
    assert not any("not compared" in note for note in report.notes)


def test_an_output_that_the_original_has_not_is_told() -> None:
    after = append_decoder()
    after.graph.outputs[1].name = "new"
    report = verify(program(append_decoder()), program(after))
    assert report.equal
    assert "model: new is no output of the original: not compared" in report.notes


def test_a_graph_that_the_original_has_not_is_the_callers_mistake() -> None:
    two = Program({"a": append_decoder(), "b": append_decoder()})
    with pytest.raises(UsageError, match="no graph 'model'"):
        verify(two, program(append_decoder()))


def test_the_same_seed_gives_the_same_numbers_and_another_other_ones() -> None:
    reports = [verify(program(append_decoder()), program(perturbed(append_decoder())), seed=s) for s in (1, 1, 2)]
    assert reports[0].to_dict() == reports[1].to_dict()
    assert reports[0].max_abs != reports[2].max_abs


def test_the_report_is_plain_json() -> None:
    after = append_decoder()
    after.graph.outputs[0].producer().replace_input_with(1, after.graph.initializers["lm_head.weight"])  # type: ignore[union-attr]
    w = after.graph.initializers["lm_head.weight"]
    assert w.const_value is not None
    w.const_value = ir.tensor(w.const_value.numpy()[:, :100], name="lm_head.weight")
    w.shape = ir.Shape([32, 100])
    after.graph.outputs[0].shape = ir.Shape(["batch_size", "sequence_length", 100])
    report = verify(program(append_decoder()), program(after))
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["max_abs"] is None
    assert "shape [1, 1, 100] where the original has [1, 1, 128]" in told["first_difference"]


# --- given inputs


def given(positions: list[int]) -> dict[str, np.ndarray]:
    ids = np.arange(len(positions))[None]
    return {"input_ids": ids, "position_ids": np.array([positions])}


def scatter_pair(assumption: Contract) -> tuple[Program, Program]:
    return program(scatter_decoder()), program(scatter_decoder(), assumption)


@pytest.mark.parametrize("positions", [[0, 1, 2, -1], [0], [0, 1, 2, 3]])
def test_given_positions_that_keep_the_assumption_are_run(positions: list[int]) -> None:
    report = verify(*scatter_pair(ORDERED), inputs=given(positions))
    assert (report.runs, report.equal) == (1, True)


@pytest.mark.parametrize("positions", [[1, 0, 2], [-1, 0, 1], [0, 2, 3], [5, 6, 7], [0, 0, 1], [0, 1, -2]])
def test_given_positions_out_of_order_are_refused_by_name(positions: list[int]) -> None:
    with pytest.raises(UsageError, match=r"input 'position_ids', row 0.*in order, then -1"):
        verify(*scatter_pair(ORDERED), inputs=given(positions))


def test_any_order_takes_a_permutation_with_holes_but_no_gaps() -> None:
    assert verify(*scatter_pair(ANY), inputs=given([-1, 2, 0, -1, 1])).equal
    for positions in ([0, 2], [1, 2], [0, 0], [-2, 0]):
        with pytest.raises(UsageError, match="each of 0 … n-1 once"):
            verify(*scatter_pair(ANY), inputs=given(positions))


def test_a_start_that_must_be_zero_is_checked() -> None:
    pair = BUILDERS["tensor scatter"]
    after = program(pair(), ZeroPosition("write_indices"))
    inputs = {**given([0, 1, 2]), "write_indices": np.array([2])}
    with pytest.raises(UsageError, match="input 'write_indices'"):
        verify(program(pair()), after, inputs=inputs)
    assert verify(program(pair()), after, inputs={**inputs, "write_indices": np.array([0])}).equal


Change = Callable[[dict[str, np.ndarray]], object]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda inputs: inputs.update(input_idz=inputs.pop("input_ids")), "Did you mean 'input_ids'"),
        (lambda inputs: inputs.update(input_ids=inputs["input_ids"].astype(np.float32)), "wrong element type"),
        (lambda inputs: inputs.update(input_ids=inputs["input_ids"][0]), "wrong rank"),
        (lambda inputs: inputs.pop("input_ids"), "no token ids"),
    ],
    ids=["unknown name", "element type", "rank", "no tokens"],
)
def test_given_inputs_that_do_not_fit_are_the_callers_mistake(change: Change, error: str) -> None:
    inputs = given([0, 1, 2])
    change(inputs)
    with pytest.raises(UsageError, match=error):
        verify(*scatter_pair(ORDERED), inputs=inputs)


def test_an_unknown_input_is_its_own_error() -> None:
    with pytest.raises(UnknownNameError):
        verify(*scatter_pair(ORDERED), inputs={"nothing": np.zeros(1)})


def test_a_given_cache_must_be_empty_and_have_room_for_padding() -> None:
    before = program(scatter_decoder())
    after = program(scatter_decoder(), ORDERED)
    stripped = StripStates().run(after)
    after.contracts[:] = stripped.contracts
    inputs = given([0, 1, 2, -1])
    caches = {v.name or "": np.zeros((1, 2, 4, 8), np.float32) for v in before.graphs["model"].graph.inputs[2:]}
    assert verify(before, after, inputs={**inputs, **caches}).equal
    with pytest.raises(UsageError, match=r"room for padding.*more than 3 rows"):
        verify(before, after, inputs={**inputs, "past_key.0": np.zeros((1, 2, 3, 8), np.float32)})
    with pytest.raises(UsageError, match=r"input 'past_key.0'.*empty state"):
        verify(before, after, inputs={**inputs, "past_key.0": np.ones((1, 2, 4, 8), np.float32)})


# --- paddings


@pytest.mark.parametrize("padding", ANYWHERE)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_row_holds_each_position_once(padding: Padding, batch: int) -> None:
    case = make_case(batch, 7, padding)
    for row, count in zip(case.positions, case.rows, strict=True):
        assert sorted(row[row >= 0]) == list(range(count))
        assert (row[row < 0] == -1).all()
    assert (padding is Padding.FULL) == bool(case.valid.all())


def test_ragged_rows_differ_and_left_padding_is_on_the_left() -> None:
    assert len(set(make_case(3, 7, Padding.RAGGED).rows)) == 3
    left = make_case(1, 7, Padding.LEFT).positions[0]
    assert left[0] == -1
    assert left[-1] == (left >= 0).sum() - 1


# --- comparing


def test_nan_is_equal_to_nan_only() -> None:
    a, b = np.array([np.nan, 1.0]), np.array([np.nan, 1.0])
    assert compare("y", a, b).equal
    found = compare("y", a, np.array([0.0, 1.0]))
    assert (found.equal, found.nans, found.first) == (False, 1, (0,))


def test_infinities_are_equal_where_both_are() -> None:
    a = np.array([np.inf, -np.inf])
    assert compare("y", a, a.copy()).equal
    assert not compare("y", a, np.array([np.inf, np.inf])).equal


def test_tolerance_is_relative_to_the_largest_value() -> None:
    a, b = np.array([1000.0, 0.0]), np.array([1000.0, 0.001])
    assert compare("y", a, b, 2e-6).equal
    assert not compare("y", a, b, 0.9e-6).equal
    assert compare("y", a, b).first == (1,)


def test_other_element_types_and_shapes_are_different() -> None:
    a = np.zeros(2, np.float32)
    assert "element type" in compare("y", a, a.astype(np.float64), 1.0).why
    assert "shape" in compare("y", a, np.zeros(3, np.float32), 1.0).why


def test_integers_and_booleans_are_compared_exactly() -> None:
    big = np.array([2**62])
    assert not compare("y", big, big + 1).equal
    assert not compare("y", np.array([True]), np.array([False])).equal
    assert compare("y", np.array(["a"]), np.array(["a"])).equal


def test_half_precision_may_be_asked_for_one_unit_in_the_last_place() -> None:
    def half(error: float) -> ir.Model:
        w = Writer()
        x = w.op("Cast", w.input("x", FLOAT, ["n", 4]), to=ir.DataType.FLOAT16)
        one = w.op("Add", w.op("Mul", x, np.array(0, np.float16)), np.array([1.5, 0, 0.25, -1], np.float16))
        w.output("y", w.op("Add", one, np.array(error, np.float16)), ["n", 4], ir.DataType.FLOAT16)
        return w.model()

    before, unit = program(half(0.0)), 2.0**-10  # of values from 1 to 2
    assert not verify(before, program(half(unit))).equal
    assert verify(before, program(half(unit)), tolerance="ulp").equal
    assert not verify(before, program(half(2 * unit)), tolerance="ulp").equal


# --- INT32_MAX as "no index"


def test_no_index_is_read_as_0_and_written_as_minus_1() -> None:
    report = verify(program(scatter_decoder(batch_index=True)), program(scatter_decoder(batch_index=True)))
    assert report.equal
    assert any("INT32_MAX is 0 at 2 gather indices" in note for note in report.notes)
    assert any("INT32_MAX is -1 at 4 scatter indices" in note for note in report.notes)


def test_a_legalized_copy_leaves_the_graph_and_other_uses_alone() -> None:
    model = scatter_decoder()
    before = ir.to_proto(model).SerializeToString()
    legal = legalized(model)
    assert legal.model is not model
    assert ir.to_proto(model).SerializeToString() == before
    plain = append_decoder()
    assert legalized(plain).model is plain


def test_a_weight_behind_an_identity_is_a_weight() -> None:
    """Layers that share a weight are exported so; a runtime takes another kernel for what it believes computed."""
    w = Writer()
    x = w.input("x", FLOAT, ["n", 64])
    copy = w.op("Identity", w.weight("shared", 64, 64))
    w.output("y", w.op("MatMul", w.op("MatMul", x, w.weight("shared", 64, 64)), copy), ["n", 64])
    legal = legalized(w.model()).model
    assert [node.inputs[1].name for node in legal.graph if node.op_type == "MatMul"] == ["shared", "shared"]  # type: ignore[union-attr]


def test_no_index_that_is_read_and_written_at_once_is_refused() -> None:
    w = Writer()
    data, places = w.input("data", FLOAT, [4]), w.input("places", INT64, ["n"])
    index = w.op("Where", w.op("Less", places, 0), 2**31 - 1, places)
    w.output("read", w.op("Gather", data, index), ["n"])
    w.output("written", w.op("ScatterElements", data, index, w.op("Gather", data, places)), [4])
    with pytest.raises(PassRefused, match="a gather and a scatter"):
        legalized(w.model())


# --- sessions


def unknown_operator() -> ir.Model:
    w = Writer()
    w.output("y", w.op("Frobnicate", w.input("x", FLOAT, ["n"]), domain="com.example"), ["n"])
    return w.model()


def test_a_missing_kernel_is_named_and_structure_is_compared_instead() -> None:
    with pytest.raises(KernelMissing, match="Frobnicate"):
        Session(unknown_operator())
    report = verify(program(unknown_operator()), program(unknown_operator()))
    assert (report.verdict, report.equal) == (Verdict.STRUCTURE_ONLY, False)
    assert "Frobnicate" in report.notes[0]


def test_structure_tells_an_input_that_the_original_has_not() -> None:
    after = unknown_operator()
    after.graph.inputs[0].name = "z"
    with pytest.raises(NotEqualError, match="input 'z'"):
        verify(program(unknown_operator()), program(after))


def test_a_result_that_onnxruntime_refuses_is_different() -> None:
    after = append_decoder()
    after.graph.outputs[0].dtype = ir.DataType.INT32
    report = verify(program(append_decoder()), program(after))
    assert "refuses the graph" in report.first_difference
    with pytest.raises(SessionError):
        verify(program(after), program(append_decoder()))


def test_a_result_that_only_loads_without_optimizations_is_different(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Session.__init__

    def refuse(self: Session, model: ir.Model, name: str = "", optimization: Optimization | None = None) -> None:
        if "result" in name and optimization is not None:
            raise SessionError("no", where=name)
        make(self, model, name, optimization)

    monkeypatch.setattr(Session, "__init__", refuse)
    report = verify(program(append_decoder()), program(append_decoder()))
    assert report.verdict is Verdict.DIFFERENT
    assert report.runs == 16
    assert "basic optimizations" in report.first_difference


def test_wrong_inputs_are_a_run_error() -> None:
    with pytest.raises(RunError):
        Session(append_decoder()).run({"input_ids": np.zeros((1, 1), np.int64)})


@pytest.mark.parametrize("folders", [1, 2])
def test_external_weights_are_found_in_one_folder_or_several(tmp_path: Path, folders: int) -> None:
    model = append_decoder()
    expected = Session(append_decoder())
    for number, value in enumerate(model.graph.initializers.values()):
        assert value.const_value is not None
        folder = tmp_path / str(number % folders)
        folder.mkdir(exist_ok=True)
        data = value.const_value.numpy().tobytes()
        (folder / f"{number}.bin").write_bytes(data)
        value.const_value = ir.ExternalTensor(
            f"{number}.bin",
            0,
            len(data),
            value.const_value.dtype,
            shape=ir.Shape(value.const_value.shape),
            name=value.name or "",
            base_dir=folder,
        )
    case = {"input_ids": np.ones((1, 2), np.int64), "position_ids": np.array([[0, 1]])}
    past = {
        v.name or "": np.zeros((1, 2, 0, 8), np.float32) for v in model.graph.inputs if v.dtype is ir.DataType.FLOAT
    }
    feeds = {**case, "attention_mask": np.ones((1, 2), np.int64), **past}
    np.testing.assert_array_equal(Session(model).run(feeds)["logits"], expected.run(feeds)["logits"])
