"""Files of tokens and of texts: what is read, and hostile ones refused with the line or array."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onnx_llm_passes.cli.app import run
from onnx_llm_passes.ir.core.errors import InputError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.calibrate import tokens as calibrate_tokens
from onnx_llm_passes.runtime.calibrate.tokens import read_tokens
from onnx_llm_passes.runtime.samples.samples import append_decoder


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("t.jsonl", '{"input_ids": [1, 2]}\n[3]\n\n', None),
        ("t.jsonl", "[1, 2]\n{bad\n", "line 2"),
        ("t.jsonl", '[1, "x"]\n', "no list of token ids"),
        ("t.jsonl", "[1]\n[true]\n", "line 2.*no list of token ids"),
        ("t.jsonl", "[1]\n[99999999999999999999999]\n", "line 2.*no list of token ids"),
        ("t.jsonl", "[1]\n\n[" + "9" * 5000 + "]\n", "line 3.*is no JSON"),
        ("t.jsonl", "[" * 100_000, "line 1.*is no JSON"),
        ("t.jsonl", '{"ids": [1]}\n', "line 1.*no list of token ids"),
        ("t.jsonl", "\n \n", "holds no token"),
        ("t.jsonl", '{"text": "hello"}\n', "tokenizer.json"),
        ("t.txt", "hello\n", "tokenizer.json"),
        ("t.npz", "no archive", "cannot be read as tokens"),
        ("t.npy", "no array", "cannot be read as tokens"),
    ],
)
def test_files_of_tokens(tmp_path: Path, name: str, content: str, wanted: str | None) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    if wanted is None:
        assert [list(sample) for sample in read_tokens(path)] == [[1, 2], [3]]
        assert len(read_tokens(path, limit=1)) == 1
        return
    with pytest.raises(InputError, match=wanted):
        read_tokens(path)


def tokenizer(folder: Path, **padding: int) -> None:
    """A tokenizer of ten words, as its package writes it."""
    package = pytest.importorskip("tokenizers")
    words = "<pad> a small text of few words is enough here".split()
    made = package.Tokenizer(package.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = package.pre_tokenizers.WhitespaceSplit()
    if padding:
        made.enable_padding(length=padding["length"])
        made.enable_truncation(padding["length"])
    made.save(str(folder / "tokenizer.json"))


WORDS = "a small text\n\nof few words is\n"
IDS = [[1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("padding", [{}, {"length": 3}], ids=["plain", "padding and truncating"])
def test_texts_are_read_with_the_tokenizer_beside_them(tmp_path: Path, padding: dict[str, int]) -> None:
    tokenizer(tmp_path, **padding)
    (tmp_path / "t.txt").write_text(WORDS, encoding="utf-8")
    assert [list(sample) for sample in read_tokens(tmp_path / "t.txt")] == IDS
    lines = [json.dumps({"text": "a small\u2028text"}, ensure_ascii=False), "[4, 5, 6, 7]"]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert [list(sample) for sample in read_tokens(tmp_path / "t.jsonl")] == IDS


def test_a_text_is_calibrated_like_its_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Program(graphs={"model": append_decoder()}).save(tmp_path / "m")
    tokenizer(tmp_path / "m")  # beside the model, as model hubs have it
    (tmp_path / "t.txt").write_text(WORDS, encoding="utf-8")
    (tmp_path / "t.jsonl").write_text("\n".join(map(str, IDS)), encoding="utf-8")
    for name in ("t.txt", "t.jsonl"):
        command = ["calibrate", str(tmp_path / "m"), "--tokens", str(tmp_path / name)]
        assert run([*command, "-o", str(tmp_path / f"{name}.json")]) == 0
    assert (tmp_path / "t.txt.json").read_bytes() == (tmp_path / "t.jsonl.json").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "m" / "tokenizer.json").rename(tmp_path / "other" / "words.json")
    given = ["--tokenizer", str(tmp_path / "other" / "words.json")]
    compared = ["compare", str(tmp_path / "m"), str(tmp_path / "m"), "--tokens", str(tmp_path / "t.txt"), "--json"]
    capsys.readouterr()
    assert run([*compared, *given]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 7
    assert run(compared) == 2


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": "1.0", "model": {"type": "Nothing"}}'])
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    (tmp_path / "t.txt").write_text("hello\n", encoding="utf-8")
    with pytest.raises(InputError, match="is no tokenizer"):
        read_tokens(tmp_path / "t.txt")


def test_no_package_for_texts_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "t.txt").write_text("hello\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"onnx-llm-passes\[text\]"):
        read_tokens(tmp_path / "t.txt")


class Boom:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (Path("pwned"),)


ARRAYS: dict[str, tuple[object, str]] = {
    "objects": (np.array([Boom()], dtype=object), "cannot be read as tokens"),
    "three dimensions": (np.zeros((1, 2, 3), np.int64), "no rows of token ids"),
    "no dimension": (np.int64(3), "no rows of token ids"),
    "truth values": (np.ones((2, 3), bool), "no rows of token ids"),
    "beyond signed integers": (np.array([1, 1 << 63], np.uint64), "no vocabulary has"),
    "nothing": (np.zeros((0, 4), np.int64), "holds no token"),
    "padding alone": (np.full((2, 4), -1), "holds no token"),
}


@pytest.mark.parametrize("case", ARRAYS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_hostile_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    array, wanted = ARRAYS[case]
    path = tmp_path / f"t{suffix}"
    if suffix == ".npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, input_ids=array)
    with pytest.raises(InputError, match=wanted):
        read_tokens(path)
    assert not (tmp_path / "pwned").exists()


def test_an_archive_is_not_unpacked_into_more_than_tokens_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_tokens, "MAX_BYTES", 1 << 20)
    with (
        zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("input_ids.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "<i8", "fortran_order": False, "shape": (1 << 18,)})
        member.write(bytes(1 << 21))
    with pytest.raises(InputError, match="unpacks to too much"):
        read_tokens(tmp_path / "t.npz")


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    with (tmp_path / "t.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (1 << 50,)})
    with pytest.raises(InputError, match="cannot be read as tokens"):
        read_tokens(tmp_path / "t.npy")


def test_a_mask_of_another_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", input_ids=np.ones((2, 3), np.int64), attention_mask=np.ones((2, 4), np.int64))
    with pytest.raises(InputError, match="another shape"):
        read_tokens(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", a=np.ones(3, np.int64), b=np.ones(3, np.int64))
    with pytest.raises(InputError, match="holds no input_ids"):
        read_tokens(tmp_path / "t.npz")


def test_float_tokens_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match="no rows of token ids"):
        read_tokens(tmp_path / "t.npy")
