"""A digest of what a program is: its graphs' structure, its weights and its manifest, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from ..core.operators import names
from ..core.specialization import Manifest, Specialization

CACHE = ".sha256"  # a weights file's content digest lies beside it under this ending
BLOCK = 1 << 22


def digest_graph(proto: onnx.ModelProto) -> str:
    """sha256 of a graph's structure: nodes, types of inputs and outputs, initializers by name, type and shape.

    Contents of tensors that a saved graph keeps inside itself count; those of weights do not, nor where they lie;
    metadata and documentation do not either.
    """
    opsets = repr(sorted((o.domain, o.version) for o in proto.opset_import)).encode()
    return hashlib.sha256(b"".join((opsets, *_pieces(proto)))).hexdigest()


def digest_clone(base: str, binding: Mapping[str, int]) -> str:
    """sha256 of a graph that differs from ``base`` in the sizes of its symbols only."""
    return _of_json([base, sorted(binding.items())])


def digest_manifest(specializations: Iterable[object], custom_io: Mapping[str, str] | None = None) -> str:
    """sha256 of the canonical manifest: in the order of graphs, roles and names, sizes as numbers, symbols sorted."""
    items = Manifest.of(specializations).specializations
    content = {"specializations": sorted(map(_canonical, items)), "custom_io": sorted((custom_io or {}).items())}
    return _of_json(content)


def digest_sizes(sizes: Iterable[int]) -> str:
    """sha256 of the sizes of the weights' files, in no order: cheap, and blind to equal sizes."""
    return _of_json(sorted(sizes))


def digest_file(path: Path, *, cache: bool = False) -> str:
    """sha256 of a file's content, whatever its name and times; ``cache`` keeps it beside the file, with its size.

    A kept digest stands while the size does: whoever changes a file in place must remove the digest beside it.
    """
    beside, size = path.with_name(path.name + CACHE), path.stat().st_size
    kept = _kept(beside, size) if cache else None
    if kept is not None:
        return kept
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if cache:
        beside.write_text(f"{digest.hexdigest()} {size}\n", encoding="ascii")
    return digest.hexdigest()


def digest_program(graphs: Iterable[str], weights: str, manifest: str) -> str:
    """sha256 of the digests of graphs in any order, weights and manifest."""
    return _of_json({"graphs": sorted(graphs), "weights": weights, "manifest": manifest})


def _kept(beside: Path, size: int) -> str | None:
    try:
        text, _, recorded = beside.read_text(encoding="ascii")[:200].strip().partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    whole = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text if whole and recorded == str(size) else None


def _canonical(item: Specialization) -> list[Any]:
    shown = item.model_dump(mode="json")
    return [shown[name] if name != "binding" else sorted(item.binding.items()) for name in sorted(shown)]


def _of_json(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _pieces(proto: onnx.ModelProto) -> Iterator[bytes]:
    yield from _graph(proto.graph)
    for function in sorted(proto.functions, key=lambda f: (f.domain, f.name, f.overload)):
        opsets = sorted((o.domain, o.version) for o in function.opset_import)
        yield _line(function.domain, function.name, function.overload, repr(opsets))
        yield _line(*function.input, "", *function.output)
        yield from _nodes(function.node)


def _graph(graph: onnx.GraphProto) -> Iterator[bytes]:
    for info in (*graph.input, *graph.output):
        yield _line(info.name)
        yield info.type.SerializeToString(deterministic=True)
    for tensor in sorted(graph.initializer, key=lambda tensor: tensor.name):
        yield _line(tensor.name)
        yield _tensor(tensor)
    yield from _nodes(graph.node)


_HOLD_GRAPHS = names(lambda row: row.bodies)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[bytes]:
    """Each node as it is written, without metadata and documentation, which may tell paths."""
    for node in nodes:
        if node.op_type in _HOLD_GRAPHS:
            yield _line(node.name, node.domain, node.op_type, node.overload, *node.input, "", *node.output)
            for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
                yield from _attribute(attribute)
        elif node.metadata_props or node.doc_string:
            yield _plain(node).SerializeToString(deterministic=True)
        else:
            yield node.SerializeToString(deterministic=True)


def _plain(node: onnx.NodeProto) -> onnx.NodeProto:
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.ClearField("metadata_props")
    plain.ClearField("doc_string")
    return plain


def _attribute(attribute: onnx.AttributeProto) -> Iterator[bytes]:
    kind = attribute.type
    if kind == onnx.AttributeProto.TENSOR and not attribute.ref_attr_name:
        yield attribute.name.encode()
        yield _tensor(attribute.t)
    elif kind not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) or attribute.ref_attr_name:
        yield attribute.SerializeToString(deterministic=True)
    else:
        yield attribute.name.encode()
        for graph in (attribute.g,) if kind == onnx.AttributeProto.GRAPH else attribute.graphs:
            yield from _graph(graph)


def _tensor(tensor: onnx.TensorProto) -> bytes:
    """Type and shape, and the content where the graph holds it; a tensor in an attribute may bear any name."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return repr((tensor.data_type, list(tensor.dims))).encode()
    if tensor.name or tensor.doc_string:
        named, tensor = tensor, onnx.TensorProto()
        tensor.CopyFrom(named)
        tensor.ClearField("name")
        tensor.ClearField("doc_string")
    return tensor.SerializeToString(deterministic=True)


def _line(*texts: str) -> bytes:
    return "\0".join((*texts, "\n")).encode("utf-8", "surrogatepass")
