"""Weight-only pairs of a quantized graph reach the float weights at the same places, scales below 0 included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import EncodingsInvalid
from onnx_llm_passes.ir.quantization.carried import table_of
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.load_encodings import LoadEncodings
from onnx_llm_passes.runtime.session.session import Session

SCALES = np.array([[0.25, -0.125], [-0.5, 0.0625]], np.float32)  # a block of two rows each
INTEGERS = np.array([[3, -8], [-7, 5], [-8, 7], [1, -2]])
FLOATS = (INTEGERS * np.repeat(SCALES, 2, axis=0)).astype(np.float32)


def float_graph(weights: np.ndarray = FLOATS) -> ir.Model:
    model = ir.from_onnx_text("""
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[N,4] x, float[4,2] W) => (float[N,2] y) { [mm] y = MatMul (x, W) }""")
    return stored(model, W=ir.tensor(weights, name="W"))


def quantized_graph(scales: np.ndarray = SCALES) -> ir.Model:
    """As onnxruntime's MatMulNBitsQuantizer writes it with quant_format=QDQ, symmetric."""
    model = ir.from_onnx_text("""
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[N,4] x, int4[4,2] W_DQ_Q4, float[2,2] W_DQ_scales) => (float[N,2] y) {
       W_DQ_Q4_output = DequantizeLinear <axis = 0, block_size = 2> (W_DQ_Q4, W_DQ_scales)
       [mm] y = MatMul (x, W_DQ_Q4_output)
    }""")
    integers = ir.tensor(INTEGERS.astype(ir.DataType.INT4.numpy()), ir.DataType.INT4, name="W_DQ_Q4")
    return stored(model, W_DQ_Q4=integers, W_DQ_scales=ir.tensor(scales, name="W_DQ_scales"))


def stored(model: ir.Model, **tensors: ir.TensorProtocol) -> ir.Model:
    for name, tensor in tensors.items():
        value = next(value for value in model.graph.inputs if value.name == name)
        model.graph.inputs.remove(value)
        value.const_value = tensor
        model.graph.register_initializer(value)
    return model


def written(model: ir.Model, folder: Path) -> Path:
    ir.save(model, folder / "quantized.onnx")
    return folder / "quantized.onnx"


def test_a_pair_is_the_grid_of_the_weight_at_its_place(tmp_path: Path) -> None:
    program = Program(graphs={"g": float_graph()})
    report = LoadEncodings(written(quantized_graph(), tmp_path)).run(program)
    encoding = table_of(program).encodings["W"]
    assert (encoding.bits, encoding.signed, encoding.block, encoding.axis) == (4, True, 2, 0)
    assert encoding.scale == tuple(float(scale) for scale in SCALES.reshape(-1))
    assert not report.warnings
    assert any("scales below 0 (W)" in note for note in report.notes)


def test_the_integers_reach_the_float_graph_bit_for_bit(tmp_path: Path) -> None:
    program = Program(graphs={"g": float_graph()})
    LoadEncodings(written(quantized_graph(), tmp_path)).run(program)
    InsertQdq(activations="none").run(program)
    held = next(v.const_value for v in program.graphs["g"].graph.initializers.values() if "quantized" in str(v.name))
    assert held is not None
    assert (held.numpy().astype(int) == INTEGERS).all()
    x = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    ours, theirs = (Session(m, "g").run({"x": x})["y"] for m in (program.graphs["g"], quantized_graph()))
    assert (ours == theirs).all()
    program.save(tmp_path / "out")
    assert Program.load(tmp_path / "out").encodings == program.encodings


def test_integers_that_rounding_does_not_give_are_counted(tmp_path: Path) -> None:
    program = Program(graphs={"g": float_graph(FLOATS + np.float32(0.26))})
    (warning,) = LoadEncodings(written(quantized_graph(), tmp_path)).run(program).warnings
    assert "of 8 integers of W_DQ_Q4_output are not those of W rounded to nearest" in warning


@pytest.mark.parametrize("bad", [0.0, np.inf, np.nan])
def test_a_scale_that_is_none_is_refused_where_it_is_read(bad: float, tmp_path: Path) -> None:
    scales = SCALES.copy()
    scales[0, 1] = bad
    with pytest.raises(EncodingsInvalid, match=r"W_DQ_Q4_output.*other than 0"):
        LoadEncodings(written(quantized_graph(scales), tmp_path)).run(Program(graphs={"g": float_graph()}))
