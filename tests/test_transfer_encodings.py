"""transfer-encodings: clones take encodings by name, renamed graphs by structure, other models none."""

from __future__ import annotations

import random
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import (
    NoEvidence,
)
from onnx_llm_passes.ir.quantization.carried import table_of
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.tie_states import TieStates
from onnx_llm_passes.passes.transfer_encodings import TransferEncodings
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .qdq_tools import FOUR, calibrated, saved
from .renaming import rename_everything


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
