"""Weights that onnxruntime packed in blocks (MatMulNBits) give their grids to the float graph and its clones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

from onnx_llm_passes import PassManager, Program, parse_pipeline
from onnx_llm_passes.ir.core.packed import unpack_bytes
from onnx_llm_passes.ir.quantization import EncodingsInvalid
from onnx_llm_passes.ir.quantization.qdq import quantized
from onnx_llm_passes.passes.load_encodings import LoadEncodings
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .qdq_tools import TEXTS, logits

RULES = "recipe: 1\nrules:\n- weights: {bits: %d, granularity: block 16}\n"


def float_model() -> ir.Model:
    made = append_decoder()
    made.graph.opset_imports[""] = 21  # blocks
    return made


def packed_file(folder: Path, made: ir.Model | None = None, *, bits: int = 4, symmetric: bool = True) -> Path:
    config = DefaultWeightOnlyQuantConfig(block_size=16, is_symmetric=symmetric, bits=bits)
    quantizer = MatMulNBitsQuantizer(ir.to_proto(made or float_model()), algo_config=config)
    quantizer.process()
    packed = quantizer.model
    onnx.save(packed if isinstance(packed, onnx.ModelProto) else packed.model, folder / "packed.onnx")
    return folder / "packed.onnx"


def edited(path: Path, port: int, change: np.ndarray | float) -> str:
    """Puts another number, or other numbers, into one operand of the first packed product; its weight's name."""
    model = ir.load(path)
    node = next(node for node in model.graph if node.op_type == "MatMulNBits")
    value = node.inputs[port]
    assert value is not None and value.const_value is not None and node.inputs[1] is not None
    array = change
    if isinstance(change, float):
        array = value.const_value.numpy().copy()
        array.reshape(-1)[0] = change
    value.const_value = ir.Tensor(np.asarray(array), name=value.name)
    ir.save(model, path)
    return str(node.inputs[1].name)


@pytest.mark.parametrize(("bits", "symmetric"), [(4, True), (4, False), (8, True), (8, False)])
def test_the_carried_grids_compute_what_the_packed_graph_does(tmp_path: Path, bits: int, symmetric: bool) -> None:
    path = packed_file(tmp_path, bits=bits, symmetric=symmetric)
    packed = ir.load(path)
    products = [node for node in packed.graph if node.op_type == "MatMulNBits"]
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RULES % bits)
    program = Program(graphs={"model": float_model()})
    report = LoadEncodings(path).run(program)
    assert report.counts["encodings"] == len(products) > 0
    PassManager(parse_pipeline(f"insert-qdq{{recipe={recipe}}}")).run(program)
    carried, own, exact = (logits(m, TEXTS[0][:12]) for m in (program.graphs["model"], packed, float_model()))
    lost = np.abs(own - exact).max()
    assert lost > 0
    assert np.abs(carried - own).max() < 0.05 * lost


@pytest.mark.parametrize("scale", [float("inf"), 0.0, float("nan")])
def test_a_scale_that_is_none_is_refused_at_the_file(tmp_path: Path, scale: float) -> None:
    path = packed_file(tmp_path)
    name = edited(path, 2, scale)
    with pytest.raises(EncodingsInvalid, match=f"scale {scale}") as caught:
        LoadEncodings(path).run(Program(graphs={"model": float_model()}))
    assert name in str(caught.value)
    assert "packed.onnx" in str(caught.value)


@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_of_zeros_are_read_though_their_scale_is_zero(tmp_path: Path, symmetric: bool) -> None:
    made = float_model()
    value = next(v for v in made.graph.initializers.values() if "q_proj" in str(v.name))
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[:16, 3] = 0
    value.const_value = ir.Tensor(array, name=value.name)
    path = packed_file(tmp_path, made, symmetric=symmetric)
    program = Program(graphs={"model": made})
    LoadEncodings(path).run(program)
    grid = program.encodings[str(value.name)].encoding
    assert grid is not None
    integers, points = quantized(array, grid), np.array(grid.zero_point).reshape(grid.shape)
    assert (integers[:16, 3] == points[0, 3]).all()
    with pytest.raises(
        EncodingsInvalid, match=r"scale -?0\.0"
    ):  # the same file beside a weight that is not zeros there
        LoadEncodings(path).run(Program(graphs={"model": float_model()}))


def test_zero_points_between_the_integers_are_told(tmp_path: Path) -> None:
    path = packed_file(tmp_path, symmetric=False)
    scales = next(node for node in ir.load(path).graph if node.op_type == "MatMulNBits").inputs[2]
    assert scales is not None and scales.const_value is not None
    name = edited(path, 3, np.full(scales.const_value.shape.numpy(), 7.5, np.float32))  # as HQQ writes them
    report = LoadEncodings(path).run(Program(graphs={"model": float_model()}))
    assert [line for line in report.warnings if line.startswith("1 weights of MatMulNBits") and name in line]
    assert "between the integers" in " ".join(report.warnings)


def test_weights_that_were_not_rounded_to_nearest_are_counted(tmp_path: Path) -> None:
    path = packed_file(tmp_path)
    node = next(node for node in ir.load(path).graph if node.op_type == "MatMulNBits")
    assert node.inputs[1] is not None and node.inputs[1].const_value is not None
    name = edited(path, 1, node.inputs[1].const_value.numpy() ^ np.uint8(1))  # the lowest of each two numbers
    report = LoadEncodings(path).run(Program(graphs={"model": float_model()}))
    assert [line for line in report.warnings if name in line and "rounded to nearest" in line]


def test_bytes_give_their_numbers_lowest_first() -> None:
    assert unpack_bytes(np.array([[0x21, 0xE4]], np.uint8), 4).tolist() == [[1, 2, 4, 14]]
    assert unpack_bytes(np.array([0xE4], np.uint8), 2).tolist() == [0, 1, 2, 3]
