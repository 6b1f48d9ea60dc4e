"""A clone's file without a copy of the graph: nodes are serialized once, each clone adds a header of its own.

A message's fields may stand in any order, so a graph's bytes are its shared fields (nodes, initializers, functions)
followed by those that hold dimensions (inputs, outputs, value infos).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from ..symbolic.dims import parse, substitute

_NAME, _INPUT, _OUTPUT, _VALUE_INFO = 2, 11, 12, 13  # of GraphProto
_GRAPH = 7  # of ModelProto
_INFO_NAME = 1  # of ValueInfoProto


@dataclass(frozen=True)
class Skeleton:
    """What all clones of one graph share, serialized, and the values whose dimensions differ.

    Attributes:
        model: The bytes of the ModelProto without its graph.
        graph: The bytes of the GraphProto without name, inputs, outputs and value infos.
        header: A graph of exactly those, with the base's dimensions.
    """

    model: bytes
    graph: bytes
    header: onnx.GraphProto

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> Skeleton:
        """Takes ``proto`` apart; it is empty afterwards."""
        header = onnx.GraphProto(name=proto.graph.name)
        for field in ("input", "output", "value_info"):
            getattr(header, field).extend(getattr(proto.graph, field))
        for field in ("name", "input", "output", "value_info"):
            proto.graph.ClearField(field)
        graph = proto.graph.SerializeToString()
        proto.ClearField("graph")
        return cls(proto.SerializeToString(), graph, header)

    def file(self, name: str, binding: Mapping[str, int], infos: bytes, metadata: Mapping[str, str]) -> bytes:
        """The file of one clone; ``infos`` are serialized value infos as :func:`field_bytes` makes them."""
        header = onnx.GraphProto(name=name)
        bind = binder(binding)
        for field in ("input", "output"):
            getattr(header, field).extend(getattr(self.header, field))
            for info in getattr(header, field):
                bind(info.type)
        own = header.SerializeToString()
        length = len(self.graph) + len(own) + len(infos)
        more = onnx.ModelProto(
            metadata_props=[onnx.StringStringEntryProto(key=key, value=text) for key, text in metadata.items()]
        )
        top = self.model + more.SerializeToString()
        return b"".join((top, bytes([_GRAPH << 3 | 2]), varint(length), self.graph, own, infos))


def binder(binding: Mapping[str, int]) -> Callable[[onnx.TypeProto], None]:
    """What replaces a binding's symbols in a type, in place, whatever kind of type it is."""
    known: dict[str, int | str | None] = {}

    def dim(item: onnx.TensorShapeProto.Dimension) -> None:
        text = item.dim_param
        if not text:
            return
        if text not in known:
            old = parse(text)
            new = substitute(old, binding)
            known[text] = None if new == old and not isinstance(new, int) else new if isinstance(new, int) else str(new)
        found = known[text]
        if isinstance(found, int):
            item.dim_value = found
        elif found is not None:
            item.dim_param = found

    def bind(kind: onnx.TypeProto) -> None:
        which = kind.WhichOneof("value")
        if which in ("tensor_type", "sparse_tensor_type"):
            for item in getattr(kind, which).shape.dim:
                dim(item)
        elif which in ("sequence_type", "optional_type"):
            bind(getattr(kind, which).elem_type)

    return bind


def varint(number: int) -> bytes:
    """An unsigned number as protobuf writes it."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def name_bytes(name: str) -> bytes:
    """A value info's name, serialized."""
    text = name.encode()
    return bytes([_INFO_NAME << 3 | 2]) + varint(len(text)) + text


def type_bytes(dtype: int, dims: tuple[int | str | None, ...]) -> bytes:
    """A value info's type, serialized: a tensor's."""
    return onnx.ValueInfoProto(type=onnx.helper.make_tensor_type_proto(dtype, dims)).SerializeToString()


def field_bytes(info: bytes) -> bytes:
    """A serialized value info as a field of its graph."""
    return frame(len(info)) + info


def frame(length: int) -> bytes:
    """What stands before a value info of so many bytes in its graph."""
    return bytes([_VALUE_INFO << 3 | 2]) + varint(length)
