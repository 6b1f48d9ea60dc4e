"""Llama-shaped graphs of any depth in two exporters' styles, with sparse or real weights beside them.

``python -m bench.graphs FOLDER --style constants --layers 126`` writes FOLDER/model.onnx and FOLDER/weights.data.
"""

from __future__ import annotations

import argparse
from enum import Enum
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from . import llama_annotated, llama_constants
from .tracer import FLOAT16, INT64, Size, Style, Tracer, Weight, element_size

PAGE = 4096
EMITTERS = {Style.CONSTANTS: llama_constants.emit, Style.ANNOTATED: llama_annotated.emit}


class Weights(Enum):
    """What the weight file holds: a hole of the right size, or seeded random numbers that can be run."""

    SPARSE = "sparse"
    RANDOM = "random"


def tiny(layers: int) -> Size:
    """A decoder small enough to run with real numbers."""
    return Size(layers)


def full(layers: int) -> Size:
    """A decoder with float16 weights of a real model's size: 16 GB at 32 layers, 140 GB at 80 and at 126."""
    hidden, inner, heads = WIDTHS[min(depth for depth in WIDTHS if depth >= min(layers, max(WIDTHS)))]
    return Size(layers, hidden, inner, heads, kv_heads=8, vocab=128256, dtype=FLOAT16)


WIDTHS = {32: (4096, 14336, 32), 80: (8192, 28672, 64), 126: (6144, 24576, 48)}
SIZES = {Weights.SPARSE: full, Weights.RANDOM: tiny}


def build(style: Style, size: Size) -> tuple[onnx.ModelProto, list[Weight]]:
    """The graph with external references to ``weights.data``, and the tensors that file holds, in its order."""
    tracer = Tracer(style, size)
    EMITTERS[style](tracer)
    tensors = [*tracer.small.values(), *external_tensors(tracer.weights)]
    inputs, outputs = interface(size)
    graph = helper.make_graph(tracer.nodes, "main_graph", inputs, outputs, tensors, value_info=tracer.infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="pytorch")
    model.ir_version = 8
    return model, tracer.weights


def interface(size: Size) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Inputs and outputs with optimum's names and symbols."""
    total = "past_sequence_length + sequence_length"
    ids = {"input_ids": "sequence_length", "attention_mask": total, "position_ids": "sequence_length"}
    info = helper.make_tensor_value_info
    inputs = [info(name, INT64, ["batch_size", length]) for name, length in ids.items()]
    outputs = [info("logits", size.dtype, ["batch_size", "sequence_length", size.vocab])]
    for layer in range(size.layers):
        for kind in ("key", "value"):
            past = ["batch_size", size.kv_heads, "past_sequence_length", size.head_dim]
            present = ["batch_size", size.kv_heads, total, size.head_dim]
            inputs.append(info(f"past_key_values.{layer}.{kind}", size.dtype, past))
            outputs.append(info(f"present.{layer}.{kind}", size.dtype, present))
    return inputs, outputs


def external_tensors(weights: list[Weight]) -> list[onnx.TensorProto]:
    """Initializers that point into the weight file, each at a page of its own."""
    tensors: list[onnx.TensorProto] = []
    for weight, (offset, length) in zip(weights, ranges(weights), strict=True):
        tensor = TensorProto(name=weight.name, data_type=weight.dtype, dims=weight.dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.data"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    return tensors


def ranges(weights: list[Weight]) -> list[tuple[int, int]]:
    """Offset and length of each tensor in the weight file."""
    found: list[tuple[int, int]] = []
    end = 0
    for weight in weights:
        length = int(np.prod(weight.dims, dtype=np.int64)) * element_size(weight.dtype)
        found.append((end, length))
        end += -(-length // PAGE) * PAGE
    return found


def write_weights(path: Path, weights: list[Weight], kind: Weights) -> None:
    """Writes the weight file: only its length, or seeded normal numbers (norms around one)."""
    spans = ranges(weights)
    with path.open("wb") as file:
        file.truncate(sum(spans[-1]))
        if kind is Weights.SPARSE:
            return
        generator = np.random.default_rng(0)
        for weight, (offset, _) in zip(weights, spans, strict=True):
            values = generator.standard_normal(weight.dims) * 0.1 + (len(weight.dims) == 1)
            file.seek(offset)
            file.write(values.astype(helper.tensor_dtype_to_np_dtype(weight.dtype)).tobytes())


def write(folder: Path, style: Style, layers: int, kind: Weights) -> Path:
    """Writes model.onnx and weights.data into ``folder`` and returns the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    model, weights = build(style, SIZES[kind](layers))
    write_weights(folder / "weights.data", weights, kind)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def main() -> None:
    """Writes one graph, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--style", type=Style, default=Style.CONSTANTS)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--weights", type=Weights, default=Weights.RANDOM)
    given = parser.parse_args()
    write(given.folder, given.style, given.layers, given.weights)


if __name__ == "__main__":
    main()
