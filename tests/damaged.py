"""Damage to files that a command reads: seeded, of many kinds, at every place that a file has."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from google.protobuf.message import Message

Random = random.Random

NUMBERS = (0, 1, -1, 2, 7, -7, 63, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63))
TEXTS = ("", " ", "x", "..", "../outside", "/outside", "a\0b", "é", "n" * 5000, "-", "1", "((((", "a*b+c", "\n")
OPERATORS = ("Concat", "Squeeze", "Transpose", "If", "Loop", "Gather", "Split", "Q")
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1.5, 1e308, 10**30, "", " ", "x", [], {}, [[]], {"a": None}, "9" * 5000)


# bytes ----------------------------------------------------------------------------------------------------------------


def flipped(data: bytes, r: Random) -> bytes:
    """One byte is another."""
    at = r.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << r.randrange(8))]) + data[at + 1 :]


def truncated(data: bytes, r: Random) -> bytes:
    """The end is missing."""
    return data[: r.randrange(len(data))]


def cut(data: bytes, r: Random) -> bytes:
    """A piece is missing."""
    at = r.randrange(len(data))
    return data[:at] + data[at + r.randrange(1, 40) :]


def doubled(data: bytes, r: Random) -> bytes:
    """A piece stands twice."""
    at = r.randrange(len(data))
    end = at + r.randrange(1, 60)
    return data[:end] + data[at:end] + data[end:]


def zeroed(data: bytes, r: Random) -> bytes:
    """A piece is zeros."""
    at, length = r.randrange(len(data)), r.randrange(1, 30)
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def noise(data: bytes, r: Random) -> bytes:
    """A piece is noise."""
    at, length = r.randrange(len(data)), r.randrange(1, 12)
    return data[:at] + r.randbytes(length) + data[at + length :]


BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    function.__name__: function for function in (flipped, truncated, cut, doubled, zeroed, noise)
}


# protos ---------------------------------------------------------------------------------------------------------------


def messages(message: Message) -> Iterator[Message]:
    """A message and all those in it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_MESSAGE:
            for inner in value if descriptor.is_repeated else (value,):
                yield from messages(inner)


def _pick(model: onnx.ModelProto, r: Random) -> tuple[Message, Any, Any]:
    """A field that is set, of any message, nodes and types more often than the rest."""
    kinds = r.choice((None, onnx.NodeProto, onnx.AttributeProto, onnx.TensorShapeProto, onnx.TensorProto))
    found = [m for m in messages(model) if m.ListFields() and (kinds is None or isinstance(m, kinds))]
    chosen = r.choice(found or [model])
    descriptor, value = r.choice(chosen.ListFields())
    return chosen, descriptor, value


def field_removed(model: onnx.ModelProto, r: Random) -> None:
    """A field is not there."""
    message, descriptor, _ = _pick(model, r)
    message.ClearField(descriptor.name)


def item_removed(model: onnx.ModelProto, r: Random) -> None:
    """An item of a list is not there."""
    _, descriptor, value = _pick(model, r)
    if descriptor.is_repeated and len(value):
        del value[r.randrange(len(value))]


def item_doubled(model: onnx.ModelProto, r: Random) -> None:
    """An item of a list stands twice."""
    _, descriptor, value = _pick(model, r)
    if descriptor.is_repeated and len(value):
        value.append(value[r.randrange(len(value))])


def items_swapped(model: onnx.ModelProto, r: Random) -> None:
    """Two items of a list have changed places."""
    message, descriptor, value = _pick(model, r)
    if descriptor.is_repeated and len(value) > 1:
        items = list(value)
        i, j = r.sample(range(len(items)), 2)
        items[i], items[j] = items[j], items[i]
        copies = [_copied(item) for item in items]
        message.ClearField(descriptor.name)
        getattr(message, descriptor.name).extend(copies)


def _copied(item: Any) -> Any:
    if not isinstance(item, Message):
        return item
    copy = type(item)()
    copy.CopyFrom(item)
    return copy


def value_changed(model: onnx.ModelProto, r: Random) -> None:
    """A number or a text is another."""
    message, descriptor, value = _pick(model, r)
    if descriptor.type == descriptor.TYPE_MESSAGE:
        return
    new = _other(descriptor, r)
    try:
        if descriptor.is_repeated:
            value[r.randrange(len(value))] = new
        else:
            setattr(message, descriptor.name, new)
    except (ValueError, TypeError, IndexError):
        return


