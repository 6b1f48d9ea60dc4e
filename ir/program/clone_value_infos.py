"""Value infos of clones come from one sweep over the graph they share, its symbols replaced for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from ..interface.analysis import analysis_of
from ..serialization.clone_file import Skeleton, binder, field_bytes, frame, name_bytes, type_bytes
from ..serialization.fill_shapes import NativeEngine, ShapeEngine
from ..shapes.described import is_spread_small
from ..shapes.dtypes import dtypes_of
from ..shapes.infer import Facts, propagate
from ..shapes.infer.declared import is_fresh
from ..symbolic.dims import Dim, substitute
from ..symbolic.symbols import dims_of
from .clone import Clone, written_sizes

Dims = tuple[Dim | None, ...]
Shown = tuple[int | str | None, ...]


_Key = tuple[int, Dims | None, Dims | None]


class _Frames(dict[int, bytes]):
    """What stands before a value info of so many bytes in its graph."""

    def __missing__(self, length: int) -> bytes:
        self[length] = frame(length)
        return self[length]


_FRAMES = _Frames()


@dataclass(slots=True)
class _Row:
    """One inner value: its serialized name; element type (0 unknown), dimensions as declared and as found."""

    value: ir.Value
    name: bytes
    key: _Key

    @property
    def ranked(self) -> bool:
        """Whether anything tells the rank."""
        return self.key[1] is not None or self.key[2] is not None


@dataclass
class Infos:
    """The inner values of one graph, ready to be written with any binding.

    Without ``fill`` only what is declared is written. ``notes`` tell where shapes could not be inferred.
    """

    model: ir.Model
    fill: bool
    engine: ShapeEngine = field(default_factory=NativeEngine)
    rows: list[_Row] = field(default_factory=list["_Row"])
    others: list[onnx.ValueInfoProto] = field(default_factory=list[onnx.ValueInfoProto])
    notes: list[str] = field(default_factory=list[str])
    _open: bool = False
    _by_engine: set[str] | None = None

    @classmethod
    def of(cls, model: ir.Model, declared: Iterable[onnx.ValueInfoProto], *, fill: bool) -> Infos:
        """Sweeps the graph once; ``declared`` are the value infos that its serialized form has."""
        facts = analysis_of(model).facts if fill else Facts()
        infos = cls(model, fill, NativeEngine(fill and is_spread_small(model, lambda: facts)))
        dtypes = dtypes_of(model.graph) if fill else {}
        outputs = set(model.graph.outputs)
        special = {info.name: info for info in declared if _is_special(info)}
        for value in (value for node in model.graph for value in node.outputs):
            if not value.name or value in outputs or value.name in special:
                continue
            dtype = value.dtype if value.dtype is not None else dtypes.get(value)
            row = _Row(value, name_bytes(value.name), (int(dtype or 0), dims_of(value), facts.shape(value)))
            if fill or (row.key[1] is not None and dtype):
                infos.rows.append(row)
        infos.others = list(special.values())
        infos._open = any(is_fresh(dim) for shape in set(facts.shapes.values()) for dim in shape)
        return infos

    def fields(self, binding: Mapping[str, int]) -> bytes:
        """The value infos under a binding, as fields of a serialized graph."""
        facts = propagate(self.model, binding=binding) if self._open and self.fill else None
        kinds: dict[_Key, bytes] = {}
        parts: list[bytes] = []
        for row in self.rows:
            key = row.key if facts is None else (row.key[0], row.key[1], facts.shape(row.value))
            kind = kinds.get(key)
            if kind is None:
                dims = _shown(key[1], key[2], binding)
                kinds[key] = kind = type_bytes(key[0], dims) if dims is not None and key[0] else b""
            if kind:
                parts += (_FRAMES[len(row.name) + len(kind)], row.name, kind)
        bind = binder(binding)
        for other in self.others:
            info = onnx.ValueInfoProto()
            info.CopyFrom(other)
            bind(info.type)
            parts.append(field_bytes(info.SerializeToString()))
        return b"".join(parts)

    @property
    def complete(self) -> bool:
        """True where there is nothing (more) that the engine would add."""
        return not self.fill or self._by_engine == set()

    def more(self, file: bytes) -> bytes | None:
        """Value infos that only the engine knows, for a clone written without them.

        The first call also learns the element types that the sweep did not tell; it returns None where the file must
        be written again for them.
        """
        lacking = {row.value.name: row for row in self.rows if not row.key[0] or not row.ranked}
        if not lacking:
            self._by_engine = set()
            return b""
        inferred = self._ask(file)
        if self._by_engine is None:
            self._by_engine = {i.name for i in inferred if i.name in lacking and not lacking[i.name].ranked}
            if learned := [info for info in inferred if info.name in lacking and not lacking[info.name].key[0]]:
                for info in learned:
                    row = lacking[info.name]
                    row.key = (info.type.tensor_type.elem_type, *row.key[1:])
                return None
        return b"".join(field_bytes(info.SerializeToString()) for info in inferred if info.name in self._by_engine)

    def _ask(self, file: bytes) -> Sequence[onnx.ValueInfoProto]:
        proto = onnx.ModelProto()
        try:
            proto.ParseFromString(self.engine.infer(file))
        except Exception as error:  # engines raise whatever they like; shapes are a convenience
            reason = " ".join(str(error).split())[:200]
            self.notes.append(f"shapes were not filled in: {self.engine.name} shape inference failed: {reason}")
            return []
        return [
            i for i in proto.graph.value_info if i.type.tensor_type.elem_type and i.type.tensor_type.HasField("shape")
        ]


def clone_file(skeleton: Skeleton, infos: Infos, name: str, clone: Clone) -> bytes:
    """The bytes of one clone's file, its value infos as complete as the sweep and the engine make them."""
    metadata = written_sizes(clone.binding)

    def file(more: bytes = b"") -> bytes:
        return skeleton.file(name, clone.binding, infos.fields(clone.binding) + more, metadata)

    data = file()
    if infos.complete:
        return data
    more = infos.more(data)
    if more is None:
        data = file()
        more = b"" if infos.complete else infos.more(data)
    return file(more) if more else data


def _is_special(info: onnx.ValueInfoProto) -> bool:
    """Whether there is more to keep of a value info than the element type and shape of a tensor."""
    return bool(info.doc_string or info.metadata_props or info.type.denotation) or not info.type.HasField("tensor_type")


def _shown(declared: Dims | None, found: Dims | None, binding: Mapping[str, int]) -> Shown | None:
    """A shape as it is written: numbers wherever one of the two tells one, declared symbols else."""
    if declared is None:
        return None if found is None else tuple(_item(None, dim, binding) for dim in found)
    if found is None or len(found) != len(declared):
        return tuple(_item(dim, None, binding) for dim in declared)
    return tuple(_item(said, dim, binding) for said, dim in zip(declared, found, strict=True))


def _item(declared: Dim | None, found: Dim | None, binding: Mapping[str, int]) -> int | str | None:
    said = None if declared is None else substitute(declared, binding)
    derived = None if found is None else substitute(found, binding)
    if isinstance(derived, int):  # exporters' value infos lie now and then; what follows from the inputs does not
        return derived
    if isinstance(said, int):
        return said
    chosen = said if said is not None else derived
    return None if chosen is None or is_fresh(chosen) else str(chosen)
