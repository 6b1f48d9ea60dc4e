"""Modules' names, as PEFT and builders spell them, and the projections of a graph find each other one to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..layer.projections import Projection

KINDS: dict[str, tuple[str, ...]] = {  # kind -> the last part of a module's name (transformers 5, genai 0.18, GPT-J …)
    "q": ("q_proj", "query", "q_lin", "wq", "q"),
    "k": ("k_proj", "key", "k_lin", "wk", "k"),
    "v": ("v_proj", "value", "v_lin", "wv", "v"),
    "o": ("o_proj", "out_proj", "out_lin", "wo", "o"),
    "qkv": ("qkv_proj", "c_attn", "query_key_value", "Wqkv", "W_pack", "qkv"),
    "gate": ("gate_proj", "w1", "gate"),
    "up": ("up_proj", "w3", "fc1", "c_fc", "dense_h_to_4h", "fc_in", "up"),
    "down": ("down_proj", "w2", "fc2", "dense_4h_to_h", "fc_out", "down"),
    "gate_up": ("gate_up_proj", "gate_up"),
    "in": ("in_proj", "in"),
    "head": ("lm_head", "embed_out", "head"),
}
CROSS = frozenset(("encoder_attn", "cross_attn", "crossattention", "EncDecAttention"))
_OF_NAME = {name: kind for kind, names in KINDS.items() for name in names}
_BY_BLOCK = frozenset(("c_proj", "dense"))  # behind attention or feed-forward, as the name before them tells
CANONICAL = {
    **dict.fromkeys(("q", "k", "v", "o"), "self_attn."),
    "qkv": "self_attn.",
    **dict.fromkeys(("gate", "up", "down", "gate_up"), "mlp."),
}


def kind_of(module: str) -> str:
    """The kind of projection that a module's name tells; empty where it tells none."""
    parts = module.replace("/", ".").split(".")
    cross = "cross_" if CROSS.intersection(parts) else ""
    if parts[-1] in _BY_BLOCK:
        return cross + ("o" if any("att" in part for part in parts[:-1]) else "down")
    kind = _OF_NAME.get(parts[-1], "")
    return cross + kind if kind in ("q", "k", "v", "o") else kind


def layer_of(module: str) -> int | None:
    """The layer's number in a module's name: its first part of digits alone."""
    return next((int(part) for part in module.replace("/", ".").split(".") if part.isdecimal() and len(part) < 7), None)


def module_of(projection: Projection) -> str:
    """The name that transformers' Llama has for a projection."""
    kind = projection.kind.removeprefix("cross_")
    if projection.layer is None:
        return KINDS["head"][0]
    block = "encoder_attn." if kind != projection.kind else CANONICAL.get(kind, "")
    return f"model.layers.{projection.layer}.{block}{KINDS[kind][0]}"


def find_module(module: str, projections: Sequence[Projection]) -> tuple[Projection | None, str]:
    """The one projection that a module is, or None and why there is none."""
    kind, layer = kind_of(module), layer_of(module)
    at = [p for p in projections if p.layer == layer or (kind == "head" and p.layer is None)]
    if not at:
        return None, f"the graph has no layer {layer}" if layer is not None else "its name tells no layer"
    found = [p for p in at if kind and p.kind == kind] or [p for p in at if not p.is_part and _bears(p, module)]
    if len(found) > 1:
        found = [p for p in found if _bears(p, module)]
    if len(found) == 1:
        return found[0], ""
    there = ", ".join(dict.fromkeys(p.kind or str(p.node.name) for p in at))
    return None, f"none of its layer's projections ({there})" if kind else f"its name tells no projection ({there})"


def _bears(projection: Projection, module: str) -> bool:
    """Whether the product or its weight is named after the module: by its last two parts."""
    end = ".".join(module.replace("/", ".").split(".")[-2:])
    weight = projection.node.inputs[projection.weight]
    names = (projection.node.name, weight.name if weight is not None else None)
    return any(f".{end}." in f".{name.replace('/', '.')}." for name in names if name)


def unknown_targets(targets: Iterable[str]) -> list[str]:
    """Those of ``targets`` that no projection is ever called."""
    return [target for target in targets if not kind_of(target)]
