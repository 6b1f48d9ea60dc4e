"""select-vocab: the chosen words' logits are the original's to the bit, and nothing else of the head is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, UsageError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.serialization.partial_read import take
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.decoder import Decoder, NotDecodable
from onnx_llm_passes.runtime.decode.generate import Settings, generate
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .harness import execute, read_case
from .text_graphs import VOCABULARY, text_model, train_tokenizer

FIXTURES = Path(__file__).parent / "fixtures" / "keep-last-logits"
HEADS = ("mask", "gemm", "four-bit", "softcap", "tied", "quantize-dequantize", "processor")
RNG = np.random.default_rng(3)


def head(name: str) -> ir.Model:
    return ir.from_onnx_text(read_case(FIXTURES / f"{name}.txt").before)


def chosen(model: ir.Model, options: str) -> Program:
    return PassManager(parse_pipeline(f"select-vocab{{{options}}}")).run(Program({"g": model}))


@pytest.mark.parametrize("options", ["tokens=5,2,7", "tokens=1,6 as=difference", "tokens=1,6 as=probability",
                                     "tokens=3,4,0 as=softmax"])  # fmt: skip
@pytest.mark.parametrize("name", HEADS)
def test_every_kind_of_head_gives_what_its_contract_says(name: str, options: str) -> None:
    report = verify(Program({"g": head(name)}), chosen(head(name), options))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert report.runs


def feeds() -> dict[str, np.ndarray]:
    ids = RNG.integers(0, VOCABULARY, (3, 9))
    return {
        "input_ids": ids,
        "attention_mask": np.ones((3, 9), np.int64),
        "position_ids": np.tile(np.arange(9), (3, 1)),
    }


def test_columns_are_equal_to_the_bit_and_differences_nearly() -> None:
    given = feeds()
    whole = execute(text_model("reranker"), given)["logits"]
    found = execute(chosen(text_model("reranker"), "tokens=9,40").graph("g"), given)["logits"]
    assert found.tobytes() == whole[..., [9, 40]].tobytes()
    score = execute(chosen(text_model("reranker"), "tokens=9,40 as=difference").graph("g"), given)["score"]
    assert score.shape == (3, 9)
    wanted = whole[..., 9].astype(np.float64) - whole[..., 40]
    assert np.abs(score - wanted).max() <= 3e-7 * np.abs(whole).max()


def test_a_tied_head_stays_for_the_embedding_and_another_goes() -> None:
    tied = chosen(text_model("reranker"), "tokens=9,40").graph("g")
    assert tied.graph.initializers["table"].shape == ir.Shape([VOCABULARY, 16])
    assert not any(node.op_type == "Transpose" and node.inputs[0].name == "table" for node in tied.graph)
    assert "head" not in chosen(head("mask"), "tokens=1,2").graph("g").graph.initializers


def test_words_are_looked_up_beside_the_model(tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    ir.save(text_model("reranker"), tmp_path / "model.onnx")
    program = Program.load(tmp_path / "model.onnx")
    PassManager(parse_pipeline('keep-last-logits{n=1},select-vocab{tokens="yes","no" as=probability}')).run(program)
    assert "'yes' is " in program.history[-1].notes[0]
    assert [str(dim) for dim in program.graph("model").graph.outputs[0].shape or ()] == ["B", "1"]
    assert verify(Program.load(tmp_path / "model.onnx"), program).verdict is Verdict.EQUAL
    for words, said in (('"river bank","no"', "not one token"), ('"zebra","no"', "not one token")):
        with pytest.raises(OnnxPassesError, match=said):
            PassManager(parse_pipeline(f"select-vocab{{tokens={words}}}")).run(Program.load(tmp_path / "model.onnx"))


def test_a_map_is_a_reduced_vocabulary(tmp_path: Path) -> None:
    ids = [int(number) for number in RNG.permutation(VOCABULARY)[:30]]
    (tmp_path / "map.json").write_text(json.dumps(ids))
    given = feeds()
    found = execute(chosen(text_model("reranker"), f'file="{tmp_path}/map.json"').graph("g"), given)["logits"]
    whole = execute(text_model("reranker"), given)["logits"]
    assert np.abs(found - whole[..., ids]).max() <= 1e-6 * np.abs(whole).max()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "one of them"),
        ("tokens=1,1", "twice"),
        ("tokens=1,64", "no token of the vocabulary"),
        ("tokens=1,2,3 as=difference", "two tokens"),
        ('tokens="yes"', "no tokenizer.json"),
        ("tokens=1,2 as=probability name=q", "taken"),
    ],
)
def test_bad_words_are_refused_and_nothing_changes(options: str, said: str) -> None:
    model = text_model("reranker")
    before = onnx.printer.to_text(ir.to_proto(model))
    with pytest.raises(UsageError, match=said):
        PassManager(parse_pipeline(f"select-vocab{{{options}}}")).run(Program({"g": model}))
    assert onnx.printer.to_text(ir.to_proto(model)) == before


@pytest.mark.parametrize("content", ["[1, 1]", "{}", "[]", "[-1]", "[true]", "[1"])
def test_a_map_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(OnnxPassesError):
        chosen(text_model("reranker"), f'file="{tmp_path}/map.json"')


def test_without_words_the_optional_pass_says_so() -> None:
    program = chosen(text_model("reranker"), "optional=true")
    assert "whole vocabulary" in program.history[-1].notes[0]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("number", [2, 90])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "BFLOAT16", "UINT8"])
def test_slices_of_a_file_are_those_of_the_whole(tmp_path: Path, axis: int, number: int, dtype: str) -> None:
    kind = ir.DataType[dtype]
    array = RNG.integers(0, 100, (200, 150)).astype(kind.numpy())
    (tmp_path / "w.bin").write_bytes(b"1234" + array.tobytes())
    tensor = ir.ExternalTensor(
        "w.bin", 4, array.nbytes, kind, shape=ir.Shape(array.shape), name="w", base_dir=str(tmp_path)
    )
    ids = [int(place) for place in RNG.permutation(array.shape[axis])[:number]]
    found = take(tensor, ids, axis)
    assert found.dtype is kind
    assert found.tobytes() == np.take(array, ids, axis=axis).tobytes()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
@pytest.mark.parametrize("transposed", [False, True])
def test_only_the_words_of_a_gigabyte_are_read(tmp_path: Path, transposed: bool) -> None:
    width, words = 2048, 131072
    shape = [words, width] if transposed else [width, words]
    path = tmp_path / "w.bin"
    with path.open("wb") as file:  # a hole of a gigabyte
        os.truncate(file.fileno(), 4 * width * words)
    tensor = ir.ExternalTensor(
        "w.bin", 0, 4 * width * words, ir.DataType.FLOAT, shape=ir.Shape(shape), name="w", base_dir=str(tmp_path)
    )
    before = characters_read()
    assert take(tensor, [9693, 2152], 0 if transposed else 1).nbytes == 8 * width
    assert characters_read() - before <= 8 * width + 4096


def characters_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


WORDS_OF_DRAFT = [9, 1, 40, 3, 7]


def reduced(path: Path, pipeline: str) -> Program:
    (path / "map.json").write_text(json.dumps(WORDS_OF_DRAFT))
    given = f"select-vocab{{file={path / 'map.json'}}}" + (f",{pipeline}" if pipeline else "")
    return PassManager(parse_pipeline(given)).run(Program({"model": append_decoder()}))


def restricted(prompt: list[int], number: int) -> list[int]:
    """The original's tokens where only the words may follow, the whole text read anew for each."""
    decoder, text = Decoder(Program({"model": append_decoder()}), ctx=64), list(prompt)
    for _ in range(number):
        logits = decoder.prefill({0: text})[0]
        text.append(max(WORDS_OF_DRAFT, key=lambda word: logits[word]))
        decoder.reset()
    return text[len(prompt) :]


