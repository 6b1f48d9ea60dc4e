"""One builder gives the specializations of all families in the table; sizes and switches are given by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...core.errors import UnknownNameError
from ...core.specialization import SpecRole
from .base import Entry, FamilyError, Symbols, check_options, size, sizes
from .table import FAMILIES, Batching, Family, Packaging, Single

CHUNK = 8192  # rows of a chunked layer's cache at most

_LENGTHS = (
    "batch_size", "prefill_seq_len", "ctx_len", "kv_cache_batch_size", "full_batch_size",
    "comp_ctx_lengths_prefill", "comp_ctx_lengths_decode",
)  # fmt: skip
_SWITCHES = ("kv_offload", "continuous_batching", "prefill_only", "enable_chunking")


def multimodal(name: str, options: Mapping[str, object]) -> dict[str, list[Entry]]:
    """The specializations of a family: ``vision`` and ``lang`` where it is packaged in two, else ``lang`` alone.

    ``options`` are sizes and switches by name; a size of None is not given. UnknownNameError for an option or family
    that is none, FamilyError where the sizes contradict each other or the family cannot be packaged or batched so.
    """
    if name not in FAMILIES:
        raise UnknownNameError("family", name, FAMILIES)
    family = FAMILIES[name]
    given = {key: value for key, value in options.items() if value is not None}
    _check(name, family, given)
    return _Builder(family, given).build()


def _check(name: str, family: Family, given: Mapping[str, object]) -> None:
    for option in family.refused:
        if option in given:
            wanted = " and ".join(family.geometry.options[:2])
            raise FamilyError("follows from the picture's size", where=f"{name}, option {option}", wanted=wanted)
    known = (*_LENGTHS, *_SWITCHES, *family.geometry.options, *(key for key, _ in family.constants))
    # a size of a picture that the family does not ask for is refused only where it is given
    check_options(given, (*known, "vision_size", "num_frames"), name)
    for switch in _SWITCHES:
        if not isinstance(given.get(switch, False), bool):
            raise FamilyError("is no boolean", where=f"{name}, option {switch}", found=repr(given[switch])[:80])
    packaging = _packaging(family, given)
    if packaging not in family.packagings:
        raise FamilyError("can only be packaged in two", where=f"family {name}", hint="Set kv_offload.")
    batching = Batching.CONTINUOUS if given.get("continuous_batching") else Batching.PLAIN
    if batching not in family.batchings:
        raise FamilyError("cannot be batched continuously", where=f"family {name}")


def _packaging(family: Family, given: Mapping[str, object]) -> Packaging:
    return Packaging.DUAL if given.get("kv_offload") or not family.vision else Packaging.SINGLE


@dataclass(frozen=True)
class _Builder:
    family: Family
    given: Mapping[str, object]

    def build(self) -> dict[str, list[Entry]]:
        family, batch = self.family, size(self.given, "batch_size", 1) or 1
        prefill, ctx = self._lengths()
        measured = [{**dict(self._constants()), **one} for one in family.geometry.measure(self.given, batch)]
        visions = [self._pick(family.vision, {**one, "seq_len": prefill, "ctx_len": ctx}) for one in measured]
        language = self._language(measured, prefill, ctx, batch)
        if _packaging(family, self.given) is Packaging.SINGLE:
            return {"lang": self._single(visions, language)}
        lists = {"vision": [Entry(SpecRole.VISION, one, "Vision") for one in visions]} if family.vision else {}
        return {**lists, "lang": language}

    def _lengths(self) -> tuple[int, int]:
        prefill = size(self.given, "prefill_seq_len", self.family.lengths[0]) or 1
        ctx = size(self.given, "ctx_len", self.family.lengths[1]) or 1
        chunked = self.given.get("enable_chunking")
        if self.family.whole_context and self.given.get("prefill_only") and not chunked:
            ctx = prefill
        if prefill > ctx:
            raise FamilyError("is longer than the context", where="prefill_seq_len", found=prefill, wanted=f"≤ {ctx}")
        longest = self.family.longest
        if longest is not None and ctx > longest:
            raise FamilyError("is longer than the model's positions", where="ctx_len", found=ctx, wanted=f"≤ {longest}")
        return prefill, ctx

    def _constants(self) -> list[tuple[str, int]]:
        return [(name, size(self.given, name, default) or default) for name, default in self.family.constants]

    def _language(self, measured: list[Symbols], prefill: int, ctx: int, batch: int) -> list[Entry]:
        extra = self._extra(measured, prefill, ctx, batch)
        first, second = self._batches(batch)
        lists = [sizes(name, self.given.get(name)) for name in ("comp_ctx_lengths_prefill", "comp_ctx_lengths_decode")]
        if any(lists) and not all(lists):
            raise FamilyError("go together", where="comp_ctx_lengths_prefill and comp_ctx_lengths_decode")
        phases = ((SpecRole.PREFILL, prefill, first, lists[0]), (SpecRole.DECODE, 1, second, lists[1]))
        return [
            Entry(role, {**extra, **batches, "seq_len": seq, **length})
            for role, seq, batches, lengths in phases
            for length in self._each(lengths, ctx)
        ]

    def _each(self, lengths: tuple[int, ...] | None, ctx: int) -> list[Symbols]:
        clipped = None if lengths is None else dict.fromkeys(min(length, ctx) for length in lengths)
        return [{}] if clipped is None else [{"comp_ctx_lengths": length} for length in clipped]

    def _extra(self, measured: list[Symbols], prefill: int, ctx: int, batch: int) -> Symbols:
        known = {**measured[-1], "chunk_length": prefill, "chunk_ctx_len": min(ctx, CHUNK)}
        known["vision_batch_size"] = batch
        for name in ("vision_size", "num_image_tokens"):
            tokens = [one.get("tokens", one.get(name, 0)) for one in measured if name in one]
            if tokens:  # every picture must fit, so the language side is compiled for the largest
                known[name] = max(tokens)
        if "vision_size" in known:
            known["vision_size"] = size(self.given, "vision_size", known["vision_size"]) or 1
        shown = known.get("vision_size", known.get("num_image_tokens", 0))
        if self.family.vision and shown >= ctx:
            raise FamilyError("does not fit the context", where="vision_size", found=shown, wanted=f"< {ctx}")
        return {**self._pick(self.family.language, known), "ctx_len": ctx}

    def _batches(self, batch: int) -> tuple[Symbols, Symbols]:
        full, cache = size(self.given, "full_batch_size"), size(self.given, "kv_cache_batch_size")
        if not self.given.get("continuous_batching"):
            if full is not None:
                raise FamilyError("needs continuous batching", where="full_batch_size", found=full)
            plain = {"batch_size": cache or batch}
            return plain, plain
        if full is None:
            raise FamilyError("must be given with continuous batching", where="full_batch_size")
        if cache is not None and cache < full:
            raise FamilyError("has too few rows", where="kv_cache_batch_size", found=cache, wanted=f"≥ {full}")
        rows = {"full_batch_size": cache or full}
        return {**rows, "batch_size": 1, "full_batch_exec_size": full}, {**rows, "batch_size": full}

    def _single(self, visions: list[Symbols], language: list[Entry]) -> list[Entry]:
        pictures: list[Symbols] = visions if self.family.single is Single.MERGED else [{}]
        return [
            replace(entry, symbols={**picture, **self._without(entry.symbols)})
            for entry in language
            for picture in pictures
        ]

    def _without(self, symbols: Symbols) -> Symbols:
        return {name: number for name, number in symbols.items() if name not in self.family.dropped}

    @staticmethod
    def _pick(names: tuple[str, ...], known: Mapping[str, int]) -> Symbols:
        return {name: known[name] for name in names}
