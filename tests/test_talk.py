"""``generate --prompt``: text in, text out as it comes, the end token of the exporter's configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import onnx_llm_passes as ox
from onnx_llm_passes.ir.core.errors import UsageError
from onnx_llm_passes.runtime.decode.texts import TextStream, ends_of

from .cli_tools import Command
from .decoders import VOCABULARY, cloned


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def save_tokenizer(folder: Path) -> Tokenizer:
    """One letter or sign for each token, in the order of ASCII."""
    letters = {chr(33 + number): number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk") / "clones"
    cloned(1).save(folder)
    save_tokenizer(folder.parent)
    return folder


def test_text_goes_in_and_the_text_of_the_same_tokens_comes_out(command: Command, program: Path) -> None:
    tokenizer = Tokenizer.from_file(str(program.parent / "tokenizer.json"))
    spoken = json.loads(command("generate", program, "--prompt", '"%&"%&', "--max-new", "6", "--json").out)
    assert tokenizer.encode('"%&"%&').ids == [1, 4, 5, 1, 4, 5]
    ids = program.parent / "ids.json"
    ids.write_text(json.dumps([[1, 4, 5, 1, 4, 5]]), encoding="utf-8")
    by_ids = json.loads(command("generate", program, "--prompt-ids", ids, "--max-new", "6", "--json").out)
    assert spoken["tokens"] == by_ids["tokens"] and "texts" not in by_ids
    assert spoken["texts"] == [tokenizer.decode(tokens) for tokens in spoken["tokens"]]
    streamed = command("generate", program, "--prompt", '"%&"%&', "--max-new", "6").out
    assert streamed.splitlines()[0] == spoken["texts"][0]
    assert ox.generate(program, ['"%&"%&'], max_new=6).to_dict()["texts"] == spoken["texts"]
    two = command("generate", program, "--prompt", '"%&"%&', "--prompt", '"', "--max-new", "6").out
    assert two.splitlines()[0] == f"0 (length): {spoken['texts'][0]}"


def test_a_text_ends_where_the_configuration_beside_the_tokenizer_says(command: Command, program: Path) -> None:
    plain = json.loads(command("generate", program, "--prompt", '"%&"%&', "--max-new", "6", "--json").out)
    third = plain["tokens"][0][2]
    config = program.parent / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": [third]}), encoding="utf-8")
    try:
        ended = json.loads(command("generate", program, "--prompt", '"%&"%&', "--max-new", "6", "--json").out)
    finally:
        config.unlink()
    assert ended["tokens"][0] == plain["tokens"][0][: plain["tokens"][0].index(third) + 1]
    assert ended["ended"] == ["eos"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "prompts are token ids or text"),
        (("--prompt", "a", "--prompt-ids", "f.json"), "prompts are token ids or text"),
        (("--prompt", "a", "--tokenizer", "nosuch.json"), "is no tokenizer"),
        (("--prompt-ids", "f.json", "--tokenizer", "nosuch.json"), "token ids need no tokenizer"),
    ],
)
def test_wrong_prompts_are_one_line(command: Command, program: Path, words: tuple[str, ...], said: str) -> None:
    result = command("generate", program, "--max-new", "2", *words)
    assert result.code == 2 and said in result.err and "Traceback" not in result.err


def test_prompts_of_two_kinds_and_a_tokenizer_without_use_are_refused(program: Path) -> None:
    with pytest.raises(UsageError, match="1 texts of 2"):
        ox.generate(program, ["a", [1, 2]], max_new=2)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="token ids need no tokenizer"):
        ox.generate(program, [[1, 2]], max_new=2, tokenizer="nosuch.json")


def test_tokens_without_a_word_are_warned_of(command: Command, program: Path, tmp_path: Path) -> None:
    small = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    small.save(str(tmp_path / "tokenizer.json"))
    done = command("generate", program, "--prompt", "b", "--tokenizer", tmp_path, "--max-new", "6", "--json")
    strange = [token for token in json.loads(done.out)["tokens"][0] if token > 1]
    assert strange and done.err.startswith(f"warning: {len(strange)} tokens") and "is it the model's?" in done.err


def test_without_a_tokenizer_it_is_asked_for(command: Command, tmp_path: Path) -> None:
    cloned(1).save(tmp_path / "clones")
    result = command("generate", tmp_path / "clones", "--prompt", "a", "--max-new", "2")
    assert result.code == 2 and "no tokenizer.json" in result.err and "--tokenizer" in result.err


@pytest.mark.parametrize(
    ("config", "ends"),
    [
        ({"eos_token_id": 2}, {2}),
        ({"eos_token_id": [2, 7]}, {2, 7}),
        ({"model": {"eos_token_id": [5]}}, {5}),  # onnxruntime-genai's genai_config.json
        ({"eos_token_id": None}, set()),
        ({"eos_token_id": "x"}, set()),
        ([], set()),
    ],
)
def test_what_configurations_say_of_ends(tmp_path: Path, config: object, ends: set[int]) -> None:
    (tmp_path / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert ends_of(tmp_path) == ends


def test_a_character_spread_over_tokens_comes_whole() -> None:
    bytes_of = {f"<0x{number:02X}>": number for number in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=bytes_of, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    stream = TextStream(tokenizer)
    parts = [stream.add([number]) for number in "aé€".encode()]
    assert parts == ["a", "", "é", "", "", "€"]
    unfinished = TextStream(tokenizer)
    assert unfinished.add([0xC3]) == "" and unfinished.end() == "\N{REPLACEMENT CHARACTER}"
