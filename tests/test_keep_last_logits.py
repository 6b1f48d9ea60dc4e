"""keep-last-logits and argmax-tail: the rows that stay are the original's, for every fixture and exported model."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, PassRefused
from onnx_llm_passes.ir.program.contracts.logits import BestTokens, LastRows
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.keep_last_logits import KeepLastLogits
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .harness import execute, find_cases, read_case
from .renaming import rename_everything

MODELS = os.environ.get("ONNX_PASSES_MODELS")
ROOT = Path(__file__).parent / "fixtures"
CHANGES = [
    path
    for path in find_cases(ROOT)
    if path.parent.name in ("keep-last-logits", "argmax-tail")
    and not path.name.startswith("noop-")
    and read_case(path).after is not None
]
PIPELINES = (
    "keep-last-logits{n=1}",
    "keep-last-logits{n=3}",
    "keep-last-logits{symbol=num_logits_to_keep}",
    "keep-last-logits{n=2},argmax-tail",
    "keep-last-logits{n=3},argmax-tail{top_k=4}",
)


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def graph(path: Path) -> ir.Model:
    return ir.from_onnx_text(read_case(path).before)


@pytest.mark.parametrize("path", CHANGES, ids=named)
def test_the_rows_of_a_fixture_are_those_of_the_original(path: Path) -> None:
    original, result = Program({"g": graph(path)}), Program({"g": graph(path)})
    PassManager(parse_pipeline(read_case(path).pipeline)).run(result)
    report = verify(original, result)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert report.runs > 0


MASKED = graph(ROOT / "keep-last-logits" / "mask.txt")
IDS = np.array([[1, 2, 3, 4, 5], [6, 7, 1, 2, 3], [3, 3, 4, 1, 2]])
VALID = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def logits(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    return execute(model, feeds)["logits"]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_right_padding_keeps_the_last_valid_rows_from_row_0_on_where_they_are_few(n: int) -> None:
    model = MASKED.clone()
    KeepLastLogits(n=n)(model)
    every = logits(MASKED, input_ids=IDS, attention_mask=VALID)
    found = logits(model, input_ids=IDS, attention_mask=VALID)
    first = np.maximum(VALID.sum(axis=1) - n, 0)
    wanted = np.stack([every[line, at : at + n] for line, at in enumerate(first)])
    assert found.tobytes() == wanted.tobytes()


def test_a_longer_mask_tells_the_rows_by_its_last_columns() -> None:
    model = graph(ROOT / "keep-last-logits" / "all-rows.txt")
    model.graph.inputs.append(ir.val("attention_mask", ir.DataType.INT64, ir.Shape(["B", "past + S"])))
    every = logits(model, input_ids=IDS, attention_mask=np.pad(VALID, ((0, 0), (3, 0))))
    KeepLastLogits(n=2)(model)
    found = logits(model, input_ids=IDS, attention_mask=np.pad(VALID, ((0, 0), (3, 0))))
    assert found.tobytes() == np.stack([every[0, 3:], every[1, 1:3], every[2, :2]]).tobytes()


@pytest.mark.parametrize("n", [2, 4])
def test_a_run_of_fewer_tokens_keeps_all_its_rows(n: int) -> None:
    model = MASKED.clone()
    KeepLastLogits(n=n)(model)
    feeds = {"input_ids": IDS[:, :1], "attention_mask": VALID[:, :1]}
    assert logits(model, **feeds).tobytes() == logits(MASKED, **feeds).tobytes()


def test_the_length_of_the_input_is_the_number_of_rows() -> None:
    model = MASKED.clone()
    KeepLastLogits(symbol="keep")(model)
    every = logits(MASKED, input_ids=IDS, attention_mask=VALID)
    for n in (1, 2, 5):
        keep = np.full((n, 1), 77)  # its values mean nothing
        found = logits(model, input_ids=IDS, attention_mask=VALID, keep=keep)
        assert found[0].tobytes() == every[0, 5 - n :].tobytes()


def test_widened_rows_are_those_of_the_whole_graph() -> None:
    """The original keeps one row; an Identity in its selection's place keeps all."""
    path = ROOT / "keep-last-logits" / "widen-argmax.txt"
    whole, result = graph(path), graph(path)
    KeepLastLogits(n=3)(result)
    product = next(node for node in whole.graph if node.op_type == "MatMul")
    product.replace_input_with(0, next(node for node in whole.graph if node.name == "rotate").outputs[0])
    positions = np.where(VALID == 1, np.arange(5), -1)
    every = logits(whole, input_ids=IDS, position_ids=positions)
    found = logits(result, input_ids=IDS, position_ids=positions)
    assert found.tobytes() == np.stack([every[0, 2:], every[1, :3], every[2, :3]]).tobytes()


