"""onnx's own checker reads a file; operators that exporters put wrongly into the standard domain are set aside."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import onnx

ASIDE = "onnx_llm_passes.unregistered"


def check_file(path: Path) -> None:
    """Checks a model file and its external data's places; raises what onnx raises (ValidationError among it).

    onnxruntime's exporters write contributed operators (SimplifiedLayerNormalization …) without a domain, which no
    version of the checker knows. Everything else of such a file is checked on a copy in which they have a domain.
    """
    from onnx.onnx_cpp2py_export import checker  # what onnx.checker calls

    try:
        checker.check_model_path(str(path), False, False, False)
    except checker.ValidationError:
        copy = path.with_name(f"{path.name}.checked")
        if not _set_aside(path, copy):
            raise
        try:
            checker.check_model_path(str(copy), False, False, False)
        finally:
            copy.unlink()


def parse_file(path: Path) -> None:
    """Reads a model file back and throws it away; raises what protobuf raises."""
    onnx.ModelProto().ParseFromString(path.read_bytes())


def _set_aside(path: Path, copy: Path) -> bool:
    """Writes ``copy`` with every unregistered standard operator in a domain of its own; False where there is none."""
    proto = onnx.ModelProto()
    proto.ParseFromString(path.read_bytes())
    unknown = [node for node in _all_nodes(proto) if node.domain in ("", "ai.onnx") and not _registered(node.op_type)]
    for node in unknown:
        node.domain = ASIDE
    if not unknown:
        return False
    for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        imports.add(domain=ASIDE, version=1)
    copy.write_bytes(proto.SerializeToString())
    return True


@functools.cache
def _registered(op_type: str) -> bool:
    return onnx.defs.has(op_type)


def _all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in nodes:
            yield from _with_subgraphs(node)


def _with_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _with_subgraphs(inner)
