"""Every entry of external data is held against the file system, and no byte of it is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import onnx

from ..core.errors import InputError
from .tensor_data import check_embedded, tensor_bytes

MAX_NUMBER = 2**63 - 1
MAX_ENTRIES = 20_000  # of a folder in which the other names of a file are looked for
_KNOWN_KEYS = frozenset({"location", "offset", "length"})
_LINK_HINT = "Copy the data beside the model, or pass --follow-links if you trust the target."


@dataclass(frozen=True)
class DataFile:
    """A file of weights: ``path`` as the model spells it (absolute), ``size`` in bytes, ``plain``: no link to it."""

    path: str
    size: int
    plain: bool


@dataclass
class Scan:
    """The tensors of a model proto that live in other files of ``folder``, each held against its file when it is met.

    ``deep``: some stand outside the main graph's initializers.
    """

    folder: DataFolder | None
    external: list[onnx.TensorProto] = field(default_factory=list[onnx.TensorProto])
    deep: bool = False
    checked: int = 0

    def look(self, node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
        """Holds the tensors of an attribute, and of the graphs in it, against what they declare; raises InputError."""
        handler = _ATTRIBUTES.get(attribute.type)
        if handler is not None:
            _scan_attribute(handler, attribute, self, node)
            self.deep |= self.check()

    def check(self) -> bool:
        """Holds what was met since the last time against its files; True where there was something."""
        met = self.external[self.checked :]
        if self.folder is not None:
            for tensor in met:
                check_tensor(tensor, self.folder)
        self.checked = len(self.external)
        return bool(met)


def hub_root(folder: Path) -> Path | None:
    """The root of the hub cache that ``folder`` is a snapshot of (``<root>/snapshots/<rev>/…``), or None."""
    for ancestor in (folder, *folder.parents):
        if ancestor.parent.name == "snapshots" and (ancestor.parent.parent / "blobs").is_dir():
            return ancestor.parent.parent
    return None


def check_link(path: Path, folder: Path, *, follow_links: bool, where: str) -> None:
    """Refuses (InputError) a link whose final target lies neither under ``folder`` nor in its hub cache's blobs."""
    real, tree = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    root = hub_root(tree)
    if follow_links or real.is_relative_to(tree) or (root is not None and real.is_relative_to(root / "blobs")):
        return
    raise InputError(
        "is a link to a file outside the model's folder",
        where=where,
        found=str(real),
        wanted=f"a file under {tree}",
        hint=_LINK_HINT,
    )


def check_hard_links(path: Path, folder: Path, *, follow_links: bool, where: str) -> None:
    """Refuses (InputError) a file with a name outside ``folder`` and its hub cache's blobs: a link without a target.

    An unpacked archive may name any file of its disk so; copying it as weights would carry it away.
    """
    info = path.stat()
    if follow_links or info.st_nlink == 1:
        return
    tree = Path(os.path.realpath(folder))
    root = hub_root(tree)
    inside = _names_of(info, tree) + (_names_of(info, root / "blobs") if root is not None else 0)
    if inside < info.st_nlink:
        raise InputError(
            "is a hard link to a file outside the model's folder",
            where=where,
            found=f"{info.st_nlink} names, {inside} of them inside",
            wanted=f"a file that has names under {tree} alone",
            hint=_LINK_HINT,
        )


def _names_of(info: os.stat_result, folder: Path) -> int:
    """How many entries below ``folder`` are this file; a folder of very many entries is looked at in part."""
    found = seen = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.path.samestat(info, os.lstat(os.path.join(parent, name)))  # noqa: PTH118
        seen += len(names) + 1
        if seen > MAX_ENTRIES:
            break
    return found


class DataFolder:
    """The folder that a model file's external data is relative to; resolves each location once."""

    def __init__(self, model: Path, *, follow_links: bool = False) -> None:
        self.name = model.name
        self.folder = Path(os.path.abspath(model.parent))  # noqa: PTH100  a link to the folder stays as given
        self.follow_links = follow_links
        self._files: dict[str, DataFile] = {}

    def file(self, location: str, where: str) -> DataFile:
        """The data file at ``location``; InputError where it escapes the folder, is missing, or is no regular file."""
        known = self._files.get(location)
        if known is None:
            known = self._files[location] = self._resolve(location, where)
        return known

    def linked(self) -> dict[str, str]:
        """Location -> full path of each data file that a link or a hard link leads to."""
        return {location: data.path for location, data in self._files.items() if not data.plain}

    def _resolve(self, location: str, where: str) -> DataFile:
        check_location(location, where)
        path = self.folder / location
        try:
            real = Path(os.path.realpath(path))
            info = real.stat()
        except (OSError, ValueError) as error:
            raise InputError(
                f"external data file {location!r} is missing",
                where=where,
                wanted=str(path),
                hint="Put the file there, or export the model again.",
            ) from error
        check_link(path, self.folder, follow_links=self.follow_links, where=f"{where}: data file {location!r}")
        if not stat.S_ISREG(info.st_mode):
            raise InputError(f"external data {location!r} is no regular file", where=where)
        place = f"{where}: data file {location!r}"
        check_hard_links(real, self.folder, follow_links=self.follow_links, where=place)
        straight = real == Path(os.path.realpath(self.folder)) / location
        return DataFile(str(path), info.st_size, plain=straight and info.st_nlink == 1)


