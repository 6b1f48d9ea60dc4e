"""emit-manifest: arguments name what there is, and what does not fit the graph is never written."""

from __future__ import annotations

import json

import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, PassRefused, UnknownNameError
from onnx_llm_passes.ir.manifests import get_target, interface_of
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.emit_manifest import EmitManifest
from onnx_llm_passes.passes.partition import Partition
from onnx_llm_passes.passes.specialize import Specialize

from .builders import BUILDERS, OTHERS
from .manifest_tools import emitted


def test_arguments_name_only_what_there_is() -> None:
    kept = json.loads(emitted("scatter", "qaic").artifacts["compile_args.json"])["commands"][0]["arguments"]
    assert {"-retained-state", "-network-specialization-config=specializations.json"} <= set(kept)
    assert "-custom-IO-list-file=custom_io.yaml" in kept
    program = Program({"model": OTHERS["no states"]()})
    Specialize(prefill=8).run(program)
    Partition(devices=2).run(program)
    EmitManifest("qaic").run(program)
    plain = json.loads(program.artifacts["compile_args.json"])["commands"][0]["arguments"]
    assert not {"-retained-state", "-sub-functions"} & set(plain)
    assert not any("custom-IO" in argument for argument in plain)
    assert "-mdp-load-partition-config=partition.json" in plain


def test_functions_are_told() -> None:
    model = BUILDERS["scatter"]()
    names = {
        argument
        for target in ("qaic",)
        for argument in get_target(target).commands(interface_of("g", model, ()))[0].arguments
    }
    assert ("-sub-functions" in names) == bool(model.functions)


def test_several_graphs_get_files_of_their_own() -> None:
    program = Program({"prefill": BUILDERS["scatter"](), "decode": BUILDERS["scatter"]()})
    Specialize(prefill=8, ctx=32).run(program)
    EmitManifest("qaic").run(program)
    assert set(program.artifacts) == {
        "prefill.specializations.json", "decode.specializations.json", "compile_args.json"
    }  # fmt: skip


def test_a_symbol_that_no_graph_has_is_refused_with_the_nearest() -> None:
    program = Program({"model": BUILDERS["scatter"]()})
    Specialize(prefill=8, ctx=32).run(program)
    item = program.specializations[0]
    wrong = next(iter(item.binding)) + "x"
    program.specializations[0] = item.model_copy(update={"binding": {**item.binding, wrong: 1}})
    with pytest.raises(UnknownNameError, match=f"{wrong}.*Did you mean"):
        EmitManifest("qaic").run(program)


def test_a_symbol_left_open_is_refused_by_name() -> None:
    program = Program({"model": BUILDERS["scatter"]()})
    Specialize(prefill=8, ctx=32).run(program)
    item = program.specializations[0]
    name = next(iter(item.binding))
    program.specializations[0] = item.model_copy(
        update={"binding": {k: v for k, v in item.binding.items() if k != name}}
    )
    with pytest.raises(OnnxPassesError, match=name):
        EmitManifest("qaic").run(program)
    assert program.artifacts == {}


def test_sizes_that_do_not_fit_the_graph_are_refused_and_nothing_is_written() -> None:
    program = Program({"model": BUILDERS["scatter"]()})
    Specialize(prefill=8, ctx=32).run(program)
    item = program.specializations[0]
    wrong = {name: 64 if size == 8 else size for name, size in item.binding.items()}
    program.specializations[0] = item.model_copy(update={"binding": wrong})
    with pytest.raises(PassRefused, match="64"):
        EmitManifest("qaic").run(program)
    assert program.artifacts == {}


def test_no_specialization_is_refused() -> None:
    with pytest.raises(PassRefused, match="no specialization"):
        EmitManifest("qaic").run(Program({"model": BUILDERS["scatter"]()}))