@pytest.mark.parametrize(
    "pipeline",
    [
        "",
        "argmax-tail",
        "keep-last-logits{n=1},argmax-tail",
        "convert-states{to=scatter}",
        "keep-last-logits{symbol=n},clone-decode{k=0,3 prefill=8 ctx=32}",
        "speculative{k=0,2 prefill=8 ctx=32},argmax-tail",
    ],
)
def test_a_reduced_vocabulary_generates_and_is_verified(pipeline: str, tmp_path: Path) -> None:
    program = reduced(tmp_path, pipeline)
    assert generate(Decoder(program, ctx=32), [[1, 2, 3]], Settings(8)).tokens == [restricted([1, 2, 3], 8)]
    report = verify(Program({"model": append_decoder()}), program)
    assert report.verdict is Verdict.EQUAL, report.first_difference


def test_the_ids_are_written_beside_and_kept_for_the_next_command(tmp_path: Path) -> None:
    reduced(tmp_path, "").save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "token_ids.json").read_text()) == WORDS_OF_DRAFT
    again = Program.load(tmp_path / "out")
    PassManager(parse_pipeline("select-vocab{tokens=2,0}")).run(again)
    assert generate(Decoder(again, ctx=32), [[1, 2, 3]], Settings(4)).tokens[0][0] in (40, 9)


def test_a_score_is_not_decoded() -> None:
    program = PassManager(parse_pipeline("select-vocab{tokens=3,4 as=difference}")).run(
        Program({"m": append_decoder()})
    )
    with pytest.raises(NotDecodable, match=r"a score.*difference"):
        Decoder(program, ctx=32)