def test_a_selection_made_here_is_widened_narrowed_and_taken_out() -> None:
    model = MASKED.clone()
    for n in (2, 4, 1, 3):
        KeepLastLogits(n=n)(model)
        assert sum(node.op_type == "GatherElements" for node in model.graph) == 1
        found = logits(model, input_ids=IDS, attention_mask=VALID)
        assert found.shape == (3, n, 8)
    for value in model.graph.inputs:
        value.shape = ir.Shape([3, 3])
    KeepLastLogits(n=3)(model)
    assert [node.op_type for node in model.graph] == [node.op_type for node in MASKED.graph]


def test_a_told_number_gives_way_to_a_fixed_one_and_its_input_goes() -> None:
    model = MASKED.clone()
    KeepLastLogits(symbol="keep")(model)
    KeepLastLogits(n=2)(model)
    assert [value.name for value in model.graph.inputs] == ["input_ids", "attention_mask"]


def test_renamed_graph_gives_the_same_result() -> None:
    plain, renamed = graph(ROOT / "keep-last-logits" / "gemm.txt"), graph(ROOT / "keep-last-logits" / "gemm.txt")
    rename_everything(renamed, random.Random(3))
    for model in (plain, renamed):
        KeepLastLogits(n=2)(model)
    assert [node.op_type for node in renamed.graph] == [node.op_type for node in plain.graph]


def test_what_is_assumed_is_recorded() -> None:
    program = Program({"g": MASKED.clone()})
    PassManager(parse_pipeline("keep-last-logits{n=2}")).run(program)
    assert program.assumptions == [
        "logits=last: logits: 2 rows of at least as many tokens, by attention mask attention_mask"
    ]


def test_verify_sees_a_wrong_row() -> None:
    original, result = Program({"g": MASKED.clone()}), Program({"g": MASKED.clone()})
    PassManager(parse_pipeline("keep-last-logits{n=2}")).run(result)
    argmax = next(node for node in result.graphs["g"].graph if node.op_type == "ArgMax")
    argmax.attributes["select_last_index"] = ir.AttrInt64("select_last_index", 0)
    assert verify(original, result).verdict is Verdict.DIFFERENT


def test_ties_go_to_the_lowest_id() -> None:
    assert BestTokens("ids", "logits", 2, "values").best(np.array([[1.0, 3.0, 3.0, 0.0]]))["ids"].tolist() == [[1, 2]]


def test_rows_are_aligned_by_the_last_valid_one() -> None:
    rule = LastRows("y", how="by positions", source="p")
    full = np.arange(10.0).reshape(2, 5, 1)
    inputs = {"p": np.array([[0, 1, 2, 3, 4], [0, 1, -1, -1, -1]])}
    old, new = rule.comparable("y", full, full[:, :3], inputs)
    assert old.ravel().tolist() == [2, 3, 4, 5, 6, 7]
    assert new.ravel().tolist() == [0, 1, 2, 5, 6, 7]


def exported() -> list[Path]:
    return sorted(Path(MODELS).glob("*/*.onnx")) if MODELS else []


REASONS = ("no output holds logits", "inside a branch", "fewer tokens than rows")


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
@pytest.mark.parametrize("text", PIPELINES)
@pytest.mark.parametrize("path", exported(), ids=named)
def test_exported_model(path: Path, text: str, tmp_path: Path) -> None:
    original, result = Program.load(path), Program.load(path)
    try:
        PassManager(parse_pipeline(text)).run(result)
    except OnnxPassesError as refusal:
        assert isinstance(refusal, PassRefused)
        assert any(reason in str(refusal) for reason in REASONS), refusal
        return
    result.save(tmp_path / "out")
    report = verify(original, Program.load(tmp_path / "out"))
    if report.verdict is Verdict.NOT_RUN:  # then the original itself cannot be run
        assert verify(original, Program.load(path)).verdict is Verdict.NOT_RUN
        return
    assert report.verdict is Verdict.EQUAL, report.first_difference
