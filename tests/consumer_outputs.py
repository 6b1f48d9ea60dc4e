"""What consumers are given: each row makes a program of static shapes out of an exported model, lowered for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.symbolic.symbols import dims_of
from onnx_llm_passes.passes.bind import Bind
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.specialize import Specialize
from onnx_llm_passes.runtime.decode.cases import Padding, make_case
from onnx_llm_passes.runtime.decode.inputs import build_inputs
from onnx_llm_passes.runtime.session.subject import Subject

LENGTH = 8
_CLONES = f"prefill={LENGTH} ctx=32"
_ONE_RUN = "family=sequence-classification target=ort"
OUTPUTS: Mapping[str, str] = {  # name -> pipeline behind `lower`; clones are bound by it, a single run behind it
    "single-shot": "single-shot",
    "embedder": f"embedder{{kind=last lengths={LENGTH} {_ONE_RUN}}}",
    "reranker": f"reranker{{prefill={LENGTH} tokens=3,1 {_ONE_RUN}}}",
    "speculative": f"speculative{{k=0,4 {_CLONES} fold=true target=ort}}",
    "speculative, nodes shared": f"speculative{{k=0,4 {_CLONES} target=ort}}",
    "decode of one token": "prefill-decode{prefill=none ctx=32 fold=true target=ort},argmax-tail",
    "append": f"clone-decode{{k=0,4 {_CLONES} fold=true}}",
    "delta": f"convert-states{{to=delta}},clone-decode{{k=0,4 {_CLONES} fold=true}}",
    "branches": f"speculative{{k=0,4 {_CLONES} target=ort}},package{{as=branches}}",
    "one layer": f"prefill-decode{{{_CLONES} target=ort}},extract-layer{{index=0}}",
}
BOUND = "single-shot"  # the one whose sizes are still open
SLOW = {"iree": ("single-shot", "embedder", "reranker", "speculative", "decode of one token")}
"""Runtimes that compile a graph for seconds, and what they are given: the other rows hold the same operators."""
QUICK = ("single-shot", "speculative")


def outputs_for(consumer: str) -> Sequence[str]:
    """The rows that a runtime is given."""
    return SLOW.get(consumer, tuple(OUTPUTS))


def built(path: Path, output: str, target: str) -> Program:
    """The program that a row makes of a model; raises what its passes refuse with."""
    program = Program.load(path)
    PassManager(parse_pipeline(f"lower{{target={target} missing=leave}},{OUTPUTS[output]}")).run(program)
    for name, model in program.graphs.items() if output == BOUND else ():
        if sizes := _open_sizes(model):
            PassManager([Specialize(family="raw", symbols=sizes, graph=name)]).run(program)
            PassManager([Bind(spec=program.specializations[-1].name)]).run(program)
    return program


def _open_sizes(model: ir.Model) -> dict[str, int]:
    """What every open dimension of a graph's inputs is worth in a run of one text."""
    values = [value for value in model.graph.inputs if any(not isinstance(dim, int) for dim in dims_of(value) or ())]
    feed = build_inputs(Subject.of(model, "graph"), make_case(1, LENGTH, Padding.FULL)) if values else {}
    pairs = ((dim, n) for v in values for dim, n in zip(dims_of(v) or (), feed[v.name or ""].shape, strict=True))
    return {str(dim): size for dim, size in pairs if not isinstance(dim, int) and str(dim).isidentifier()}
