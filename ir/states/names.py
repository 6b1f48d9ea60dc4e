"""What a state's name tells: the layer's number and the kind. Names confirm what the structure found, never find."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx_ir as ir

from .base import State

_NUMBER = re.compile(
    r"(?:^|[._/])(?:layers?|h|blocks?|past\w*|present\w*|\w*?(?:key|value|kv|k_pe|state)s?\w*?)[._]?(\d+)"
)
_ANY_NUMBER = re.compile(r"\d+")
_KINDS: tuple[tuple[str, str], ...] = (
    ("cumulative_length", "length"),
    ("compressed_kv", "compressed_kv"),
    ("k_pe", "k_pe"),
    ("conv", "conv"),
    ("recurrent", "recurrent"),
    ("ssm", "recurrent"),
    ("cross", "cross"),
    ("encoder", "cross"),
    ("key", "key"),
    ("value", "value"),
)
"""Part of a name → kind; the first that fits."""


def layer_of(name: str) -> int | None:
    """The layer that ``name`` tells: the number after ``layers.``, ``past_key.`` and the like, else its only number.

    >>> layer_of("past_key_values.7.key"), layer_of("past_key_self.3"), layer_of("cache")
    (7, 3, None)
    """
    match = _NUMBER.search(name)
    if match:
        return int(match.group(1))
    numbers = _ANY_NUMBER.findall(name)
    return int(numbers[0]) if len(numbers) == 1 and len(numbers[0]) < 6 else None


def kind_of(name: str) -> str | None:
    """The kind that ``name`` tells, or None.

    >>> kind_of("input.past_key_values.layers.0.values"), kind_of("past.0.conv")
    ('value', 'conv')
    """
    lowered = name.lower()
    tail = lowered.replace("past_key_values", "past").replace("past_key_value", "past")
    return next((kind for part, kind in _KINDS if part in tail), None)


def crossed(states: Sequence[State]) -> list[State]:
    """States whose output is named after another state's input: ``past.0.key`` leaves as ``present.1.key``.

    Structure pairs them as they are computed; a host that goes by names carries each into the other's place.
    """
    numbered = {id(state): (_number(state.input), _number(state.output)) for state in states}
    inputs = [given for given, _ in numbered.values()]
    return [s for s in states if (ends := numbered[id(s)])[0] and ends[1] and ends[0] != ends[1] and ends[1] in inputs]


def _number(value: ir.Value | None) -> tuple[int, str] | None:
    """Layer and kind, where a name tells both."""
    name = (value.name or "") if value is not None else ""
    layer, kind = layer_of(name), kind_of(name)
    return (layer, kind) if layer is not None and kind is not None else None


def label(states: list[State]) -> None:
    """Fills in ``layer`` where names tell none: the n-th state of a kind belongs to layer n."""
    counts: dict[str, int] = {}
    for state in states:
        index = counts.get(state.kind, 0)
        counts[state.kind] = index + 1
        if state.layer is None:
            state.layer = index