def check_location(location: str, where: str) -> None:
    """Refuses (InputError) a location that is not a plain relative path inside its folder."""
    parts = location.split("/")
    if (
        not location
        or "\0" in location
        or "\\" in location
        or location.startswith("/")
        or ".." in parts
        or parts[-1] in ("", ".")
    ):
        raise InputError(
            "external data must lie in the model's folder or below it",
            where=where,
            found=f"location {location!r}",
            wanted="a relative path without '..'",
        )


def scan(proto: onnx.ModelProto, folder: DataFolder) -> Scan:
    """The external tensors among a model's initializers and in its functions; :meth:`Scan.look` adds those of nodes.

    Raises InputError for sparse tensors: onnx_ir would drop the initializers among them without a word.
    """
    found = Scan(folder)
    _scan_initializers(proto.graph, found)
    found.check()
    for function in proto.functions:
        for node in function.node:
            for attribute in node.attribute:
                found.look(node, attribute)
    return found


def external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """All external tensors of a model, in any scope, held against no file; InputError as :func:`scan` raises it."""
    found = Scan(None)
    _scan_graph(proto.graph, found)
    for function in proto.functions:
        for node in function.node:
            for attribute in node.attribute:
                found.look(node, attribute)
    return found.external


def _scan_initializers(graph: onnx.GraphProto, found: Scan) -> None:
    if len(graph.sparse_initializer):
        raise _sparse(f"graph {graph.name!r}")
    for tensor in graph.initializer:
        _scan_tensor(tensor, found)


def _scan_graph(graph: onnx.GraphProto, found: Scan) -> None:
    _scan_initializers(graph, found)
    for node in graph.node:
        for attribute in node.attribute:
            found.look(node, attribute)


def _scan_tensor(tensor: onnx.TensorProto, found: Scan) -> None:
    if tensor.data_location:
        found.external.append(tensor)
    else:
        check_embedded(tensor)


def _scan_attribute(
    handler: Callable[[onnx.AttributeProto, Scan], None],
    attribute: onnx.AttributeProto,
    found: Scan,
    node: onnx.NodeProto,
) -> None:
    try:
        handler(attribute, found)
    except InputError as error:
        if attribute.type != onnx.AttributeProto.TENSOR:
            raise
        where = f"node {node.name!r} ({node.op_type}), attribute {attribute.name!r}"  # its tensor seldom has a name
        raise InputError(error.what, where=where, found=error.found, wanted=error.wanted, hint=error.hint) from error


def _one_tensor(attribute: onnx.AttributeProto, found: Scan) -> None:
    _scan_tensor(attribute.t, found)


def _many_tensors(attribute: onnx.AttributeProto, found: Scan) -> None:
    for tensor in attribute.tensors:
        _scan_tensor(tensor, found)


def _many_graphs(attribute: onnx.AttributeProto, found: Scan) -> None:
    for graph in attribute.graphs:
        _scan_graph(graph, found)


def _refuse_sparse(attribute: onnx.AttributeProto, found: Scan) -> None:
    raise _sparse(f"attribute {attribute.name!r}")


_ATTRIBUTES: dict[int, Callable[[onnx.AttributeProto, Scan], None]] = {
    onnx.AttributeProto.TENSOR: _one_tensor,
    onnx.AttributeProto.TENSORS: _many_tensors,
    onnx.AttributeProto.GRAPH: lambda attribute, found: _scan_graph(attribute.g, found),
    onnx.AttributeProto.GRAPHS: _many_graphs,
    onnx.AttributeProto.SPARSE_TENSOR: _refuse_sparse,
    onnx.AttributeProto.SPARSE_TENSORS: _refuse_sparse,
}


def _sparse(where: str) -> InputError:
    return InputError(
        "sparse tensors are not supported: they would be lost on the way",
        where=where,
        hint="Export the model with dense initializers.",
    )


def check_tensor(tensor: onnx.TensorProto, folder: DataFolder) -> DataFile:
    """Holds one external tensor against its file: keys, numbers, range, and room for its type and shape.

    Raises InputError naming the tensor, what it declares, and what the file has.
    """
    where = f"{folder.name}: tensor {tensor.name!r}"
    entries = _entries(tensor, where)
    data = folder.file(entries.get("location", ""), where)
    offset = _number(entries.get("offset", "0"), "offset", where)
    length = _number(entries["length"], "length", where) if "length" in entries else max(data.size - offset, 0)
    if offset + length > data.size:
        raise InputError(
            f"its range lies outside {entries['location']!r}",
            where=where,
            found=f"bytes {offset} to {offset + length} of a file of {data.size}",
            hint="The data file is truncated, or belongs to another model.",
        )
    needed = tensor_bytes(tensor, where)
    if length < needed:
        raise InputError(
            "its range is shorter than its type and shape",
            where=where,
            found=f"{length} bytes",
            wanted=f"{needed} bytes",
        )
    return data


def _entries(tensor: onnx.TensorProto, where: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        texts = cast("tuple[object, object]", (entry.key, entry.value))
        if not all(isinstance(text, str) for text in texts):  # protobuf leaves bytes that are no UTF-8 as bytes
            raise InputError(
                "external data names are no text", where=where, hint="The file is damaged: export it again."
            )
        if entry.key in entries and entry.key in _KNOWN_KEYS:
            raise InputError(f"external data names {entry.key!r} twice", where=where)
        entries[entry.key] = entry.value
    return entries


def _number(text: str, key: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_NUMBER):
        raise InputError(
            f"external data {key} is no byte count", where=where, found=repr(text[:40]), wanted="0 to 2**63-1"
        )
    return int(text)
