"""A third party's pass: logits leave the graph divided by a power of two, and its contract says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.ir.interface.logits import logits_output
from onnx_llm_passes.ir.program.contract import Array, Arrays, Contract, Side, port
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.base import GraphResult, Pass


@dataclass(frozen=True)
class ScaledLogits(Contract):
    """Logits are multiplied by a number."""

    kind: ClassVar[str] = "example-scaled-logits"

    output: str = port(Side.AFTER)
    factor: float = 1.0

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """The logits multiplied."""
        scaled = {self.output: outputs[self.output] * np.float32(self.factor)} if self.output in outputs else {}
        return {**outputs, **scaled}

    def sentence(self) -> str:
        """As people read it."""
        return f"logits={self.factor:g}: {self.output}"


@dataclass(frozen=True)
class ScaleLogits(Pass):
    """Divides logits by four; ``says`` is what the contract says of it."""

    name: ClassVar[str] = "scale-logits"

    says: float = 0.25

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph."""
        logits = logits_output(model, find_states(model))
        assert logits is not None
        name = logits.name or ""
        quarter = ir.tensor(np.array(0.25, np.float32), name=f"{self.name}/factor")
        factor = ir.Value(name=quarter.name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]))
        factor.const_value = quarter
        model.graph.register_initializer(factor)
        node = ir.node("Mul", [logits, factor], name=f"{self.name}/{name}")
        node.metadata_props["pass"] = self.name
        scaled = node.outputs[0]
        scaled.shape, scaled.type = logits.shape, logits.type
        logits.name, scaled.name = f"{name}/whole", name
        model.graph.outputs[model.graph.outputs.index(logits)] = scaled
        model.graph.append(node)
        return GraphResult(model, True, counts={"outputs": 1}, contracts=(ScaledLogits(name, self.says),))
