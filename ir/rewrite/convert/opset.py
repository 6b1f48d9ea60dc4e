"""Raises a graph's opset where an operator asked for is newer, each node checked against the newer schemas."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ...core.errors import PassRefused
from ..ownership import mark

LOWEST = 18  # what onnxscript.version_converter (0.7) starts from; onnx.version_converter goes lower, but on protos


def raise_opset(model: ir.Model, version: int, owner: str) -> None:
    """Converts the model to opset ``version`` in place; nothing where it has that, or a newer one.

    Raises PassRefused for an opset below 18, local functions, and a node that the newer opset does not know like that.
    """
    found = model.opset_imports.get("", 0)
    if found >= version:
        return
    where = f"{owner}, graph {model.graph.name!r}"
    if found < LOWEST or model.functions:
        raise PassRefused(
            "the operators asked for are newer than the graph's opset",
            where=where,
            found=f"opset {found}" + (", with local functions" if model.functions else ""),
            wanted=f"opset {version}, or {LOWEST} and above without local functions, to be raised here",
            hint="Convert the graph to a newer opset first, or use ops=ai.onnx.",
        )
    from onnxscript import version_converter

    before = {id(node) for node in model.graph.all_nodes()}
    version_converter.convert_version(model, target_version=version)  # pyright: ignore[reportUnknownMemberType]
    model.ir_version = max(
        model.ir_version, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", version)])
    )
    for node in model.graph.all_nodes():
        if id(node) not in before:
            mark(node, owner)
        if not node.domain and _exists(node, found) and not _known(node, version):
            raise PassRefused(
                f"{node.op_type} has no such form in opset {version}", where=f"{where}, node {node.name!r}"
            )


def _exists(node: ir.Node, version: int) -> bool:
    """True for an operator of the standard; onnxruntime's own fused ones stay as they are."""
    return onnx.defs.has(node.op_type, version, "")


def _known(node: ir.Node, version: int) -> bool:
    """True where the operator exists in the opset and takes these attributes and as many inputs."""
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return False
    return set(node.attributes) <= set(schema.attributes) and len(node.inputs) <= schema.max_input
