"""predict: vectors of texts are those of one text at a time, whatever the lengths, batches and padding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import InputError, UsageError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.compare.answers import compare_answers, kendall, ndcg
from onnx_llm_passes.runtime.predict.predict import Predictor
from onnx_llm_passes.runtime.predict.texts import Item, read_pairs, read_texts
from onnx_llm_passes.runtime.predict.tokens import Encoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .cli_tools import Command
from .harness import execute
from .text_graphs import sample_texts, text_model, train_tokenizer

KINDS = {"bert": "cls", "e5": "mean", "modernbert": "mean", "qwen3": "last"}
TEXTS = sample_texts(23)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def made(kind: str, pipeline: str) -> Program:
    return PassManager(parse_pipeline(pipeline)).run(Program({"model": text_model(kind)}))


def by_hand(kind: str, tokenizer: Path, texts: list[str]) -> np.ndarray:
    """The original run on one text after the other, no padding; pooled and normalized by numpy."""
    from tokenizers import Tokenizer

    encoder, model = Tokenizer.from_file(str(tokenizer)), text_model(kind)
    vectors = []
    for text in texts:
        found = encoder.encode(text)
        size = len(found.ids)
        feeds = {"input_ids": found.ids, "attention_mask": [1] * size, "token_type_ids": found.type_ids}
        feeds["position_ids"] = list(range(size))
        given = {value.name: np.array([feeds[value.name or ""]], np.int64) for value in model.graph.inputs}
        rows = execute(model, given)["last_hidden_state"][0]
        vector = {"cls": rows[0], "mean": rows.mean(axis=0), "last": rows[-1]}[KINDS[kind]]
        vectors.append(vector / np.linalg.norm(vector))
    return np.stack(vectors)


@pytest.mark.parametrize("options", ["lengths=24", "lengths=8,16,24", "lengths=16,24 batch=4"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_embedder_gives_the_vectors_of_single_texts(kind: str, options: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path)
    program = made(kind, f"embedder{{kind={KINDS[kind]} {options}}}")
    assert [value.name for value in program.graph("model").graph.outputs] == ["sentence_embedding"]
    found = Predictor(program).texts([Item(text) for text in TEXTS], Encoder(tokenizer))
    assert np.abs(found.values - by_hand(kind, tokenizer, TEXTS)).max() <= 2e-6
    assert found.stats.texts == len(TEXTS)
    assert found.stats.truncated == 0


@pytest.mark.parametrize("batch", [None, 1, 7])
def test_a_graph_of_free_length_pads_to_the_longest_of_a_batch(batch: int | None, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path)
    found = Predictor(made("e5", "pool{kind=mean}")).texts([Item(t) for t in TEXTS], Encoder(tokenizer), batch=batch)
    assert np.abs(found.values - by_hand("e5", tokenizer, TEXTS)).max() <= 2e-6
    assert (found.stats.padding == 0) is (batch == 1)


def test_what_was_fed_gives_the_same_again(tmp_path: Path) -> None:
    encoder = Encoder(train_tokenizer(tmp_path))
    predictor = Predictor(made("bert", "embedder{kind=cls lengths=24 batch=4}"))
    first = predictor.texts([Item(text) for text in TEXTS], encoder, keep_feeds=True)
    rows = {name: array for name, array in first.feeds.items() if name != "text"}
    again = predictor.arrays(rows)
    places = first.feeds["text"]
    assert again.values[places >= 0].tobytes() == first.values[places[places >= 0]].tobytes()


def test_long_texts_lose_their_end_and_are_counted_or_refused(tmp_path: Path) -> None:
    encoder = Encoder(train_tokenizer(tmp_path))
    predictor = Predictor(made("bert", "embedder{kind=cls lengths=8}"))
    items = [Item("river bank"), Item("river " * 30)]
    found = predictor.texts(items, encoder)
    assert found.stats.truncated == 1
    short = predictor.texts([Item("river " * 6)], encoder)  # eight tokens with both marks
    assert found.values[1].tobytes() == short.values[0].tobytes()
    with pytest.raises(UsageError, match=r"text 2.*32 tokens"):
        predictor.texts(items, encoder, strict=True)


def test_a_template_keeps_what_stands_around_a_text_that_is_cut(tmp_path: Path) -> None:
    encoder = Encoder(train_tokenizer(tmp_path, framed=False))
    (tokens,) = encoder.encode([Item("river " * 30, before="loan : ", after=" yes")], 10)
    whole = encoder.encode([Item("loan : "), Item("yes")], None)
    assert len(tokens.ids) == 10
    assert tokens.ids[: len(whole[0].ids)] == whole[0].ids
    assert tokens.ids[-1] == whole[1].ids[-1]
    with pytest.raises(UsageError, match="template alone"):
        encoder.encode([Item("river", before="loan " * 12)], 10)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", "", "holds no text"),
        ("t.txt", "a\n\nb\n", "line 2: is an empty text"),
        ("t.jsonl", '"a"\n{"txt": 3}\n', "line 2: is no text"),
        ("t.jsonl", "{\n", "line 1: is no JSON"),
        ("p.jsonl", '["a"]\n', "no pair"),
        ("p.txt", "alone\n", "no pair"),
        ("p.txt", "query\t \n", "empty text"),
    ],
)
def test_files_that_hold_no_texts_are_refused_by_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    read = read_pairs if name.startswith("p") else read_texts
    with pytest.raises(InputError, match=said):
        read(tmp_path / name)


def test_a_template_without_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("river\n")
    with pytest.raises(InputError, match="no place"):
        read_texts(tmp_path / "t.txt", "instruct")


def test_rows_of_tokens_are_no_answer(tmp_path: Path) -> None:
    encoder = Encoder(train_tokenizer(tmp_path))
    with pytest.raises(UsageError, match="a row a token"):
        Predictor(made("bert", "simplify")).texts([Item("river bank")], encoder)


def test_the_command_writes_vectors_and_feeds(command: Command, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path)
    ir.save(text_model("e5"), tmp_path / "model.onnx")
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"query": "bank", "document": text}) for text in TEXTS))
    assert command("run", "embedder{kind=mean lengths=24}", tmp_path / "model.onnx", "-o", tmp_path / "out").code == 0
    out, feeds = tmp_path / "v.npy", tmp_path / "f.npz"
    given = ("--texts", tmp_path / "t.txt", "--tokenizer", tokenizer)
    said = command("predict", tmp_path / "out", *given, "-o", out, "--feeds-out", feeds)
    assert said.code == 0, said
    assert np.abs(np.load(out) - by_hand("e5", tokenizer, TEXTS)).max() <= 2e-6
    assert sorted(np.load(feeds).files) == ["attention_mask", "input_ids", "text", "token_type_ids"]
    lines = tmp_path / "v.jsonl"
    given = ("--pairs", tmp_path / "p.jsonl", "--tokenizer", tokenizer)
    assert command("predict", tmp_path / "out", *given, "-o", lines).code == 0
    assert len(json.loads(lines.read_text().splitlines()[0])["sentence_embedding"]) == 16
    assert command("predict", tmp_path / "out", "-o", out).code == 2


def test_a_reranker_scores_pairs_and_two_of_them_are_compared(command: Command, tmp_path: Path) -> None:
    train_tokenizer(tmp_path)
    ir.save(text_model("reranker"), tmp_path / "model.onnx")
    pairs = [{"query": query, "document": text} for query in ("bank", "river") for text in TEXTS]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (tmp_path / "t.txt").write_text("{query} money {document} yes\n")
    pipeline = 'reranker{family=sequence-classification prefill=32 batch=4 tokens="yes","no"}'
    assert command("run", pipeline, tmp_path / "model.onnx", "-o", tmp_path / "out").code == 0
    given = ("--pairs", tmp_path / "p.jsonl", "--template", tmp_path / "t.txt", "--tokenizer", tmp_path)
    said = command("predict", tmp_path / "out", *given, "-o", tmp_path / "s.npy")
    assert said.code == 0, said
    scores = np.load(tmp_path / "s.npy")
    assert scores.shape == (len(pairs),)
    assert ((scores > 0) & (scores < 1)).all()
    report = verify(Program.load(tmp_path / "model.onnx"), Program.load(tmp_path / "out"))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    same = command("compare", tmp_path / "out", tmp_path / "out", *given, "--json")
    assert json.loads(same.out) == {
        "schema": 1, "kind": "scores", "number": len(pairs), "rankings": 2,
        "max |diff|": 0.0, "Kendall tau": 1.0, "NDCG@10": 1.0,
    }  # fmt: skip


def test_rankings_and_vectors_are_measured() -> None:
    order = np.arange(20.0)
    assert kendall(order, order) == 1
    assert kendall(order, -order) == -1
    assert kendall(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(1 / 3)
    assert ndcg(order, order) == 1
    assert ndcg(order, -order) < 0.4
    assert ndcg(np.array([2.0, 1]), np.array([1.0, 2])) == pytest.approx(1 / np.log2(3))
    found = compare_answers(np.eye(3), np.eye(3) * 2)
    assert found.measures["least cosine"] == pytest.approx(1)
    with pytest.raises(UsageError, match="different shapes"):
        compare_answers(np.eye(3), np.eye(2))
