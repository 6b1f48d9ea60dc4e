"""Weights on grids of blocks: where a file's scales belong, what onnxruntime makes of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import EncodingsInvalid, print_encodings, read_encodings
from onnx_llm_passes.ir.quantization.carried import table_of
from onnx_llm_passes.ir.quantization.qdq import read_qdq
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.load_encodings import LoadEncodings
from onnx_llm_passes.runtime.session.session import Session

IN, OUT, BLOCK = 10, 6, 4  # the last block of a channel is shorter
BLOCKS = 3
RANDOM = np.random.default_rng(8)
SCALES = RANDOM.uniform(0.02, 0.2, (OUT, BLOCKS))  # a channel's blocks together, as the file lists them
LEVELS = RANDOM.integers(1, 17, (OUT, BLOCKS))
FORMS = {  # how a graph multiplies by W: the operator, and whether the initializer lies as (out, in)
    "MatMul": ("y = MatMul (x, w)", False),
    "Gemm": ("y = Gemm (x, w)", False),
    "Gemm transposed": ("y = Gemm <transB = 1> (x, w)", True),
    "Transpose": ("t = Transpose <perm = [1, 0]> (w)\n   y = MatMul (x, t)", True),
}


def graph(form: str, *, opset: int = 21, inner: int = IN, dtype: str = "float") -> ir.Model:
    body, lies_out_first = FORMS[form]
    shape = (OUT, inner) if lies_out_first else (inner, OUT)
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]>
    g ({dtype}[N,{inner}] x, {dtype}[{shape[0]},{shape[1]}] w) => ({dtype}[N,{OUT}] y) {{
       {body}
    }}"""
    model = ir.from_onnx_text(text)
    value = model.graph.inputs.pop(1)
    array = np.random.default_rng(1).standard_normal(shape).astype(value.dtype.numpy())
    value.const_value = ir.tensor(array, name="w")
    model.graph.register_initializer(value)
    return model


def entry(style: str) -> dict[str, Any]:
    common = {"name": "w", "dtype": "INT", "is_sym": True, "block_size": BLOCK, "enc_type": style}
    if style == "PER_BLOCK":
        return common | {"bw": 4, "scale": SCALES.reshape(-1).tolist(), "offset": [-8] * SCALES.size}
    return common | {
        "bw": 8,
        "compressed_bw": 4,
        "scale": (SCALES[:, 0] / 16).tolist(),
        "offset": [-128] * OUT,
        "per_block_int_scale": LEVELS.reshape(-1).tolist(),
    }


def quantized(tmp_path: Path, model: ir.Model, style: str, **changes: object) -> Program:
    file = tmp_path / "enc.json"
    document = {"version": "1.0.0", "activation_encodings": [], "param_encodings": [entry(style) | changes]}
    file.write_text(json.dumps(document), encoding="utf-8")
    program = Program(graphs={"g": model})
    LoadEncodings(file).run(program)
    InsertQdq(activations="none").run(program)
    return program


def by_hand(weight: np.ndarray, style: str, *, lies_out_first: bool) -> np.ndarray:
    """The weight (in, out) as it comes off its grid, computed channel by channel."""
    rows = weight if lies_out_first else weight.T
    result = np.empty_like(rows)
    for channel in range(OUT):
        for column in range(rows.shape[1]):
            block = column // BLOCK
            scale = np.float32(SCALES[channel, block])
            if style == "LPBQ":
                scale = np.float32(np.float32(SCALES[channel, 0] / 16) * np.float64(LEVELS[channel, block]))
            result[channel, column] = np.clip(np.rint(rows[channel, column] / scale), -8, 7) * scale
    return result.T


@pytest.mark.parametrize("style", ["PER_BLOCK", "LPBQ"])
@pytest.mark.parametrize("form", FORMS)
def test_blocks_of_a_file_are_those_of_the_weight(tmp_path: Path, form: str, style: str) -> None:
    model = graph(form)
    weight = model.graph.initializers["w"].const_value.numpy().copy()
    program = quantized(tmp_path, model, style)
    x = RANDOM.standard_normal((3, IN)).astype(np.float32)
    found = Session(program.graphs["g"]).run({"x": x})["y"]
    np.testing.assert_allclose(found, x @ by_hand(weight, style, lies_out_first=FORMS[form][1]), rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, x @ (weight.T if FORMS[form][1] else weight), rtol=1e-3)


