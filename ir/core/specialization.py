"""A specialization: a name, a role, a binding of symbols to sizes, K where it is a decode; a manifest: several."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, ValidationError

from .errors import OnnxPassesError

MAX_SIZE = 2**31 - 1  # of one dimension; target compilers count them in 32 bits
MAX_NAME = 200
MAX_SPECIALIZATIONS = 4096


class ManifestInvalid(OnnxPassesError):
    """A manifest that breaks a rule of its form: a value that is no size, a name that stands twice, a wrong shape."""


class SpecRole(enum.StrEnum):
    """What a specialization is for; their order here is the order of a manifest."""

    VISION = "vision"
    ENCODE = "encode"
    EMBED = "embed"
    CLASSIFY = "classify"
    TRANSCRIBE = "transcribe"  # CTC
    MODULE = "module"  # one of several networks of a pipeline (diffusers)
    PREFILL = "prefill"
    DECODE = "decode"
    LAYER = "layer"  # one decoder layer alone
    OTHER = "other"


def _spelled(name: str) -> str:
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError("not a name: empty or blank, too long, or with control characters")
    return name


Name = Annotated[str, AfterValidator(_spelled)]
Size = Annotated[StrictInt, Field(ge=0, le=MAX_SIZE)]


class Specialization(BaseModel):
    """One binding that a graph is compiled for.

    Attributes:
        name: Unique in its manifest.
        role: What it is for.
        binding: Symbol -> size, under the graph's own names; 0 only where a state's past axis is empty.
        k: Speculative tokens of a decode (``seq = k + 1``), None where it is no decode or plain.
        logits_rows: How many of the last positions have logits, None where the graph decides.
        latency: Seconds of one run as measured or estimated, None where nobody said.
        graph: The program's graph that it belongs to; empty for every graph of the program.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Name
    role: Annotated[SpecRole, Field(strict=False)] = SpecRole.OTHER
    binding: dict[Name, Size]
    k: Annotated[StrictInt, Field(ge=0, le=MAX_SIZE)] | None = None
    logits_rows: Annotated[StrictInt, Field(ge=1, le=MAX_SIZE)] | None = None
    latency: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    graph: str = ""

    @property
    def vector(self) -> tuple[object, ...]:
        """What makes it different from another: graph, role, K, logits rows and the whole binding, not the name."""
        return (self.graph, self.role, self.k, self.logits_rows, tuple(sorted(self.binding.items())))

    @property
    def symbols(self) -> dict[str, str]:
        """The binding as named manifests hold it: strings, in the order of the symbols' names."""
        return {name: str(size) for name, size in sorted(self.binding.items())}


class Manifest(BaseModel):
    """Specializations in the order (role, K), names unique, no two alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    specializations: tuple[Specialization, ...] = Field(default=(), max_length=MAX_SPECIALIZATIONS)

    @classmethod
    def of(cls, items: Iterable[object]) -> Manifest:
        """The manifest of ``items`` in order, alike ones made one; ManifestInvalid where a name stands twice.

        An item is a Specialization, its JSON form, or a mapping ``{"name", "symbols"}`` of sizes or their decimals.
        """
        kept = distinct(read_specialization(item, index) for index, item in enumerate(items))
        seen: set[tuple[str, str]] = set()
        for item in kept:
            if (item.graph, item.name) in seen:
                raise ManifestInvalid("two specializations have this name", where=f"specialization {item.name!r}")
            seen.add((item.graph, item.name))
        return cls(specializations=tuple(ordered(kept)))

    def for_graph(self, graph: str) -> tuple[Specialization, ...]:
        """Those that belong to one graph, and those that belong to all."""
        return tuple(item for item in self.specializations if item.graph in ("", graph))


def refuse_doubled(names: Iterable[str]) -> None:
    """Raises ManifestInvalid for a name that stands twice in a file: what is proved of one would be said of another."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ManifestInvalid("two specializations have this name", where=f"specialization {name!r}"[:MAX_NAME])
        seen.add(name)


def distinct(items: Iterable[Specialization]) -> list[Specialization]:
    """``items`` without those whose whole vector stands before them."""
    kept: dict[tuple[object, ...], Specialization] = {}
    for item in items:
        kept.setdefault(item.vector, item)
    return list(kept.values())


def ordered(items: Sequence[Specialization]) -> list[Specialization]:
    """``items`` by graph, role and K; those alike in these keep their order."""
    ranks = {role: rank for rank, role in enumerate(SpecRole)}
    graphs = {graph: rank for rank, graph in enumerate(dict.fromkeys(item.graph for item in items))}
    return sorted(items, key=lambda item: (graphs[item.graph], ranks[item.role], -1 if item.k is None else item.k))


def read_specialization(item: object, index: int = 0) -> Specialization:
    """One specialization out of its JSON form or a named entry; ManifestInvalid names what is wrong in which entry."""
    if isinstance(item, Specialization):
        return item
    if not isinstance(item, Mapping):
        raise ManifestInvalid("is no specialization", where=f"entry {index}", found=_shown(item), wanted="an object")
    entry = dict(cast("Mapping[Any, Any]", item))
    where = f"specialization {entry['name']!r}"[:MAX_NAME] if "name" in entry else f"entry {index}"
    if "name" in entry and "symbols" not in entry and "binding" not in entry:
        raise ManifestInvalid("has no symbols", where=where, found=", ".join(map(str, entry))[:80], wanted="symbols")
    if "symbols" in entry and "binding" not in entry:
        entry["binding"] = read_binding(entry.pop("symbols"), where=where)
        entry.setdefault("role", role_of(entry["binding"]))
    try:
        return Specialization.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the entry"
        raise ManifestInvalid(f"{place}: {first['msg']}", where=where, found=_shown(first["input"])) from None


def read_binding(symbols: object, *, where: str) -> dict[str, int]:
    """Symbol -> size out of a mapping of sizes or their decimals; ManifestInvalid names the symbol that is neither."""
    if not isinstance(symbols, Mapping):
        raise ManifestInvalid("symbols are no object", where=where, found=_shown(symbols), wanted="symbol: size pairs")
    pairs = cast("Mapping[object, object]", symbols)
    return {_symbol(name, where): read_size(size, where=f"{where}, symbol {name!r}") for name, size in pairs.items()}


def read_size(size: object, *, where: str) -> int:
    """A size out of an integer or its decimal; ManifestInvalid for bool, float, "01", " 1", negative and huge ones."""
    if isinstance(size, str) and size.isascii() and size.isdigit() and (size == "0" or size[0] != "0"):
        size = int(size) if len(size) <= len(str(MAX_SIZE)) else MAX_SIZE + 1
    if type(size) is int and 0 <= size <= MAX_SIZE:
        return size
    raise ManifestInvalid("is no size", where=where, found=_shown(size), wanted=f"an integer from 0 to {MAX_SIZE}")


def role_of(binding: Mapping[str, int]) -> SpecRole:
    """The role that symbols tell by the names that every writer of such manifests uses; OTHER where they tell none."""
    if "seq_len" in binding and ("ctx_len" in binding or "decoder_ctx_len" in binding):
        return SpecRole.DECODE if binding["seq_len"] == 1 else SpecRole.PREFILL
    return SpecRole.OTHER


def _symbol(name: object, where: str) -> str:
    try:
        return _spelled(name) if isinstance(name, str) else _spelled("")
    except ValueError:
        raise ManifestInvalid("is no symbol's name", where=where, found=_shown(name)) from None


def _shown(item: object) -> str:
    text = repr(item) if isinstance(item, str | int | float | bool | None) else type(item).__name__
    return text if len(text) <= 80 else text[:77] + "…"
