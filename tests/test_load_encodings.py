"""load-encodings: files of every kind give their encodings, strangers are left out and told."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import Encoding, EncodingsInvalid, EncodingTable, Evidence, print_encodings
from onnx_llm_passes.ir.quantization.carried import put_table, table_of
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.load_encodings import LoadEncodings
from onnx_llm_passes.runtime.calibrate.calibrate import calibrate
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .qdq_tools import TEXTS, calibrated, quantize


def test_a_quantized_file_gives_its_encodings_to_a_float_graph(tmp_path: Path) -> None:
    quantized_program = quantize(calibrated(append_decoder()))
    quantized_program.save(tmp_path / "q")
    again = Program(graphs={"model": append_decoder()})
    LoadEncodings(tmp_path / "q" / "model.onnx").run(again)
    InsertQdq().run(again)
    first = ir.to_proto(quantized_program.graphs["model"]).SerializeToString()
    assert ir.to_proto(again.graphs["model"]).SerializeToString() == first


def written(table: EncodingTable, folder: Path) -> Path:
    path = folder / "encodings.json"
    path.write_text(print_encodings(table), encoding="utf-8")
    return path


def grid(scale: float) -> Encoding:
    return Encoding((scale,), (0,), 8)


def names() -> list[str]:
    return [str(node.outputs[0].name) for node in append_decoder().graph if node.op_type == "Sigmoid"]


def test_the_file_has_the_last_word_and_what_it_does_not_name_stays(tmp_path: Path) -> None:
    first, second = names()[:2]
    program = Program(graphs={"g": append_decoder()})
    put_table(program, EncodingTable({first: grid(0.5), second: grid(0.25)}))
    report = LoadEncodings(written(EncodingTable({first: grid(0.125)}), tmp_path)).run(program)
    found = table_of(program).encodings
    assert (found[first].scale, found[second].scale) == ((0.125,), (0.25,))
    assert report.modified
    assert not LoadEncodings(tmp_path / "encodings.json").run(program).modified


def test_strangers_are_left_out_and_named(tmp_path: Path) -> None:
    strangers = {f"stranger_{index}": grid(1.0) for index in range(6)}
    program = Program(graphs={"g": append_decoder()})
    report = LoadEncodings(written(EncodingTable({names()[0]: grid(0.5), **strangers}), tmp_path)).run(program)
    assert report.counts["strangers"] == 6
    assert "6 of 7 encodings of " in report.warnings[0]
    assert "name no tensor of this graph (stranger_0" in report.warnings[0]
    assert not report.notes
    assert set(table_of(program).encodings) == {names()[0]}


def test_a_few_strangers_are_a_note(tmp_path: Path) -> None:
    strangers = {f"stranger_{index}": grid(1.0) for index in range(6)}
    program = Program(graphs={"g": append_decoder()})
    known = {str(node.outputs[0].name): grid(0.5) for node in append_decoder().graph if node.op_type == "MatMul"}
    report = LoadEncodings(written(EncodingTable(known | strangers), tmp_path)).run(program)
    assert "6 encodings name no tensor" in report.notes[0]
    assert "stranger_3 and 2 more" in report.notes[0]
    assert not report.warnings


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    path = written(EncodingTable({"stranger": grid(1.0)}), tmp_path)
    program = Program(graphs={"g": append_decoder()})
    with pytest.raises(PassRefused, match=r"names no tensor of the program; found stranger.*transfer-encodings"):
        LoadEncodings(path).run(program)
    assert program.encodings == {}


def test_short_calibration_texts_warn_only_beyond_their_length(tmp_path: Path) -> None:
    path = written(calibrate(Program(graphs={"g": append_decoder()}), TEXTS[:1]), tmp_path)
    longest = len(TEXTS[0])
    for ctx, wanted in ((None, 0), (longest, 0), (longest + 1, 1)):
        report = LoadEncodings(path, ctx).run(Program(graphs={"g": append_decoder()}))
        assert len(report.warnings) == wanted
    assert f"at most {longest} tokens, deployed with {longest + 1}" in report.warnings[0]


def test_every_graph_is_known_by_the_names_that_any_of_them_has(tmp_path: Path) -> None:
    renamed = append_decoder()
    name = names()[0]
    next(node for node in renamed.graph if node.op_type == "Sigmoid").outputs[0].name = "elsewhere"
    program = Program(graphs={"a": append_decoder(), "b": renamed})
    LoadEncodings(written(EncodingTable({name: grid(0.5), "elsewhere": grid(0.25)}), tmp_path)).run(program)
    assert set(table_of(program).encodings) == {name, "elsewhere"}


def test_a_programs_encodings_come_back_as_they_were_saved(tmp_path: Path) -> None:
    program = Program(graphs={"g": append_decoder()})
    table = EncodingTable({names()[0]: grid(0.5)}, {names()[0]: Evidence(-1.0, 2.0, more={"seen": 3})})
    LoadEncodings(written(table, tmp_path)).run(program)
    program.save(tmp_path / "out")
    assert program.encodings == Program.load(tmp_path / "out").encodings == table.tensors()


def test_encodings_edited_badly_are_refused_where_the_program_is_loaded(tmp_path: Path) -> None:
    program = Program(graphs={"g": append_decoder()})
    LoadEncodings(written(EncodingTable({names()[0]: grid(0.5)}), tmp_path)).run(program)
    program.save(tmp_path / "out")
    index = tmp_path / "out" / "program.json"
    whole = json.loads(index.read_text())
    whole["encodings"][names()[0]]["encoding"]["scale"] = -1.0
    index.write_text(json.dumps(whole))
    with pytest.raises(EncodingsInvalid, match=rf"program\.json, encodings, tensor '{names()[0]}'"):
        Program.load(tmp_path / "out")