@pytest.mark.parametrize("style", ["PER_BLOCK", "LPBQ"])
@pytest.mark.parametrize("form", ["MatMul", "Gemm transposed"])
def test_blocks_are_told_as_they_were_read(tmp_path: Path, form: str, style: str) -> None:
    program = quantized(tmp_path, graph(form), style)
    told = json.loads(program.artifacts["encodings.json"])["param_encodings"][0]
    given = entry(style)
    assert {key: told[key] for key in given if key != "scale"} == {key: given[key] for key in given if key != "scale"}
    np.testing.assert_allclose(told["scale"], given["scale"], rtol=1e-7)
    file = tmp_path / "again.json"
    for form_of_file in ("aimet-1.0.0", "aimet-2.0.0", "aimet-2.1.0", "native"):
        file.write_text(print_encodings(table_of(program), form_of_file), encoding="utf-8")
        again = read_encodings(file).encodings["w"]
        assert (again.scale, again.levels, again.axis) == (
            table_of(program).encodings["w"].scale,
            table_of(program).encodings["w"].levels,
            1 if FORMS[form][1] else 0,
        )


def test_blocks_come_back_out_of_the_graph(tmp_path: Path) -> None:
    program = quantized(tmp_path, graph("MatMul"), "PER_BLOCK")
    assert read_qdq(program.graphs["g"]).encodings["w"] == table_of(program).encodings["w"]


def test_below_opset_21_blocks_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    model = graph("MatMul", opset=18)
    with pytest.raises(PassRefused, match=r"opset 18.*'w'.*blocks.*fix-opset.version=21"):
        quantized(tmp_path, model, "PER_BLOCK")
    assert [node.op_type for node in model.graph] == ["MatMul"]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"scale": [0.1] * 17, "offset": [-8] * 17}, "which axis"),
        ({"block_size": 7}, "which axis"),
        ({"block_size": 0}, "block size 0"),
        ({"block_size": 1 << 50}, "which axis"),
    ],
)
def test_blocks_that_do_not_fit_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(EncodingsInvalid, match=rf"'w'.*{wanted}"):
        quantized(tmp_path, graph("MatMul"), "PER_BLOCK", **changes)


def test_levels_that_are_not_one_a_block_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncodingsInvalid, match="'w'"):
        quantized(tmp_path, graph("MatMul"), "LPBQ", per_block_int_scale=[1] * 5)


def test_a_per_channel_weight_that_is_turned_first_is_cut_along_its_own_axis(tmp_path: Path) -> None:
    program = Program(graphs={"g": graph("Transpose")})
    InsertQdq(activations="none").run(program)
    assert (table_of(program).encodings["w"].axis, len(table_of(program).encodings["w"].scale)) == (0, OUT)


@pytest.mark.parametrize(
    ("dtype", "opset", "domain"),
    [
        ("float", 13, ""),
        ("float16", 18, "com.microsoft"),
        ("float16", 19, ""),
        ("bfloat16", 19, ""),
        ("double", 21, None),
    ],
)
def test_halves_take_the_operators_that_know_them(dtype: str, opset: int, domain: str | None) -> None:
    program = Program(graphs={"g": graph("MatMul", opset=opset, dtype=dtype)})
    if domain is None:
        with pytest.raises(PassRefused, match="16 or 32 bits"):
            InsertQdq(activations="none").run(program)
        return
    InsertQdq(activations="none").run(program)
    model = program.graphs["g"]
    assert {node.domain for node in model.graph if node.op_type == "DequantizeLinear"} == {domain}
    if dtype != "bfloat16":  # the runtime has no product of those on a processor
        x = RANDOM.standard_normal((2, IN)).astype(model.graph.inputs[0].dtype.numpy())
        weight = graph("MatMul", dtype=dtype).graph.initializers["w"].const_value.numpy()
        assert np.abs(Session(model).run({"x": x})["y"] - x @ weight).max() < 0.2


def test_bfloat16_below_its_opset_is_refused() -> None:
    with pytest.raises(PassRefused, match=r"fix-opset\{version=21\}"):
        InsertQdq(activations="none").run(Program(graphs={"g": graph("MatMul", opset=18, dtype="bfloat16")}))
