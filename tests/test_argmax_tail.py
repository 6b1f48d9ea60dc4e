"""argmax-tail: token ids take the place of logits, ties go to the lowest id, and a wrong token is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .harness import canonical, execute, read_case

ROOT = Path(__file__).parent / "fixtures"


def graph(path: Path) -> ir.Model:
    return ir.from_onnx_text(read_case(path).before)


MASKED = graph(ROOT / "keep-last-logits" / "mask.txt")


def test_verify_sees_a_wrong_token() -> None:
    original, result = Program({"g": MASKED.clone()}), Program({"g": MASKED.clone()})
    PassManager(parse_pipeline("argmax-tail")).run(result)
    best = next(node for node in result.graphs["g"].graph if node.op_type == "ArgMax")
    best.op_type = "ArgMin"
    assert verify(original, result).verdict is Verdict.DIFFERENT


def tokens(model: ir.Model) -> dict[str, np.ndarray]:
    """What a graph with the inputs of the masked fixture gives for two rows, one of them padded."""
    ids = np.array([[1, 2, 3, 4], [6, 7, 1, 2]])
    return execute(model, {"input_ids": ids, "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]])})


@pytest.mark.parametrize("options", ["", "{top_k=3}"])
def test_ids_are_those_of_the_largest_logits_and_ties_go_to_the_lowest(options: str) -> None:
    result = Program({"g": MASKED.clone()})
    PassManager(parse_pipeline(f"argmax-tail{options}")).run(result)
    (logits,) = tokens(MASKED).values()
    order = np.argsort(-logits, axis=-1, kind="stable")
    ids = next(found for found in tokens(result.graphs["g"]).values() if found.dtype == np.int64)
    assert np.array_equal(ids, order[..., :3] if options else order[..., 0])


def test_every_graph_of_a_program_gets_its_ids_and_keeps_them_on_disk(tmp_path: Path) -> None:
    original, result = ({"a": MASKED.clone(), "b": MASKED.clone()} for _ in range(2))
    program = Program(result)
    report = PassManager(parse_pipeline("argmax-tail")).run(program)
    outputs = {name: [value.name for value in model.graph.outputs] for name, model in report.graphs.items()}
    assert outputs["a"] == outputs["b"]
    assert outputs["a"] != [value.name for value in MASKED.graph.outputs]
    program.save(tmp_path / "out")
    assert verify(Program(original), Program.load(tmp_path / "out")).verdict is Verdict.EQUAL


def test_a_second_run_finds_no_logits(tmp_path: Path) -> None:
    program = Program({"g": MASKED.clone()})
    PassManager(parse_pipeline("argmax-tail")).run(program)
    text = canonical(program.graphs["g"])
    PassManager(parse_pipeline("argmax-tail")).run(program)
    assert canonical(program.graphs["g"]) == text
