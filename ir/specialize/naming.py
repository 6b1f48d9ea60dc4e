"""Specializations are named by a tag, the module, or the symbols; lists have a flat and a named form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from ..core.specialization import MAX_NAME, ManifestInvalid, read_binding, read_size

TAG = "_graph_name"  # the key of a flat entry that tells its name; it is no symbol
NAMED = {"name", "symbols"}
NEVER_EMPTY = frozenset({"batch_size", "seq_len", "ctx_len", "full_batch_size", "num_logits_to_keep"})

Entry = Mapping[str, object]
Rule = Callable[[Entry, int, str | None], str | None]


def infer_name(entry: Entry, index: int, module: str | None = None) -> str:
    """The name of the ``index``-th flat entry; ManifestInvalid where a value that decides it is no size."""
    for rule in _RULES:
        name = rule(entry, index, module)
        if name is not None:
            return name
    return f"Graph_{index}"


def _by_tag(entry: Entry, index: int, module: str | None) -> str | None:
    tag = entry.get(TAG)
    if TAG in entry and (not isinstance(tag, str) or not tag):
        raise ManifestInvalid(f"{TAG} is no name", where=f"entry {index}", found=repr(tag))
    return cast("str | None", tag)


def _by_module(entry: Entry, index: int, module: str | None) -> str | None:
    if module is None or "model_type" not in entry:
        return module
    return f"{module}_model_type_{read_size(entry['model_type'], where=f'entry {index}, model_type')}"


def _by_encoder(entry: Entry, index: int, module: str | None) -> str | None:
    return "Encoder" if "seq_len" not in entry and "encoder_ctx_len" in entry else None


def _by_sequence(entry: Entry, index: int, module: str | None) -> str | None:
    return "Embedding" if "seq_len" not in entry and "sequence_length" in entry else None


def _by_length(entry: Entry, index: int, module: str | None) -> str | None:
    if "seq_len" not in entry:
        return None
    return "Decode" if _size("seq_len", entry["seq_len"], f"entry {index}") == 1 else "Prefill"


_RULES: tuple[Rule, ...] = (_by_tag, _by_module, _by_encoder, _by_sequence, _by_length)  # the first that tells


def unique_names(names: Sequence[str], others: Iterable[str] = ()) -> list[str]:
    """``names`` with ``_0``, ``_1`` … after those that stand twice or among ``others``; never a name that was there."""
    kept = set(others)
    counts = Counter((*names, *kept))
    taken = {*names, *kept}
    following: Counter[str] = Counter()
    result: list[str] = []
    for name in names:
        if counts[name] == 1:
            result.append(name)
            continue
        while f"{name}_{following[name]}" in taken:
            following[name] += 1
        result.append(f"{name}_{following[name]}")
        taken.add(result[-1])
    return result


def to_named(entries: Iterable[object], module: str | None = None) -> list[dict[str, object]]:
    """The named form of a list of flat or named entries: sizes as decimals, symbols sorted, names unique.

    ManifestInvalid names the entry and symbol where a value is no size, or an entry is half flat and half named.
    """
    read = [_read(entry, index, module) for index, entry in enumerate(entries)]
    names = unique_names([name for name, _ in read])
    return [{"name": name, "symbols": symbols} for name, (_, symbols) in zip(names, read, strict=True)]


def to_flat(entries: Iterable[object]) -> list[dict[str, str]]:
    """The flat form: the symbols alone, sizes as decimals; ManifestInvalid as in ``to_named``."""
    return [_read(entry, index, None)[1] for index, entry in enumerate(entries)]


def _read(entry: object, index: int, module: str | None) -> tuple[str, dict[str, str]]:
    where = f"entry {index}"
    if not isinstance(entry, Mapping):
        raise ManifestInvalid("is no object", where=where, found=type(entry).__name__)
    fields = cast("Mapping[str, object]", entry)
    if set(fields) == NAMED:
        name = fields["name"]
        if not isinstance(name, str) or not name.strip():
            raise ManifestInvalid("name is no name", where=where, found=repr(name)[:80], wanted="a text, not blank")
        return name, _decimals(fields["symbols"], f"specialization {name!r}")
    if "symbols" in fields:
        extra = sorted(map(str, set(fields) - NAMED))
        raise ManifestInvalid("is half flat and half named", where=where, found=f"symbols and {', '.join(extra)}"[:120])
    if isinstance(fields.get("name"), str):
        raise ManifestInvalid("has no symbols", where=f"specialization {fields['name']!r}"[:MAX_NAME])
    name = infer_name(fields, index, module)
    return name, _decimals({key: size for key, size in fields.items() if key != TAG}, where)


def _decimals(symbols: object, where: str) -> dict[str, str]:
    return {name: str(_size(name, size, where)) for name, size in sorted(read_binding(symbols, where=where).items())}


def _size(name: str, size: object, where: str) -> int:
    number = read_size(size, where=f"{where}, symbol {name!r}")
    if number == 0 and name in NEVER_EMPTY:
        raise ManifestInvalid("cannot be 0", where=f"{where}, symbol {name!r}", wanted="at least 1")
    return number
