"""A shape engine fills in the value infos that a serialized graph lacks; those that it has always win."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import onnx

DATA_BYTES = 1 << 20
"""Beyond this size inference does without data propagation, which would double the memory of the whole run."""


class ShapeEngine(Protocol):
    """Infers types: takes a serialized model whose weights are references, returns it with more value infos."""

    @property
    def name(self) -> str:
        """What notes call it."""
        ...

    def infer(self, model: bytes) -> bytes:
        """The model with inferred value infos; any exception means that it could not."""
        ...


@dataclass(frozen=True)
class NativeEngine:
    """onnx's own inference in C++: fast, partial (it stops at operators it does not know), never reads weights.

    ``contents`` lets it follow the content of integer tensors too, where they are known to be small.
    """

    contents: bool = True
    name: str = "onnx"

    def infer(self, model: bytes) -> bytes:
        """The model with inferred value infos."""
        from onnx.onnx_cpp2py_export import shape_inference as native

        return native.infer_shapes(
            model, check_type=False, strict_mode=False, data_prop=self.contents and len(model) <= DATA_BYTES
        )


@dataclass(frozen=True)
class Filled:
    """What became of a proto: the bytes to write, how many types were added, and a note where none could be."""

    data: bytes
    added: int = 0
    note: str = ""


def fill_shapes(proto: onnx.ModelProto, engine: ShapeEngine | None = None) -> Filled:
    """Serializes ``proto``, completed with the value infos that ``engine`` finds and it lacks.

    An existing value info, input or output keeps its type; an output without a shape gets the inferred one. A failing
    engine never fails the run: the graph stays as it is, and the note says so.
    """
    used: ShapeEngine = engine or NativeEngine()
    head, body = _apart(proto)
    inferred = onnx.ModelProto()
    try:
        inferred.ParseFromString(used.infer(_together(head, body)))
    except Exception as error:  # engines raise whatever they like; shapes are a convenience
        reason = " ".join(str(error).split())[:200]
        note = f"shapes were not filled in: {used.name} shape inference failed: {reason}"
        return Filled(_together(head, body), note=note)
    shaped = _shape_outputs(proto.graph, inferred.graph)
    if shaped:
        body = proto.graph.SerializeToString()
    new = _missing(proto.graph, inferred.graph)
    return Filled(_together(head, body, new.SerializeToString()), len(new.value_info) + shaped)


def _apart(proto: onnx.ModelProto) -> tuple[bytes, bytes]:
    """The model's own fields, and its graph's: the large part is serialized once."""
    head = onnx.ModelProto()
    for descriptor, value in proto.ListFields():
        if descriptor.name == "graph":
            continue
        if descriptor.is_repeated:
            getattr(head, descriptor.name).extend(value)
        else:
            setattr(head, descriptor.name, value)
    return head.SerializeToString(), proto.graph.SerializeToString()


def _together(head: bytes, *graph: bytes) -> bytes:
    """A serialized model: ``head``, then one graph field; the parts of a message concatenate to the whole."""
    return b"".join((head, GRAPH_TAG, _varint(sum(map(len, graph))), *graph))


GRAPH_TAG = bytes((onnx.ModelProto.GRAPH_FIELD_NUMBER << 3 | 2,))  # wire type 2: length-delimited


def _varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _missing(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> onnx.GraphProto:
    """A graph that holds nothing but the value infos that ``graph`` lacks."""
    known = {
        info.name for values in (graph.value_info, graph.input, graph.output, graph.initializer) for info in values
    }
    new = onnx.GraphProto()
    new.value_info.extend(i for i in inferred.value_info if i.name not in known and _says_something(i.type))
    return new


def _shape_outputs(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> int:
    """Gives outputs without a shape the inferred one; returns how many."""
    shaped = 0
    for mine, theirs in zip(graph.output, inferred.output, strict=True):
        tensor = theirs.type.tensor_type
        if (
            tensor.HasField("shape")
            and not _has_shape(mine.type)
            and mine.type.tensor_type.elem_type in (0, tensor.elem_type)
        ):
            mine.type.CopyFrom(theirs.type)
            _forget_made_up(mine.type.tensor_type.shape)
            shaped += 1
    return shaped


def _forget_made_up(shape: onnx.TensorShapeProto) -> None:
    """Clears symbols that the engine invented: on an output they would look like the graph's own."""
    for dim in shape.dim:
        if dim.dim_param.startswith("unk__"):
            dim.ClearField("dim_param")


def _says_something(kind: onnx.TypeProto) -> bool:
    """Whether a type is worth a line: a tensor of known rank, or no tensor at all (a sequence, an optional)."""
    if not kind.HasField("tensor_type"):
        return kind.WhichOneof("value") is not None
    return kind.tensor_type.HasField("shape") and kind.tensor_type.elem_type != 0


def _has_shape(kind: onnx.TypeProto) -> bool:
    return kind.tensor_type.HasField("shape") or kind.WhichOneof("value") not in ("tensor_type", None)
