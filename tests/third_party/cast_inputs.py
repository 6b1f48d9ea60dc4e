"""A third party's pass: token ids enter the graph as int32, and a Cast behind the input makes int64 of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.ir.interface.roles import Role, find_roles
from onnx_llm_passes.ir.program.contract import Array, Arrays, Contract, ContractBroken, port
from onnx_llm_passes.passes.base import GraphResult, Pass

LIMIT = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Int32Ids(Contract):
    """Token ids are int32 now: the same numbers, as far as they go."""

    kind: ClassVar[str] = "example-int32-ids"
    assumes: ClassVar[bool] = True

    input: str = port()

    def holds(self, feeds: Arrays) -> None:
        """Raises ContractBroken for an id that int32 cannot hold."""
        for row, ids in enumerate(feeds.get(self.input, ())):
            if ids.max(initial=0) > LIMIT:
                raise ContractBroken("ids too large", where=f"input {self.input!r}, row {row}", wanted=f"<= {LIMIT}")

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """The ids as int32."""
        return {name: array.astype(np.int32) if name == self.input else array for name, array in feeds.items()}

    def sentence(self) -> str:
        """As people read it."""
        return f"ids=int32: {self.input}"


@dataclass(frozen=True)
class CastInputs(Pass):
    """Takes token ids as int32: a Cast behind the input makes int64 of them."""

    name: ClassVar[str] = "cast-inputs"

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph."""
        roles = find_roles(model)
        ids = [value for value in model.graph.inputs if roles.get(value.name or "") is Role.TOKEN_IDS]
        chosen = [value for value in ids if value.dtype is ir.DataType.INT64]
        for value in chosen:
            uses = list(value.uses())
            node = ir.node("Cast", [value], {"to": ir.DataType.INT64}, name=f"{self.name}/{value.name}")
            node.metadata_props["pass"] = self.name
            wide = node.outputs[0]
            wide.name, wide.shape, wide.type = f"{value.name}/int64", value.shape, value.type
            for user, index in uses:
                user.replace_input_with(index, wide)
            value.type = ir.TensorType(ir.DataType.INT32)
            model.graph.insert_before(model.graph[0], node)
        contracts = tuple(Int32Ids(value.name or "") for value in chosen)
        return GraphResult(model, bool(chosen), counts={"inputs": len(chosen)} if chosen else {}, contracts=contracts)
