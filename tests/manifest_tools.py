"""What tests of manifests share: programs with specializations, their files, and the exported models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnx_llm_passes.ir.manifests.deployment import deployment_of
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.rewrite.convert import Names
from onnx_llm_passes.passes.convert_states import ConvertStates
from onnx_llm_passes.passes.custom_io import CustomIO
from onnx_llm_passes.passes.emit_manifest import EmitManifest
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.specialize import Specialize

from .builders import BUILDERS

SETS = "specialize{family=causal-lm prefill=8 ctx=32}"
GRAPHS = {"append": {"prefill": 8, "ctx": 32, "k": (0, 3)}, "scatter": {"prefill": 8, "ctx": 32}}


def made(name: str, pipeline: str = SETS) -> Program:
    """A sample after a pipeline."""
    return PassManager(parse_pipeline(pipeline)).run(Program({"model": BUILDERS[name]()}))


def emitted(graph: str, target: str) -> Program:
    """A sample with the files of a target and no others."""
    program = Program({"model": BUILDERS[graph]()})
    if deployment_of(target).retained and graph == "append":  # a device keeps no cache that grows
        ConvertStates(names=Names.RETAINED).run(program)
    Specialize(**GRAPHS[graph]).run(program)
    CustomIO().run(program)
    program.artifacts.clear()
    EmitManifest(target).run(program)
    return program


def real(name: str) -> Path:
    """The folder of an exported model; skips where there is none."""
    place = os.environ.get("ONNX_PASSES_MODELS")
    if not place:
        pytest.skip("ONNX_PASSES_MODELS names no folder of exported models")
    return Path(place) / name
