"""Reading one .onnx file: what it must be, said in one line where it is not, and its weights left where they lie."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from ..core.errors import InputError
from ..core.gc_off import collector_off
from ..core.tensors import moved_tensor, tensor_slots
from ..symbolic.symbols import number_dims
from .deserialize import deserialize
from .external_data import DataFolder, Scan, check_hard_links, check_link, external_tensors, scan
from .schemas import check_calls, check_nodes

MAX_PROTO = 2**31 - 1
MIN_OPSET, MIN_IR_VERSION = 13, 4
_TEXT_PROBE = 512


@dataclass(frozen=True)
class Loaded:
    """One graph as read: the model, and the sha256 of the file it came from."""

    model: ir.Model
    sha256: str


def load_graph(path: Path, *, follow_links: bool = False) -> Loaded:
    """Reads one .onnx file without touching its external data; InputError says what is wrong with it and what to do."""
    folder = DataFolder(path, follow_links=follow_links)
    data = _read(path, folder)
    digest = hashlib.sha256(data).hexdigest()
    with collector_off():
        proto = _parse(data, path)
        del data
        return Loaded(_checked(proto, path, folder), digest)


def load_proto(proto: onnx.ModelProto, base_dir: Path | None, *, follow_links: bool = False) -> ir.Model:
    """The graph of a model in memory; its embedded weights stay those of ``proto``.

    External data is looked for in ``base_dir``; InputError where a tensor has some and no folder is told.
    """
    where = Path("the ModelProto")
    if not proto.HasField("graph") or not proto.ir_version:
        raise InputError("is not an ONNX model", where=str(where), found="no graph in it")
    if base_dir is None and (outside := external_tensors(proto)):
        raise InputError(
            "has weights in files, whose folder a model in memory does not tell",
            where=str(where),
            found=f"{len(outside)} tensors, {outside[0].name!r} the first",
            hint="Give base_dir=FOLDER, or the path of the model's file.",
        )
    return _checked(proto, where, DataFolder((base_dir or Path()) / "model.onnx", follow_links=follow_links))


def load_model(model: ir.Model) -> ir.Model:
    """A clone of a graph in memory, checked like one of a file, which passes may change; weights are shared."""
    clone = model.clone()
    check_nodes(clone)
    number_dims(clone)
    return clone


def _checked(proto: onnx.ModelProto, path: Path, folder: DataFolder) -> ir.Model:
    _check_versions(proto, path)
    found = scan(proto, folder)
    check_calls(proto)
    model = _deserialize(proto, path, found)
    check_nodes(model)
    _settle(model, found, folder)
    number_dims(model)
    return model


def _read(path: Path, folder: DataFolder) -> bytes:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise InputError("is no regular file", where=str(path), wanted="an .onnx file or a folder with one")
        if path.is_symlink():
            check_link(path, folder.folder, follow_links=folder.follow_links, where=str(path))
        check_hard_links(path, folder.folder, follow_links=folder.follow_links, where=str(path))
        if info.st_size > MAX_PROTO:
            raise InputError(
                f"is larger than protobuf allows: {info.st_size} bytes",
                where=str(path),
                wanted="at most 2 GB",
                hint="Save it with external data first (onnx.save with save_as_external_data=True).",
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        what = "is a link to a file that does not exist" if path.is_symlink() else "no such file"
        raise InputError(what, where=str(path), hint="Give an .onnx file or a folder with one.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}", where=repr(str(path))
        ) from error


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    for matches, what, hint in _NOT_ONNX:
        if matches(data):
            raise InputError(what, where=str(path), hint=hint)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RuntimeError) as error:
        what = "is truncated or damaged" if data[0] == _IR_VERSION_TAG else "is not an ONNX model"
        raise InputError(
            what, where=str(path), found=f"{len(data)} bytes that do not parse", hint="Copy or export it again."
        ) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise InputError("is not an ONNX model, or is truncated", where=str(path), found="no graph in it")
    return proto


def _is_text(data: bytes) -> bool:
    head = data[:_TEXT_PROBE]
    return head.isascii() and all(byte >= 32 or byte in b"\t\r\n" for byte in head)


_IR_VERSION_TAG = 0x08  # the first byte of every exporter's file: field 1, ir_version
_NOT_ONNX: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (lambda data: not data, "is empty", "Copy or export it again."),
    (
        lambda data: data.startswith(b"version https://git-lfs"),
        "is a git-lfs pointer, not the model",
        "Run: git lfs pull",
    ),
    (_is_text, "is a text file, not an ONNX model", "Give the .onnx file."),
)


def _check_versions(proto: onnx.ModelProto, path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not MIN_IR_VERSION <= proto.ir_version <= onnx.IR_VERSION:
        raise InputError(
            f"IR version {proto.ir_version} is not supported",
            where=str(path),
            wanted=f"{MIN_IR_VERSION} to {onnx.IR_VERSION}",
            hint="Upgrade onnx.",
        )
    if len(proto.training_info):
        raise InputError(
            "holds training_info, which would be lost", where=str(path), hint="Export the model for inference."
        )
    if not len(proto.opset_import):
        raise InputError("imports no opset", where=str(path), hint="It is truncated, or no ONNX model.")
    imports = [*proto.opset_import, *(entry for function in proto.functions for entry in function.opset_import)]
    for entry in imports:
        if entry.domain in ("", "ai.onnx") and not MIN_OPSET <= entry.version <= newest:
            raise InputError(
                f"opset {entry.version} is not supported",
                where=str(path),
                wanted=f"{MIN_OPSET} to {newest}",
                hint="Export it at another opset." if entry.version < MIN_OPSET else "Upgrade onnx.",
            )


def _deserialize(proto: onnx.ModelProto, path: Path, found: Scan) -> ir.Model:
    try:
        return deserialize(proto, found.look)
    except InputError:
        raise
    except Exception as error:  # whatever a crafted file makes it raise, it is the file's fault
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(
            f"cannot be understood: {type(cause).__name__}: {str(cause)[:200]}", where=str(path)
        ) from error


def _settle(model: ir.Model, found: Scan, folder: DataFolder) -> None:
    """Tells every external tensor where its file is; a link by its full path, which onnx_ir reads through."""
    if not found.external:
        return
    linked = folder.linked()
    for slot in tensor_slots(model, attributes=found.deep):
        tensor = slot.tensor
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        tensor.base_dir = str(folder.folder)
        location: str = os.fspath(tensor.location)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        path = linked.get(location)
        if path is not None:
            slot.put(moved_tensor(tensor, tensor.name, path, (tensor.offset, tensor.length), base_dir=""))
