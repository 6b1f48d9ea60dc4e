"""Kinds of damage to a sound manifest, as a table: what is done to it, and the item that the refusal must name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from .sound_pairs import Entry, Pair

Damaged = tuple[str, str]  # the file's text, and what the message must hold
Damage = Callable[[Pair], Iterator[Damaged]]


def text_of(entries: list[Any]) -> str:
    """The file that holds these entries."""
    return json.dumps({"specializations": entries})


def each_value(value: Any) -> Damage:
    """One symbol of one entry, each in turn, holds ``value``."""

    def damage(pair: Pair) -> Iterator[Damaged]:
        for index, entry in enumerate(pair.entries):
            for symbol in entry["symbols"]:
                entries = pair.manifest()
                entries[index]["symbols"][symbol] = value
                yield text_of(entries), symbol

    return damage


def one_value(field: str, which: int, value: Callable[[int], int]) -> Damage:
    """The symbol that ``pair.<field>`` names changes in one entry; nothing where the pair has no such symbol."""

    def damage(pair: Pair) -> Iterator[Damaged]:
        symbol = getattr(pair, field)
        if symbol:
            entries = pair.manifest()
            entries[which]["symbols"][symbol] = str(value(int(entries[which]["symbols"][symbol])))
            yield text_of(entries), symbol

    return damage


def renamed_symbol(rename: Callable[[str], str]) -> Damage:
    """One symbol of one entry has another name."""

    def damage(pair: Pair) -> Iterator[Damaged]:
        for index, entry in enumerate(pair.entries):
            for symbol in entry["symbols"]:
                if symbol == "full_batch_exec_size" or rename(symbol) == symbol:
                    continue
                entries = pair.manifest()
                symbols = entries[index]["symbols"]
                symbols[rename(symbol)] = symbols.pop(symbol)
                yield text_of(entries), symbol

    return damage


def zero(pair: Pair) -> Iterator[Damaged]:
    """0 is allowed for the past of a prefill alone."""
    for index, entry in enumerate(pair.entries):
        for symbol in entry["symbols"]:
            if symbol == pair.past and entry["name"] == "Prefill":
                continue
            entries = pair.manifest()
            entries[index]["symbols"][symbol] = "0"
            yield text_of(entries), symbol


def dropped_symbol(pair: Pair) -> Iterator[Damaged]:
    """A symbol of the graph is left out."""
    for index, entry in enumerate(pair.entries):
        for symbol in entry["symbols"]:
            if symbol != "full_batch_exec_size":
                entries = pair.manifest()
                del entries[index]["symbols"][symbol]
                yield text_of(entries), symbol


def added_symbol(pair: Pair) -> Iterator[Damaged]:
    """A symbol that the graph does not have."""
    for index in range(len(pair.entries)):
        entries = pair.manifest()
        entries[index]["symbols"]["sequence"] = "4"
        yield text_of(entries), "'sequence'"


def swapped_names(pair: Pair) -> Iterator[Damaged]:
    """Prefill and decode exchange their names."""
    names = [entry["name"] for entry in pair.entries]
    if "Prefill" in names:
        entries = pair.manifest()
        entries[0]["name"], entries[1]["name"] = entries[1]["name"], entries[0]["name"]
        yield text_of(entries), entries[1]["name"] if not pair.past else entries[0]["name"]


def copied(name: str) -> Damage:
    """An entry stands twice."""

    def damage(pair: Pair) -> Iterator[Damaged]:
        entries = pair.manifest()
        last = entries[-1]
        entries.append({"name": name or last["name"], "symbols": dict(last["symbols"])})
        yield text_of(entries), name or last["name"]

    return damage


def batch_of_one_entry(pair: Pair) -> Iterator[Damaged]:
    """One entry of a set that hands states over has another batch."""
    if (pair.past or pair.ctx) and not pair.cache_batch:
        for index in range(len(pair.entries)):
            entries = pair.manifest()
            entries[index]["symbols"][pair.batch] = "3"
            if pair.twin:
                entries[index]["symbols"][pair.twin] = "3"
            yield text_of(entries), pair.batch


def numbered_gap(pair: Pair) -> Iterator[Damaged]:
    """A numbered entry is missing between others."""
    names = [entry["name"] for entry in pair.entries]
    if any(name.endswith("_1") for name in names):
        entries = pair.manifest()
        entries[-1]["name"] = entries[-1]["name"].replace("_1", "_2")
        yield text_of(entries), entries[-1]["name"].replace("_2", "_1")


def whole(make: Callable[[str], str], wanted: str) -> Damage:
    """The text of the file is changed as such."""

    def damage(pair: Pair) -> Iterator[Damaged]:
        yield make(text_of(pair.manifest())), wanted

    return damage


def reshaped(make: Callable[[list[Entry]], Any], wanted: str) -> Damage:
    """The data of the file have another form."""

    def damage(pair: Pair) -> Iterator[Damaged]:
        yield json.dumps(make(pair.manifest())), wanted

    return damage


def _first(entries: list[Entry], **fields: Any) -> dict[str, Any]:
    return {"specializations": [{**entries[0], **fields}, *entries[1:]]}


def _without(entries: list[Entry], field: str) -> dict[str, Any]:
    first = {key: value for key, value in entries[0].items() if key != field}
    return {"specializations": [first, *entries[1:]]}


def bare(token: str) -> Damage:
    """One symbol of one entry, each in turn, holds a number that JSON has not, or not so large."""

    def damage(pair: Pair) -> Iterator[Damaged]:
        for index, entry in enumerate(pair.entries):
            for symbol in entry["symbols"]:
                entries = pair.manifest()
                entries[index]["symbols"][symbol] = "@"
                yield text_of(entries).replace('"@"', token), symbol

    return damage


def emptied_symbols(pair: Pair) -> Iterator[Damaged]:
    """An entry binds nothing: the entry is named, or each symbol that it lacks."""
    for index, entry in enumerate(pair.entries):
        entries = pair.manifest()
        entries[index]["symbols"] = {}
        yield text_of(entries), entry["name"]


def first_without_symbols(pair: Pair) -> Iterator[Damaged]:
    """The first entry has a name alone."""
    yield json.dumps(_without(pair.manifest(), "symbols")), pair.manifest()[0]["name"]


def one_name(pair: Pair) -> Iterator[Damaged]:
    """Entries of other sizes bear one name, which no reader may take for two."""
    entries = pair.manifest()
    if len(entries) > 1:
        for entry in entries:
            entry["name"] = "Same"
        yield text_of(entries), "'Same'"


DAMAGES: dict[str, Damage] = {
    "a symbol dropped": dropped_symbol,
    "a symbol added": added_symbol,
    "a symbol misspelt": renamed_symbol(lambda name: name[:-1] + name[-1] * 2),
    "a symbol in capitals": renamed_symbol(str.upper),
    "a symbol with a space": renamed_symbol(lambda name: f"{name} "),
    "zero": zero,
    "negative": each_value("-1"),
    "negative number": each_value(-1),
    "a word": each_value("many"),
    "empty": each_value(""),
    "a fraction": each_value("1.5"),
    "a fraction as number": each_value(1.5),
    "1.0": each_value(1.0),
    "true": each_value(True),
    "null": each_value(None),
    "a list": each_value([1]),
    "an object": each_value({"min": 1}),
    "a leading zero": each_value("01"),
    "a leading space": each_value(" 1"),
    "an exponent": each_value("1e3"),
    "a plus": each_value("+1"),
    "digits of another script": each_value("\u0663"),
    "an underscore": each_value("1_0"),
    "hexadecimal": each_value("0x10"),
    "huge": each_value(str(10**9)),
    "2**31": each_value(str(2**31)),
    "10**30": each_value(str(10**30)),
    "a thousand digits": each_value("9" * 1000),
    "more tokens than the context": one_value("seq", 0, lambda size: 1000),
    "another context in one entry": one_value("ctx", 0, lambda size: size * 2),
    "a context below the prefill": one_value("ctx", 0, lambda size: 4),
    "another past in a decode": one_value("past", 1, lambda size: size - 1),
    "a past beyond the context": one_value("past", 1, lambda size: size + 1),
    "a total that is not past and new": one_value("total", 1, lambda size: size - 1),
    "a total too long": one_value("total", 0, lambda size: size + 1),
    "equal dimensions bound apart": one_value("twin", 0, lambda size: size + 1),
    "fewer cache rows than batch rows": one_value("cache_batch", 1, lambda size: 1),
    "another number of cache rows": one_value("cache_batch", 0, lambda size: size + 1),
    "more tokens than logits in a decode": one_value("seq", 1, lambda size: size + 1),
    "another batch in one entry": batch_of_one_entry,
    "names of prefill and decode swapped": swapped_names,
    "an entry twice": copied(""),
    "an entry twice under another name": copied("Copy"),
    "a numbered name missing": numbered_gap,
    "no JSON": whole(lambda text: text[:-1], "JSON"),
    "NaN": whole(lambda text: text.replace('"8"', "NaN", 1), "NaN"),
    "Infinity": whole(lambda text: text.replace('"8"', "Infinity", 1), "Infinity"),
    "a symbol twice": whole(lambda text: text.replace('"symbols": {', '"symbols": {"a": "1", "a": "1", ', 1), "'a'"),
    "a name twice in one entry": whole(lambda text: text.replace('{"name"', '{"name": "x", "name"', 1), "'name'"),
    "nesting of 10 MB": whole(lambda text: "[" * 5_000_000 + "]" * 5_000_000, "nest"),
    "nesting inside a value": whole(lambda text: text.replace('"8"', "[" * 5_000_000 + "]" * 5_000_000, 1), "nest"),
    "20 MB of text": whole(lambda text: text.replace('"8"', '"' + "1" * 20_000_000 + '"', 1), "large"),
    "an empty file": whole(lambda text: "", "JSON"),
    "a list at the top": reshaped(lambda entries: entries, "specializations"),
    "entries as an object": reshaped(lambda entries: {"specializations": {"0": entries[0]}}, "specializations"),
    "another key at the top": reshaped(lambda entries: {"specialisations": entries}, "specializations"),
    "one key more at the top": reshaped(lambda entries: {"specializations": entries, "more": 1}, "more"),
    "no entries": reshaped(lambda entries: {"specializations": []}, "no specializations"),
    "an entry that is a text": reshaped(lambda entries: {"specializations": ["Prefill", *entries]}, "entry 0"),
    "an entry that is null": reshaped(lambda entries: {"specializations": [None, *entries]}, "entry 0"),
    "symbols as a list": reshaped(lambda entries: _first(entries, symbols=["batch_size"]), "symbols"),
    "symbols as a text": reshaped(lambda entries: _first(entries, symbols="batch_size=1"), "symbols"),
    "no symbols": first_without_symbols,
    "no name": reshaped(lambda entries: _without(entries, "name"), "entry 0"),
    "an empty name": reshaped(lambda entries: _first(entries, name=""), "name"),
    "a name of blanks": reshaped(lambda entries: _first(entries, name="  "), "name"),
    "a name of a blank that is no space": reshaped(lambda entries: _first(entries, name="\u00a0"), "name"),
    "NaN in a symbol": bare("NaN"),
    "minus infinity in a symbol": bare("-Infinity"),
    "a number beyond a double": bare("1e999"),
    "a number of 5,000 digits": bare("9" * 5000),
    "a negative number of 5,000 digits": bare("-" + "9" * 5000),
    "5,000 digits in text": each_value("9" * 5000),
    "no symbols in an entry": emptied_symbols,
    "one name for all": one_name,
    "a name that is a number": reshaped(lambda entries: _first(entries, name=7), "name"),
    "a name with a control character": reshaped(lambda entries: _first(entries, name="Pre\x00fill"), "name"),
    "an extra key": reshaped(lambda entries: _first(entries, role="prefill"), "role"),
}
