"""Records the runtime that a command ran graphs on, and what this machine's kernels do to integers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UnknownNameError
from ...ir.core.operators import names
from ...ir.core.scopes import all_nodes
from ...ir.program.program import Program
from .session import Optimization, Session, chosen_optimization, load_onnxruntime

_INTEGER = names(lambda row: row.product and row.product.integers, None)
_FUSABLE = names(lambda row: row.quantizes or (row.whole_scale and not row.product))


def optimization_of(name: str) -> Optimization:
    """The level that `--ort-optimization` names."""
    known = {level.label: level for level in Optimization}
    if name not in known:
        raise UnknownNameError("level of --ort-optimization", name, known, hint=f"Known: {', '.join(known)}.")
    return known[name]


def runtime_record() -> dict[str, Any]:
    """The runtime's version and the level of its optimizations, as `--json` prints them."""
    return {"onnxruntime": load_onnxruntime().__version__, "optimization": chosen_optimization().label}


def saturation_note(programs: list[Program]) -> str:
    """What to tell of programs that integer kernels compute here, where those saturate on this processor; else ""."""
    fuses = chosen_optimization() is Optimization.ALL
    counted = _INTEGER | (_FUSABLE if fuses else frozenset[str]())
    met = {n.op_type for p in programs for model in p.graphs.values() for n in all_nodes(model)} & counted
    if not met or not integer_kernels_saturate():
        return ""
    advice = "; --ort-optimization none computes what the graphs spell" if met & _FUSABLE else ""
    return (
        "onnxruntime's 8-bit kernels saturate on this processor: sums of two products of unsigned and signed bytes "
        f"that pass 16 bits are cut off{advice}"
    )


@cache
def integer_kernels_saturate() -> bool:
    """Whether a product of unsigned and signed bytes is cut off here: x86 without VNNI adds pairs in 16 bits."""
    rows, columns = 8, 64
    weight = ir.Value(name="b", const_value=ir.tensor(np.full((columns, rows), 127, np.int8), name="b"))
    left = ir.Value(name="a", shape=ir.Shape((rows, columns)), type=ir.TensorType(ir.DataType.UINT8))
    node = ir.Node("", "MatMulInteger", [left, weight], name="probe")
    node.outputs[0].name = "y"
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.INT32), ir.Shape((rows, rows))
    graph = ir.Graph([left], [node.outputs[0]], nodes=[node], initializers=[weight], opset_imports={"": 17}, name="g")
    found = Session(ir.Model(graph, ir_version=8), "probe").run({"a": np.full((rows, columns), 255, np.uint8)})["y"]
    return bool((found != 255 * 127 * columns).any())
