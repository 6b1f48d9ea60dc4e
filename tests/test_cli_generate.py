"""``generate`` and ``suggest-k``: what they print and write, and one line for everything that is wrong."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_llm_passes.ir.core.specialization import SpecRole
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.speculate.traces import read_trace

from .cli_tools import Command, interruptible
from .cli_tools import plain as without_states
from .decoders import VOCABULARY, cloned, plain

PROMPTS = [[7, 8, 9, 7, 8, 9, 7], [1, 2]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clones on disk, for reading only."""
    folder = tmp_path_factory.mktemp("clones")
    cloned(2).save(folder)
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The clones on disk, for tests that change them."""
    cloned(1).save(tmp_path / "clones")
    return tmp_path / "clones"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(PROMPTS))
    return path


def as_json(command: Command, *arguments: str | Path) -> dict[str, Any]:
    ran = command(*arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize("proposer", ["ngram", "suffix", "none"])
@pytest.mark.parametrize("policy", ["cover", "goodput"])
def test_generate_prints_the_tokens_of_plain_decoding(
    command: Command, saved: Path, prompts: Path, proposer: str, policy: str
) -> None:
    options = ("--prompt-ids", prompts, "--max-new", "20", "--proposer", proposer, "--policy", policy)
    found = as_json(command, "generate", saved, *options)
    assert found["tokens"] == [plain().generate(prompt, 20) for prompt in PROMPTS]
    assert found["ended"] == ["length", "length"]
    stats = found["stats"]
    assert stats["tokens"] == 40
    assert sum(stats["chosen_k"].values()) == stats["steps"]
    assert stats["tokens_per_step"] >= 1.0
    assert set(stats["ms"]) == {"prefill", "decode", "propose", "dispatch"}


def test_generate_for_people(command: Command, saved: Path, prompts: Path) -> None:
    ran = command("generate", saved, "--prompt-ids", prompts, "--max-new", "8", "--ngram", "1,3")
    assert ran.code == 0
    assert ran.out.startswith(f"0 (length): {' '.join(map(str, plain().generate(PROMPTS[0], 8)))}\n")
    assert "16 tokens in" in ran.out


@pytest.mark.parametrize("kind", ["flat json", "npy", "npy of one dimension"])
def test_prompts_in_other_forms(command: Command, saved: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("p.json" if "json" in kind else "p.npy")
    prompt = PROMPTS[0]
    if kind == "flat json":
        path.write_text(json.dumps(prompt))
    else:
        np.save(path, np.asarray([prompt] if kind == "npy" else prompt, np.int32))
    found = as_json(command, "generate", saved, "--prompt-ids", path, "--max-new", "5")
    assert found["tokens"] == [plain().generate(prompt, 5)]


def test_an_end_token_and_one_row_at_a_time(command: Command, saved: Path, prompts: Path) -> None:
    end = plain().generate(PROMPTS[0], 6)[-1]
    options = ("--prompt-ids", prompts, "--max-new", "20", "--eos", str(end), "--batch", "1", "--k", "0,3")
    found = as_json(command, "generate", saved, *options)
    assert found["tokens"] == [plain().generate(prompt, 20, frozenset([end])) for prompt in PROMPTS]
    assert set(found["stats"]["chosen_k"]) <= {"0", "3"}


def test_sampling_repeats_itself(command: Command, saved: Path, prompts: Path) -> None:
    options = ("--prompt-ids", prompts, "--max-new", "20", "--temperature", "1", "--seed", "5")
    first = as_json(command, "generate", saved, *options, "--proposer", "suffix")
    assert as_json(command, "generate", saved, *options, "--k", "0")["tokens"] == first["tokens"]


@pytest.mark.parametrize(
    ("content", "says", "code"),
    [
        ("", "cannot be read as prompts", 2),
        ("{}", "holds no list", 2),
        ("[1, true]", "prompt 0, token 1: is no token id; found True", 2),
        ("[[1], [2.5]]", "prompt 1, token 0: is no token id", 2),
        ("[]", "prompt 0: is empty", 2),
        ("[[1], []]", "prompt 1: is empty", 2),
        (f"[1, {VOCABULARY}]", f"token 1: is beyond the vocabulary; found {VOCABULARY}", 2),
        ("[-1]", "is beyond the vocabulary", 2),
        (json.dumps([1] * 64), "is longer than the context", 2),
        ("[" * 100_000, "cannot be read as prompts", 2),
    ],
)
def test_wrong_prompts(command: Command, saved: Path, tmp_path: Path, content: str, says: str, code: int) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    ran = command("generate", saved, "--prompt-ids", path, "--max-new", "4")
    assert ran.code == code
    assert says in ran.error


def test_a_pickle_is_no_prompt(command: Command, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    np.save(path, np.asarray([object()]), allow_pickle=True)
    ran = command("generate", saved, "--prompt-ids", path, "--max-new", "4")
    assert ran.code == 2
    assert "cannot be read as prompts" in ran.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--proposer", "ngrm"), "unknown proposer 'ngrm'. Did you mean 'ngram'?"),
        (("--policy", "best"), "unknown policy 'best'"),
        (("--ngram", "5"), "--ngram takes two sizes"),
        (("--ngram", "5,3"), "n-gram sizes"),
        (("--k", "0,x"), "--k takes whole numbers"),
        (("--k", "7"), "not compiled; found K [7]"),
        (("--batch", "5"), "made for a smaller batch"),
        (("--top-p", "0"), "no way to draw"),
    ],
)
def test_wrong_options(command: Command, saved: Path, prompts: Path, options: tuple[str, ...], says: str) -> None:
    ran = command("generate", saved, "--prompt-ids", prompts, "--max-new", "4", *options)
    assert ran.code == 2
    assert says in ran.error


def test_a_damaged_index(command: Command, program: Path, prompts: Path) -> None:
    (program / "program.json").write_text('{"format": "onnx-llm-passes/program", "graphs": 3}')
    ran = command("generate", program, "--prompt-ids", prompts, "--max-new", "4")
    assert ran.code == 2
    assert "is not an index of this version" in ran.error


def test_a_missing_graph(command: Command, program: Path, prompts: Path) -> None:
    (program / "decode_k2.onnx").unlink()
    ran = command("generate", program, "--prompt-ids", prompts, "--max-new", "4")
    assert ran.code == 2
    assert "decode_k2.onnx is missing" in ran.error


def test_a_program_that_is_no_decoder(command: Command, tmp_path: Path, prompts: Path) -> None:
    ran = command("generate", without_states(tmp_path / "m.onnx"), "--prompt-ids", prompts, "--max-new", "4")
    assert ran.code == 1
    assert "no graph takes token ids" in ran.error


def test_an_interrupted_generation_ends_with_one_line(program: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.json"
    many.write_text(json.dumps([[1, 2, 3]] * 5000))
    command = [
        sys.executable,
        "-m",
        "onnx_llm_passes",
        "generate",
        str(program),
        "--prompt-ids",
        str(many),
        "--max-new",
        "50",
    ]
    with interruptible(command) as ran:
        time.sleep(4)
        ran.send_signal(signal.SIGINT)
        out, err = ran.communicate(timeout=60)
    assert ran.returncode == 130
    assert out == ""
    assert err.splitlines() == ["error: interrupted; nothing was left half-written"]


def test_suggest_k_records_measures_and_writes(command: Command, program: Path, prompts: Path, tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    options = ("--program", program, "--trace", trace, "--budget", "2", "--max-k", "4")
    record = ("--prompt-ids", prompts, "--max-new", "30", "--proposer", "suffix")
    found = as_json(command, "suggest-k", *options, *record)
    recorded = read_trace(trace)
    assert recorded.proposer == found["proposer"] == "suffix"
    assert len(recorded.steps) == found["steps"]
    assert [row["budget"] for row in found["budgets"]] == [1, 2]
    assert all(len(row["ks"]) <= row["budget"] and row["neighbours"] for row in found["budgets"])
    assert found["budgets"][1]["gain"] >= found["budgets"][0]["gain"]
    latencies = {item.k: item.latency for item in Program.load(program).specializations if item.role is SpecRole.DECODE}
    assert set(latencies) == set(range(5))
    assert all(ms == pytest.approx(1e3 * latencies[int(k)], abs=1e-4) for k, ms in found["latency_ms"].items())
    again = command("suggest-k", *options, "--policy", "cover", "--apply")
    assert again.code == 0
    assert again.out.startswith("speculative{k=")
    assert "prefill=5 ctx=64}" in again.out


def test_suggest_k_for_people(command: Command, program: Path, tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"format":"onnx-llm-passes/trace","version":1,"max_k":6}\n{"n":[6],"a":[2]}\n{"n":[0],"a":[0]}\n')
    ran = command("suggest-k", "--program", program, "--trace", trace, "--budget", "3")
    assert ran.code == 0
    assert "6: " in ran.out
    assert "(estimated)" in ran.out
    assert "budget" in ran.out


def test_goodput_uses_the_latencies_that_were_written(
    command: Command, program: Path, prompts: Path, tmp_path: Path
) -> None:
    options = ("generate", program, "--prompt-ids", prompts, "--max-new", "10", "--policy", "goodput")
    assert "note: the program has no latencies" in command(*options).err
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"format":"onnx-llm-passes/trace","version":1,"max_k":4}\n{"n":[4],"a":[2]}\n')
    assert command("suggest-k", "--program", program, "--trace", trace, "--budget", "1").code == 0
    assert "note" not in command(*options).err


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), ("", "is no trace"), ('{"n": [1]}', "line 1: is no trace")]
)
def test_wrong_traces(command: Command, program: Path, tmp_path: Path, content: str | None, says: str) -> None:
    trace = tmp_path / "t.jsonl"
    if content is not None:
        trace.write_text(content)
    ran = command("suggest-k", "--program", program, "--trace", trace, "--budget", "1")
    assert ran.code == 2
    assert says in ran.error