def _other(descriptor: Any, r: Random) -> Any:
    if descriptor.type == descriptor.TYPE_STRING:
        return r.choice(TEXTS)
    if descriptor.type == descriptor.TYPE_BYTES:
        return r.choice(TEXTS).encode()
    if descriptor.type == descriptor.TYPE_FLOAT:
        return r.choice((0.0, -1.0, float("nan"), float("inf"), 3e38))
    return r.choice(NUMBERS)


def rewired(model: onnx.ModelProto, r: Random) -> None:
    """A node reads another value."""
    nodes = list(model.graph.node)
    names = [name for node in nodes for name in (*node.input, *node.output)]
    node = r.choice(nodes)
    if node.input:
        node.input[r.randrange(len(node.input))] = r.choice(names)


def renamed_operator(model: onnx.ModelProto, r: Random) -> None:
    """A node is another operator."""
    r.choice(model.graph.node).op_type = r.choice(OPERATORS)


def attribute_retyped(model: onnx.ModelProto, r: Random) -> None:
    """An attribute has another type, or none."""
    found = [a for node in model.graph.node for a in node.attribute]
    if found:
        r.choice(found).type = r.choice((0, 1, 2, 3, 4, 5, 6, 7, 8))  # type: ignore[assignment]


def attribute_changed(model: onnx.ModelProto, r: Random) -> None:
    """An integer of an attribute is another."""
    found = [a for node in model.graph.node for a in node.attribute]
    attribute = r.choice(found) if found else None
    if attribute is not None and attribute.ints:
        attribute.ints[r.randrange(len(attribute.ints))] = r.choice(NUMBERS)
    elif attribute is not None:
        attribute.i = r.choice(NUMBERS)


def attribute_removed(model: onnx.ModelProto, r: Random) -> None:
    """A node lacks an attribute."""
    found = [node for node in model.graph.node if node.attribute]
    if found:
        node = r.choice(found)
        del node.attribute[r.randrange(len(node.attribute))]


def shape_changed(model: onnx.ModelProto, r: Random) -> None:
    """An input or output has another shape."""
    value = r.choice((*model.graph.input, *model.graph.output))
    dims = value.type.tensor_type.shape.dim
    choice = r.randrange(4)
    if choice == 0:
        del dims[:]
    elif choice == 1 and dims:
        del dims[r.randrange(len(dims))]
    elif choice == 2:
        dims.add().dim_param = r.choice(("s", "batch", "2", "-1", "a+b*c", "(" * 50, "s//0", "s % 0", "past + seq"))
    elif dims:
        dims[r.randrange(len(dims))].dim_value = r.choice(NUMBERS)


PROTOS: dict[str, Callable[[onnx.ModelProto, Random], None]] = {
    function.__name__: function
    for function in (
        *(field_removed, item_removed, item_doubled, items_swapped, value_changed, rewired, renamed_operator),
        *(attribute_retyped, attribute_changed, attribute_removed, shape_changed),
    )
}


# JSON and pipeline texts ----------------------------------------------------------------------------------------------


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from places(data[key])


def json_damage(text: str, r: Random) -> str:
    """One value of a JSON text is another, is missing, or its text is damaged."""
    if r.randrange(4) == 0:
        return BYTES[r.choice(list(BYTES))](text.encode(), r).decode(errors="replace")
    data = json.loads(text)
    container, key = r.choice(list(places(data)))
    if r.randrange(3) == 0:
        del container[key]
    else:
        container[key] = r.choice(VALUES)
    text = json.dumps(data)
    return text.replace("1e+308", r.choice(("NaN", "Infinity", "1e999", "9" * 5000))) if "1e+308" in text else text


def pipeline_damage(text: str, r: Random) -> str:
    """A pipeline text with a few characters added, lost or changed."""
    for _ in range(r.randrange(1, 4)):
        at = r.randrange(len(text) + 1)
        mark = r.choice(("{", "}", "=", ",", "'", '"', "\\", "\0", " ", "-1", "9" * 30, "k=0", "é", "../", "[", "]"))
        text = r.choice((text[:at] + mark + text[at:], text[:at] + text[at + 1 :], text[:at] + text[at:] * 2))
    return text[:2000]
