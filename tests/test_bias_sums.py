"""Products that meet their bias need no grid of their own: AIMET writes none between the two."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.encoding import NoEvidence
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.samples.samples import append_decoder

from .qdq_tools import HELD_OUT, calibrated, logits, quantize, sqnr


def biased() -> tuple[ir.Model, list[str]]:
    """The sample, a bias behind each product with a weight; and the names of these products."""
    model, products = append_decoder(), list[str]()
    random = np.random.default_rng(5)
    for node in list(model.graph):
        weight = node.inputs[1].const_value if node.op_type == "MatMul" and node.inputs[1] is not None else None
        if weight is None:
            continue
        result = node.outputs[0]
        numbers = random.normal(scale=0.1, size=weight.shape[-1]).astype(np.float32)
        bias = ir.Value(name=f"{result.name}/bias", const_value=ir.tensor(numbers, name=f"{result.name}/bias"))
        model.graph.register_initializer(bias)
        uses = list(result.uses())
        added = ir.node("Add", [result, bias])
        added.outputs[0].name, added.outputs[0].type = f"{result.name}/sum", result.type
        for user, index in uses:
            user.replace_input_with(index, added.outputs[0])
        model.graph.outputs[:] = [added.outputs[0] if out is result else out for out in model.graph.outputs]
        model.graph.insert_after(node, added)
        products.append(result.name or "")
    return model, products


def without(program: Program, names: list[str]) -> Program:
    program.encodings = {name: found for name, found in program.encodings.items() if name not in names}
    return program


def test_a_table_without_grids_between_product_and_bias_is_enough() -> None:
    model, products = biased()
    exact = logits(model, HELD_OUT)
    program = quantize(without(calibrated(model), products))
    graph = program.graphs["model"].graph
    quantized = {node.inputs[0].name for node in graph if node.op_type == "QuantizeLinear" and node.inputs[0]}
    assert len(products) > 10 and not quantized & set(products)
    assert {f"{name}/sum" for name in products[:1]} <= quantized
    assert sqnr(exact, logits(program.graphs["model"], HELD_OUT)) > 25


def test_a_product_that_the_table_knows_keeps_its_grid() -> None:
    model, products = biased()
    program = quantize(calibrated(model))
    graph = program.graphs["model"].graph
    quantized = {node.inputs[0].name for node in graph if node.op_type == "QuantizeLinear" and node.inputs[0]}
    assert quantized >= set(products)


def test_any_other_tensor_without_a_grid_is_refused() -> None:
    model, products = biased()
    with pytest.raises(NoEvidence, match=f"{products[0]}/sum"):
        quantize(without(calibrated(model), [*products, f"{products[0]}/sum"]))


def test_grids_of_a_file_that_tells_no_kinds_are_written_again() -> None:
    """AIMET 2.42.0 writes version 2.0.0 without saying which grids are weights'."""
    program = calibrated(append_decoder())
    known = quantize(program.copy()).artifacts["encodings.json"]
    held = quantize(program.copy()).encodings
    untold = {n: replace(e, encoding=replace(e.encoding, kind=None)) if e.encoding else e for n, e in held.items()}
    again = program.copy()
    again.encodings = untold
    written, before = json.loads(quantize(again).artifacts["encodings.json"]), json.loads(known)
    for kind in ("activation_encodings", "param_encodings"):
        assert {entry["name"] for entry in written[kind]} == {entry["name"] for entry in before[kind]}
        assert before[kind]
