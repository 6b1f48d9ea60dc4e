"""custom-io: which precisions are listed, which are refused, and what a file beside a manifest holds."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.core.specialization import Specialization, SpecRole
from onnx_llm_passes.ir.manifests.custom_io_yaml import read_custom_io
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.proof import prove_program
from onnx_llm_passes.passes.custom_io import CustomIO
from onnx_llm_passes.runtime.samples.writer import Writer

from .builders import BUILDERS
from .manifest_tools import made


def test_caches_float_inputs_and_overrides_are_listed() -> None:
    program = made("append", "custom-io{kv=mxint8 overrides=logits:float16}")
    names = [f"{stem}.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")
             for stem in ("past_key_values", "present")]  # fmt: skip
    assert program.custom_io == {**dict.fromkeys(names, "mxint8"), "logits": "float16"}
    text = program.artifacts["custom_io.yaml"]
    assert text.startswith(" - IOName: past_key_values.0.key\n   Precision: mxint8\n\n - IOName: present.0.key\n")
    (proof,) = prove_program(program, [Specialization(name="Prefill", role=SpecRole.PREFILL, binding={
        "batch_size": 1, "sequence_length": 8, "past_sequence_length": 0})])  # fmt: skip
    assert proof.sound


def test_the_two_sides_of_a_state_must_agree() -> None:
    with pytest.raises(PassRefused, match=r"enters as mxint8 and leaves as float16.*Override both names"):
        made("append", "custom-io{overrides=past_key_values.0.key:mxint8}")
    both = "past_key_values.0.key:mxint8,present.0.key:mxint8"
    assert made("append", f"custom-io{{overrides={both}}}").custom_io["present.0.key"] == "mxint8"


def test_an_integer_has_no_precision_to_choose() -> None:
    with pytest.raises(PassRefused, match="input_ids"):
        made("append", "custom-io{overrides=input_ids:float16}")
    assert "input_ids" not in made("append", "custom-io").custom_io


def test_every_graph_gets_a_file_of_its_own() -> None:
    program = Program({"prefill": BUILDERS["append"](), "decode": BUILDERS["append"]()})
    CustomIO(kv="mxint8").run(program)
    assert set(program.artifacts) == {"prefill.custom_io.yaml", "decode.custom_io.yaml"}
    assert program.artifacts["prefill.custom_io.yaml"] == program.artifacts["decode.custom_io.yaml"]
    assert read_custom_io(program.artifacts["decode.custom_io.yaml"]) == program.custom_io


def test_a_second_run_replaces_the_list() -> None:
    once, twice = made("append", "custom-io{kv=mxint8}"), made("append", "custom-io{kv=mxint8},custom-io")
    assert set(once.custom_io.values()) == {"mxint8"}
    assert set(twice.custom_io.values()) == {"float16"}
    assert "mxint8" not in twice.artifacts["custom_io.yaml"]


def test_a_tensor_of_half_precision_keeps_its_own_kind_of_it() -> None:
    w = Writer(opset=18, seed=0)
    for name, dtype in (("brain", ir.DataType.BFLOAT16), ("half", ir.DataType.FLOAT16), ("single", ir.DataType.FLOAT)):
        w.output(f"{name}_out", w.op("Identity", w.input(name, dtype, ["n"])), ["n"], dtype)
    program = Program({"main_graph": w.model()})
    CustomIO().run(program)
    assert program.custom_io == {"brain": "bfloat16", "half": "float16", "single": "float16"}


@pytest.mark.parametrize("dtype", ["FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_a_cache_of_eight_bits_is_listed_in_no_other_precision(dtype: str) -> None:
    w = Writer(opset=21, seed=0)
    w.output("out", w.op("Identity", w.input("eight", ir.DataType[dtype], ["n"])), ["n"], ir.DataType[dtype])
    program = Program({"main_graph": w.model()})
    CustomIO().run(program)
    assert program.custom_io == {}
    with pytest.raises(PassRefused, match=r"which float16 cannot hold\. Leave it out"):
        CustomIO(overrides={"eight": "float16"}).run(program)
