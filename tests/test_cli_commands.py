"""Each subcommand does what its help says: what it prints, what it writes, and that --json prints one object only."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_llm_passes.passes.presets import PRESETS
from onnx_llm_passes.passes.registry import pass_names
from onnx_llm_passes.runtime.calibrate.tokens import read_tokens

from .cli_tools import Command, contents, names, plain, process, sample

STATES = [f"past_key_values.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return sample(tmp_path / "in")


def as_json(command: Command, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """The one object that a command with --json prints."""
    ran = command(*arguments, "--json")
    assert ran.code == code
    data = json.loads(ran.out)
    assert isinstance(data, dict)
    return data


def test_list_names_every_pass_and_preset(command: Command) -> None:
    data = as_json(command, "list")
    assert [row["name"] for row in data["passes"]] == pass_names()
    assert [row["name"] for row in data["presets"]] == list(PRESETS)
    assert [row["name"] for row in data["passes"] if not row["summary"]] == []
    shown = command("list").out
    assert all(f"  {name} " in shown for name in (*pass_names(), *PRESETS))


def test_list_shows_a_pass_with_its_options(command: Command) -> None:
    data = as_json(command, "list", "strip-states")
    options = {option["name"]: option for option in data["options"]}
    assert list(options) == ["layers", "kinds", "positions", "init"]
    assert options["positions"]["takes"] == "one of ordered, any"
    assert options["positions"]["default"] == "ordered"
    shown = command("list", "strip-states").out
    assert data["doc"] in shown
    assert "positions  one of ordered, any  (default ordered)" in shown


def test_list_shows_a_preset_expanded(command: Command) -> None:
    assert as_json(command, "list", "single-shot")["pipeline"] == "strip-states,simplify"
    assert "strip-states,simplify" in command("list", "single-shot").out


def test_list_shows_a_pass_of_onnx_ir(command: Command) -> None:
    assert as_json(command, "list", "ir-identity-elimination")["origin"] == "onnx-ir"


def test_inspect_tells_roles_states_and_sizes(command: Command, model: Path) -> None:
    data = as_json(command, "inspect", model, "--bind", "batch_size=2", "--bind", "past_sequence_length=100")
    graph = data["graphs"]["model"]
    roles = {value["name"]: value["role"] for value in graph["inputs"]}
    assert roles == {
        "input_ids": "token ids",
        "attention_mask": "attention mask",
        "position_ids": "positions",
        **dict.fromkeys(STATES, "state"),
    }
    first = graph["states"][0]
    heads, width = first["shape"][1], first["shape"][3]
    assert (first["name"], first["layer"], first["kind"]) == (STATES[0], 0, "key")
    assert (first["layout"], first["axis"], first["pairing"]) == ("append", 2, "both")
    assert first["symbols"] == ["batch_size", "past_sequence_length"]
    assert first["bytes"] == 2 * heads * 100 * width * 4
    assert graph["state_bytes"] == 4 * first["bytes"]
    assert graph["weights"]["external_bytes"] > 0
    assert sum(graph["operators"].values()) == graph["nodes"]["total"]


def test_inspect_leaves_open_what_is_not_bound(command: Command, model: Path) -> None:
    graph = as_json(command, "inspect", model, "--bind", "batch_size=2")["graphs"]["model"]
    assert graph["state_bytes"] is None
    assert {state["bytes"] for state in graph["states"]} == {None}
    assert "--bind past_sequence_length=N" in command("inspect", model, "--bind", "batch_size=2").out


def test_inspect_for_people_cuts_no_name(command: Command, model: Path) -> None:
    shown = command("inspect", model).out
    assert "past_key_values.*.key" in shown
    assert "attention mask" in shown
    assert "FLOAT[batch_size, 2, past_sequence_length, " in shown
    assert "past_sequence_length + sequence_length" in shown


def test_inspect_says_that_there_are_no_states(command: Command, tmp_path: Path) -> None:
    assert "no states" in command("inspect", plain(tmp_path / "a.onnx")).out


def test_run_writes_a_program_and_says_what_changed(command: Command, model: Path, tmp_path: Path) -> None:
    ran = command("run", "single-shot", model, "-o", tmp_path / "out")
    assert ran.code == 0
    assert names(tmp_path / "out" / "model.onnx") == (["input_ids", "attention_mask", "position_ids"], ["logits"])
    assert "7 -> 3 inputs, 5 -> 1 outputs" in ran.out
    assert "symbols gone: past_sequence_length" in ran.out
    assert f"next: onnx-passes verify {model} {tmp_path / 'out'}" in ran.out


def test_run_beside_the_source_refers_to_the_weights(command: Command, model: Path, tmp_path: Path) -> None:
    before = contents(model.parent)
    out = as_json(command, "run", "strip-states", model, "-o", tmp_path, "--weights", "refer")
    assert out["weights"]["copied"] == 0
    assert out["weights"]["referred"] == (model.parent / "weights.data").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "model.onnx", "program.json"]
    assert contents(model.parent) == before


def test_run_elsewhere_copies_the_weights_and_refuses_to_refer(command: Command, model: Path, tmp_path: Path) -> None:
    data = as_json(command, "run", "strip-states", model, "-o", tmp_path / "out")
    assert data["weights"]["copied"] == (model.parent / "weights.data").stat().st_size
    refused = command("run", "strip-states", model, "-o", tmp_path / "other", "--weights", "refer")
    assert refused.code == 2
    assert "--weights copy" in refused.error
    assert not (tmp_path / "other").exists()


def test_run_tells_the_same_as_json(command: Command, model: Path, tmp_path: Path) -> None:
    data = as_json(command, "run", "strip-states,simplify", model, "-o", tmp_path / "out")
    assert [entry["text"] for entry in data["passes"]] == ["strip-states", "simplify"]
    assert data["passes"][0]["counts"]["states"] == 4
    assert len(data["graphs"]["model"]["before"]["inputs"]) == 7
    assert len(data["graphs"]["model"]["after"]["inputs"]) == 3
    assert set(data["files"]) == {path.name for path in (tmp_path / "out").iterdir()}


def test_run_again_replaces_its_own_output_with_the_same_graph(command: Command, model: Path, tmp_path: Path) -> None:
    graphs = []
    for _ in range(2):
        assert command("run", "single-shot", model, "-o", tmp_path / "out").code == 0
        graphs.append((tmp_path / "out" / "model.onnx").read_bytes())
    assert graphs[0] == graphs[1]


def test_print_after_timing_and_dump_go_beside_the_result(command: Command, model: Path, tmp_path: Path) -> None:
    flags = ("--print-after", "strip-states", "--timing", "--dump", tmp_path / "dump")
    ran = command("run", "single-shot", model, "-o", tmp_path / "out", "--json", *flags)
    assert json.loads(ran.out)["pipeline"] == "strip-states,simplify"
    assert "// model after strip-states" in ran.err
    assert all(f" s  {step}\n" in ran.err for step in ("load", "strip-states", "simplify", "save", "in all"))
    dumped = sorted(path.name for path in (tmp_path / "dump").glob("*.onnxtxt"))
    assert dumped == ["000-input.onnxtxt", "001-strip-states.onnxtxt", "002-simplify.onnxtxt"]


@pytest.mark.parametrize(("number", "ran"), [(0, []), (1, ["strip-states"]), (5, ["strip-states", "simplify"])])
def test_stop_after_runs_the_first_passes(
    number: int, ran: list[str], command: Command, model: Path, tmp_path: Path
) -> None:
    data = as_json(command, "run", "single-shot", model, "-o", tmp_path / "out", "--stop-after", str(number))
    assert [entry["text"] for entry in data["passes"]] == ran


def test_no_shapes_writes_none(command: Command, model: Path, tmp_path: Path) -> None:
    counts = []
    for flags in ((), ("--no-shapes",)):
        assert command("run", "strip-states", model, "-o", tmp_path / "out", *flags).code == 0
        graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
        counts.append(len(graph.value_info))
    assert counts[0] > counts[1]


def test_no_verify_each_leaves_the_checks_out(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx_llm_passes.ir.core.errors import ProgramInvalid
    from onnx_llm_passes.passes.instruments import VerifyEach

    def refuse(*_: object) -> None:
        raise ProgramInvalid("found out")

    monkeypatch.setattr(VerifyEach, "start", refuse)
    checked = command("run", "strip-states", model, "-o", tmp_path / "out")
    assert (checked.code, checked.error) == (1, "found out")
    assert command("run", "strip-states", model, "-o", tmp_path / "out", "--no-verify-each").code == 0


def test_a_refused_run_leaves_a_reproducer_where_it_is_asked_for(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, left = tmp_path / "scratch", tmp_path / "left"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    arguments = ("run", "simplify,strip-states{layers=9}", sample(tmp_path / "in"), "-o", tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    assert command(*arguments).code == 1
    assert sorted(tmp_path.rglob("*")) == before, "a refused run leaves nothing"
    ran = command(*arguments, "--reproducer", left)
    (pipeline,) = left.rglob("pipeline.txt")
    assert pipeline.read_text() == "strip-states{layers=9}\n"
    assert str(pipeline.parent) in ran.error
    assert list(scratch.iterdir()) == []


def test_the_report_is_one_file_that_escapes_names(command: Command, tmp_path: Path) -> None:
    model = sample(tmp_path / "in")
    changed = onnx.load(model, load_external_data=False)
    for node in changed.graph.node:
        node.output[:] = ["<b>logits</b>" if name == "logits" else name for name in node.output]
    changed.graph.output[0].name = "<b>logits</b>"
    model.write_bytes(changed.SerializeToString())
    page = tmp_path / "report.html"
    assert command("run", "single-shot", model, "-o", tmp_path / "out", "--report", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;logits&lt;/b&gt;" in text
    assert "<b>logits" not in text
    assert 'class="gone"' in text
    assert "http" not in text
    assert "past_key_values.*.key (2)" in text, "layers that are alike are one row"
    assert '<th scope="row" class="t">Shape</th>' in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "report.html"]


def test_the_report_needs_jinja2_and_says_so_first(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    ran = command("run", "single-shot", model, "-o", tmp_path / "out", "--report", tmp_path / "r.html")
    assert ran.code == 2
    assert "pip install" in ran.error
    assert not (tmp_path / "out").exists()


def test_verify_exits_0_for_equal_and_1_for_not(command: Command, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("run", "single-shot", model, "-o", out).code == 0
    equal = as_json(command, "verify", model, out, "--seed", "3")
    assert (equal["verdict"], equal["max_abs"], equal["seed"]) == ("equal", 0.0, 3)
    assert "equal bit for bit" in command("verify", model, out).out

    spoilt = onnx.load(out / "model.onnx", load_external_data=False)
    spoilt.graph.node[-1].op_type = "Add"
    spoilt.graph.node[-1].input[:] = [spoilt.graph.node[-2].output[0]] * 2
    bad = tmp_path / "bad.onnx"
    (tmp_path / "weights.data").write_bytes((out / "weights.data").read_bytes())
    bad.write_bytes(spoilt.SerializeToString())
    different = as_json(command, "verify", model, bad, code=1)
    assert different["verdict"] == "different"
    assert "logits" in different["first_difference"]
    assert "first difference: " in command("verify", model, bad).out


def test_verify_runs_on_the_arrays_given(command: Command, model: Path, tmp_path: Path) -> None:
    out, arrays = tmp_path / "out", tmp_path / "inputs.npz"
    assert command("run", "single-shot", model, "-o", out).code == 0
    ids = np.array([[5, 6, 7]])
    np.savez(arrays, input_ids=ids, attention_mask=np.ones_like(ids), position_ids=np.arange(3)[None])
    data = as_json(command, "verify", model, out, "--inputs", arrays)
    assert (data["verdict"], data["runs"]) == ("equal", 1)


def test_diff_tells_what_went(command: Command, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("run", "strip-states", model, "-o", out).code == 0
    data = as_json(command, "diff", model, out)
    graph = data["graphs"]["model"]
    assert data["same"] is False
    assert sorted(graph["states"]["removed"]) == sorted(STATES)
    assert list(graph["symbols"]["removed"]) == ["past_sequence_length"]
    assert list(graph["inputs"]["changed"]) == ["attention_mask"]
    assert "- past_sequence_length" in command("diff", model, out).out
    same = command("diff", model, model)
    assert (same.code, same.out) == (0, "no difference\n")


def test_the_demo_shows_both_idioms_and_keeps_the_users_files(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = command("demo")
    assert first.code == 0
    assert "7 -> 3" in first.out
    assert "6 -> 2" in first.out
    assert [path.name for path in tmp_path.iterdir()] == ["onnx-passes-demo"]
    assert [len(text) for text in read_tokens(tmp_path / "onnx-passes-demo" / "texts.jsonl")] == [12, 12]
    kept = tmp_path / "onnx-passes-demo" / "append" / "single-shot" / "mine.txt"
    kept.write_text("mine")
    again = command("demo")
    assert (again.code, again.out) == (0, first.out)
    assert kept.read_text() == "mine"
    foreign = tmp_path / "elsewhere" / "append" / "original"
    foreign.mkdir(parents=True)
    (foreign / "model.onnx").write_text("mine")
    refused = command("demo", "-o", tmp_path / "elsewhere")
    assert refused.code == 2
    assert "another folder with -o" in refused.error
    assert contents(tmp_path / "elsewhere") == {"append/original/model.onnx": b"mine"}


def test_no_colours_where_there_is_no_terminal(model: Path) -> None:
    for arguments in (["list"], ["inspect", model], ["run", "--help"]):
        done = process(arguments, FORCE_COLOR="", TERM="xterm-256color")
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_on_a_terminal_unless_no_color(no_color: str, coloured: bool, model: Path) -> None:
    import os
    import pty
    import subprocess
    import sys

    reader, writer = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color, "COLUMNS": "200"}
    child = subprocess.Popen(
        [sys.executable, "-m", "onnx_llm_passes", "inspect", str(model)], stdout=writer, stderr=writer, env=environment
    )
    os.close(writer)
    chunks: list[bytes] = []
    with os.fdopen(reader, "rb", buffering=0) as screen:
        try:
            while chunk := screen.read(4096):
                chunks.append(chunk)
        except OSError:  # the other end is closed: how Linux says that all was read
            pass
    assert child.wait(30) == 0
    shown = b"".join(chunks)
    assert b"past_sequence_length" in shown
    assert (b"\x1b[" in shown) is coloured
