"""The Python functions do what the commands of the same names do, on paths, programs and models in memory."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnx_llm_passes as ox
from onnx_llm_passes.ir.core.errors import InputError, ProgramInvalid, UnknownNameError, UsageError
from onnx_llm_passes.passes.base import GraphResult
from onnx_llm_passes.passes.presets import PRESETS
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

TEXTS = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2]]
ENVIRONMENT = {**os.environ, "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("api") / "model.onnx"
    ir.save(append_decoder(), path)
    return path


def command(*words: object) -> str:
    """What the command of the same name prints."""
    line = [sys.executable, "-m", "onnx_llm_passes", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def text_of(model: ir.Model) -> str:
    """Without names of constants: onnx_ir (1.1.0) gives a tensor one where a clone makes an initializer of it."""
    proto = ir.to_proto(model)
    for attribute in (attribute for node in proto.graph.node for attribute in node.attribute):
        attribute.t.ClearField("name")
    return onnx.printer.to_text(proto)


def graph_texts(program: ox.Program) -> list[str]:
    return [text_of(model) for model in program.graphs.values()]


@pytest.mark.parametrize("module", ["check", "decode", "diff", "inspect", "measure", "run"])
def test_the_examples_of_docstrings_run(module: str, decoder: Path) -> None:
    found = doctest.testmod(importlib.import_module(f"onnx_llm_passes.api.{module}"), extraglobs={"decoder": decoder})
    assert not found.failed


def test_inspect_says_what_the_command_prints(decoder: Path) -> None:
    size = {"past_sequence_length": 64, "batch_size": 1}
    found = ox.inspect(decoder, bind=size)
    words = [word for name, number in size.items() for word in ("--bind", f"{name}={number}")]
    assert json.loads(command("inspect", decoder, "--json", *words)) == json.loads(json.dumps(found.to_dict()))
    assert found.graphs["model"].state_bytes


def test_diff_says_what_the_command_prints(decoder: Path, tmp_path: Path) -> None:
    ox.single_shot(decoder, out=tmp_path / "out")
    found = ox.diff(decoder, tmp_path / "out")
    printed = command("diff", decoder, tmp_path / "out", "--json")
    assert json.loads(printed) == json.loads(json.dumps(found.to_dict()))
    assert found.graphs["model"]["states"].removed
    assert not found.same


def test_check_says_what_the_command_prints(decoder: Path, tmp_path: Path) -> None:
    ox.speculative(decoder, k=[0, 2], prefill=8, ctx=32, out=tmp_path / "out")
    report = ox.check(tmp_path / "out")
    assert json.loads(command("check", tmp_path / "out", "--json")) == json.loads(json.dumps(report.to_dict()))
    assert ox.check(tmp_path / "out", run=True).trials


def test_a_given_program_stays_as_it_is(decoder: Path) -> None:
    program = ox.Program.load(decoder)
    before = graph_texts(program)
    result = ox.run(program, "speculative{k=0,2 prefill=8 ctx=32}")
    assert graph_texts(program) == before
    assert not program.history
    assert ox.verify(program, result).equal


def test_presets_are_functions_with_their_parameters() -> None:
    for name, row in PRESETS.items():
        function = getattr(ox, name.replace("-", "_"))
        taken = {parameter.rstrip("_") for parameter in inspect.signature(function).parameters}
        assert set(row.parameters) < taken
        assert row.caption in (function.__doc__ or "")


def test_a_preset_takes_python_values(decoder: Path) -> None:
    one = ox.speculative(decoder, k=[0, 2], prefill=8, ctx=32, fold=True)
    other = ox.run(decoder, "speculative{k=0,2 prefill=8 ctx=32 fold=true}")
    assert one.pipeline == other.pipeline
    with pytest.raises(UnknownNameError, match="parameter 'nosuch'"):
        ox.single_shot(decoder, nosuch=3)
    with pytest.raises(UsageError, match="takes no object"):
        ox.speculative(decoder, k=object())  # type: ignore[arg-type]


def test_models_in_memory_become_programs(decoder: Path) -> None:
    proto = onnx.load(decoder)
    model = ir.from_proto(proto)
    before = text_of(model)
    wanted = ox.single_shot(decoder)
    exported = SimpleNamespace(model=ir.from_proto(proto))  # what torch.onnx.export gives
    function = SimpleNamespace(to_model_proto=lambda: proto)  # an onnxscript function
    for source in (proto, model, exported, function):
        program = ox.single_shot(source)
        assert graph_texts(program) == graph_texts(wanted)
    assert text_of(model) == before


def test_a_model_in_memory_verifies_and_saves(tmp_path: Path) -> None:
    model = scatter_decoder()
    result = ox.single_shot(model, out=tmp_path / "out")
    assert ox.verify(model, result).equal
    assert ox.verify(model, tmp_path / "out").equal


def test_a_proto_with_weights_in_files_needs_their_folder(tmp_path: Path) -> None:
    model = append_decoder()
    weights = np.zeros((64, 64), np.float32)
    onnx.save(
        _with_weight(ir.to_proto(model), weights), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0
    )
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(InputError, match="base_dir"):
        ox.Program.load(proto)
    program = ox.Program.load(proto, base_dir=tmp_path)
    assert np.array_equal(program.graphs["model"].graph.initializers["spare"].const_value.numpy(), weights)


def _with_weight(proto: onnx.ModelProto, values: np.ndarray) -> onnx.ModelProto:
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "spare"))
    return proto


def test_several_graphs_are_one_program(decoder: Path) -> None:
    program = ox.Program.load({"prefill": decoder, "decode": onnx.load(decoder)})
    assert program.names == ["prefill", "decode"]
    assert [origin.graph for origin in program.origins] == ["prefill"]


@pytest.mark.parametrize("wrong", [None, 3, [1]])
def test_what_is_no_model_is_told_so(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"Program|model"):
        ox.inspect(wrong)  # type: ignore[arg-type]


def test_choices_are_checked(decoder: Path) -> None:
    with pytest.raises(UnknownNameError, match="never"):
        ox.run(decoder, "simplify", prove="sometimes")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="method"):
        ox.calibrate(decoder, TEXTS, method="kl")
    with pytest.raises(UnknownNameError, match="policy"):
        ox.generate(decoder, [[1]], max_new=1, policy="best")


def test_generate_is_the_commands(decoder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    printed = json.loads(command("generate", decoder, "--prompt-ids", tmp_path / "p.json", "--max-new", "5", "--json"))
    assert ox.generate(decoder, TEXTS, max_new=5).tokens == printed["tokens"]
    assert ox.generate(decoder, tmp_path / "p.json", max_new=5, proposer="none").tokens == printed["tokens"]


def test_calibrate_quantize_compare(decoder: Path, tmp_path: Path) -> None:
    from onnx_llm_passes.ir.quantization import print_encodings

    file = tmp_path / "encodings.json"
    file.write_text(print_encodings(ox.calibrate(decoder, TEXTS, chunk=4), "native"), encoding="utf-8")
    small = ox.quantize(decoder, file=file, activations="a16", weights="w8")
    found = ox.compare(decoder, small, TEXTS, chunk=4)
    row = found.row("logits")
    assert row is not None
    assert 20 < row.measures["sqnr"] < 200
    assert found.tokens == sum(map(len, TEXTS))


def test_bits_are_suggested_from_losses_and_quantize_takes_them(decoder: Path, tmp_path: Path) -> None:
    texts = [list(range(1, 17)), list(range(16, 0, -1))]
    found = ox.sensitivity(decoder, texts, block=4)
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    out = tmp_path / "s.json"
    command("sensitivity", decoder, "--tokens", tmp_path / "t.jsonl", "--block", "4", "-o", out)
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(json.dumps(found.to_dict()))
    chosen = ox.suggest_bits(found, 6)
    printed = json.loads(command("suggest-bits", out, "--budget", "6", "--json"))
    assert chosen.to_dict() == {name: printed[name] for name in chosen.to_dict()} == ox.suggest_bits(out, 6).to_dict()
    assert chosen.named["least"].loss <= min(chosen.named["greedy"].loss, chosen.named["all 4"].loss)
    assert command("suggest-bits", out, "--budget", "6", "--apply") == chosen.recipe
    (tmp_path / "r.yaml").write_text(chosen.recipe, encoding="utf-8")
    small = ox.run(decoder, f"fix-opset{{version=21}},insert-qdq{{recipe={tmp_path / 'r.yaml'}}}").graphs["model"]
    made = [value for name, value in small.graph.initializers.items() if name.endswith("/quantized")]
    assert {value.dtype.bitwidth for value in made if value.dtype} == set(chosen.named["least"].bits)


def test_a_notebook_shows_tables_with_every_name_escaped(decoder: Path) -> None:
    program = ox.Program.load(decoder)
    program.graphs["model"].graph.inputs[0].name = "<ids>"
    shown = ox.inspect(program)._repr_html_()
    assert "&lt;ids&gt;" in shown
    assert "<ids>" not in shown
    assert "<table>" in ox.diff(program, decoder)._repr_html_()


class Broken(ox.Pass):
    """Leaves a node that reads a value of nobody."""

    name = "broken"

    def call(self, model: ir.Model) -> GraphResult:
        model.graph[0].replace_input_with(0, ir.Value(name="nobody"))
        return GraphResult(model, modified=True)


def test_the_manager_checks_each_pass_unless_told_otherwise(decoder: Path) -> None:
    with pytest.raises(ProgramInvalid, match="nobody"):
        ox.PassManager([Broken()]).run(ox.Program.load(decoder))
    ox.PassManager([Broken()], ()).run(ox.Program.load(decoder))


def test_the_version_is_the_distributions() -> None:
    assert command("--version").split()[-1] == ox.__version__


def test_a_run_shows_which_operators_went_and_is_quiet_when_asked(decoder: Path, tmp_path: Path) -> None:
    printed = command("run", "single-shot", decoder, "-o", tmp_path / "out")
    assert "Shape" in printed
    assert "further kinds of operators" in printed
    assert command("run", "single-shot", decoder, "-o", tmp_path / "out", "--quiet") == ""


def test_verify_takes_a_tolerance(decoder: Path, tmp_path: Path) -> None:
    ox.single_shot(decoder, out=tmp_path / "out")
    assert '"tolerance": 0.25' in command("verify", decoder, tmp_path / "out", "--tolerance", "0.25", "--json")
    line = [sys.executable, "-m", "onnx_llm_passes", "verify", decoder, tmp_path, "--tolerance", "tight"]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert "ulp" in done.stderr
