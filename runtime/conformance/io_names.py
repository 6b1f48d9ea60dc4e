"""Writes the input and output names of one family of exporters: states with their twins, prefixes, extra inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...ir.core.errors import UnknownNameError, UsageError

RETAINED = "_RetainedState"
_STATES = ("past_key", "past_value", "compressed_kv", "k_pe", "conv_state", "recurrent_state")
_STATE = re.compile(
    rf"(?P<name>(?:{'|'.join(_STATES)})(?:_self|_cross)?\.\d{{1,9}})(?P<prefix>_[A-Za-z0-9]+)??(?P<twin>{RETAINED})?"
)
EXTRAS: dict[str, tuple[str, ...]] = {  # variant of an export -> its inputs after the states
    "plain": (),
    "continuous_batching": ("batch_index",),
    "target": ("num_logits_to_keep",),
    "context_lengths": ("comp_ctx_lengths",),
    "adapters": ("lora_ids",),
}
VARIANTS: dict[str, tuple[str, ...]] = {  # what people call them -> variants, in the order of their inputs
    **{name: (name,) for name in EXTRAS},
    "cb": ("continuous_batching",),
    "ccl": ("context_lengths",),
    "tlm": ("target",),
    "spd": ("target",),
    "lora": ("adapters",),
}


def check_prefix(prefix: object) -> str | None:
    """``prefix`` where it can stand in the names of states: letters and digits, or None for none; else UsageError."""
    if prefix is None or (isinstance(prefix, str) and prefix.isascii() and prefix.isalnum()):
        return prefix
    raise UsageError("is no prefix", where="state prefix", found=repr(prefix)[:80], wanted="letters and digits")


def prefixed(names: Sequence[str], prefix: str | None) -> list[str]:
    """``names`` with the prefix in those of states (``past_key.0`` → ``past_key.0_P``), twins alike; others stay."""
    check_prefix(prefix)
    return [_with_prefix(name, prefix) for name in names]


def prefixed_sides(sides: Mapping[str, Sequence[str]], prefix: str | None) -> dict[str, list[str]]:
    """The same for the two programs of a picture-and-text model: only the language side carries its states."""
    return {side: prefixed(names, prefix if side == "lang" else None) for side, names in sides.items()}


def aligned_inputs(inputs: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """``inputs`` with the prefixes that their twins among ``outputs`` have; UsageError where two twins disagree."""
    found: dict[str, str] = {}
    for output in outputs:
        match = _STATE.fullmatch(output)
        if match and match["twin"]:
            name = match["name"] + (match["prefix"] or "")
            if found.setdefault(match["name"], name) != name:
                raise UsageError("two outputs are twins of one input", where=match["name"], found=output)
    return [found.get(name, name) for name in inputs]


def exported_names(layers: int, variants: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The input and the output names of an exported causal model with ``layers`` layers of keys and values."""
    known = [part for variant in variants for part in _variant(variant)]
    extras = [name for variant, names in EXTRAS.items() if variant in known for name in names]
    states = [f"past_{kind}.{layer}" for layer in range(layers) for kind in ("key", "value")]
    return ["input_ids", "position_ids", *states, *extras], ["logits", *(name + RETAINED for name in states)]


def _variant(name: str) -> tuple[str, ...]:
    found = VARIANTS.get(name.strip().lower())
    if found is None:
        raise UnknownNameError("variant of an export", name, VARIANTS)
    return found


def _with_prefix(name: str, prefix: str | None) -> str:
    match = _STATE.fullmatch(name)
    if match is None or match["prefix"] or prefix is None:
        return name
    return f"{match['name']}_{prefix}{match['twin'] or ''}"
