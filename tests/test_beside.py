"""generate with adapters, draws in the graph and a bitmask says what the host says, and what the folded model says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

from .adapter_tools import matrices, write_peft
from .cli_tools import Command
from .test_lora import MODULES

CLONES = "keep-last-logits{symbol=num_logits_to_keep},SAMPLEclone-decode{k=0,2 prefill=8 ctx=48}"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    (tmp_path / "prompts.json").write_text("[[5, 9, 2, 5, 9]]")
    return Command(capsys)


def saved(pipeline: str, out: Path, *, scatter: bool = True) -> Path:
    model = scatter_decoder() if scatter else append_decoder()
    PassManager(parse_pipeline(pipeline)).run(Program({"model": model})).save(out)
    return out


def tokens(command: Command, program: Path, *more: str) -> list[list[int]]:
    prompts = program.parent / "prompts.json"
    done = command("generate", program, "--prompt-ids", prompts, "--max-new", "24", "--json", *more)
    assert done.code == 0, done.err
    return json.loads(done.out)["tokens"]


@pytest.mark.parametrize("how", [(), ("--temperature", "1.1", "--top-k", "12", "--top-p", "0.9", "--seed", "3")])
def test_the_device_draws_what_the_host_draws(command: Command, tmp_path: Path, how: tuple[str, ...]) -> None:
    host = saved(CLONES.replace("SAMPLE", ""), tmp_path / "host")
    device = saved(CLONES.replace("SAMPLE", "sample-tail{top_k=64 penalties=presence},"), tmp_path / "device")
    expected = tokens(command, host, "--sampler", "host", *how)
    assert tokens(command, device, "--sampler", "device", *how) == expected
    assert (
        command(
            "generate", host, "--prompt-ids", tmp_path / "prompts.json", "--max-new", "2", "--sampler", "device"
        ).code
        == 2
    )


def test_a_bitmask_leaves_its_tokens_alone(command: Command, tmp_path: Path) -> None:
    device = saved(CLONES.replace("SAMPLE", "sample-tail{top_k=8 bitmask=true},"), tmp_path / "device")
    np.save(tmp_path / "mask.npy", np.asarray([0, 0b1011, 0, 0], np.int32))
    np.save(tmp_path / "wide.npy", np.zeros(9, np.int32))
    assert {t for text in tokens(command, device, "--grammar-bitmask", str(tmp_path / "mask.npy")) for t in text} <= {
        32,
        33,
        35,
    }
    wrong = command(
        "generate",
        device,
        "--prompt-ids",
        tmp_path / "prompts.json",
        "--max-new",
        "2",
        "--grammar-bitmask",
        tmp_path / "wide.npy",
    )
    assert wrong.code == 2 and "another width; found 9 words; wanted [4]" in wrong.error


def test_adapters_say_what_the_folded_model_says(command: Command, tmp_path: Path) -> None:
    adapter = write_peft(tmp_path / "one", matrices(MODULES, size=1.0))
    base, folded, inputs, slots = (
        saved(pipeline, tmp_path / name, scatter=False)
        for name, pipeline in (
            ("base", "simplify"),
            ("folded", f"lora{{mode=fold adapters={adapter}}}"),
            ("inputs", f"lora{{adapters={adapter}}}"),
            ("slots", f"lora{{mode=slots adapters={adapter}}}"),
        )
    )
    plain, said = tokens(command, base), tokens(command, folded)
    assert plain != said
    assert tokens(command, inputs) == plain == tokens(command, slots)
    assert tokens(command, inputs, "--adapter", str(adapter)) == said == tokens(command, slots, "--adapter", "one")
    assert tokens(command, slots, "--adapter", "1") == said
    wrong = command("generate", slots, "--prompt-ids", tmp_path / "prompts.json", "--max-new", "2", "--adapter", "two")
    assert wrong.code == 2 and "adapter 'two'" in wrong.error
