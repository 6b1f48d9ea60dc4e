"""Answers the cases that ask for names, conversions, files and layers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ...ir.core.errors import OnnxPassesError, UsageError
from ...ir.manifests.custom_io_yaml import PRECISIONS, write_custom_io
from ...ir.manifests.layers import layer_bounds, layer_of
from ...ir.manifests.partition import tensor_slices
from ...ir.manifests.qaic import compiled_sizes
from ...ir.manifests.strict import dump_json, read_text
from ...ir.specialize.families import automatic, settled
from ...ir.specialize.naming import infer_name, to_flat, to_named
from .cases import REFUSALS, Answer, Case, numbers
from .io_names import aligned_inputs, check_prefix, exported_names, prefixed, prefixed_sides


def ask_name(case: Case) -> Answer:
    """The name of one flat entry."""
    return infer_name(case["spec"], case.get("index", 0), case.get("module_name")), case.get("name")


def ask_conversion(case: Case) -> Answer:
    """Flat to named; the flat form of the answer is held against the case too."""
    named = to_named(case["flat"], case.get("module_name"))
    again = to_named(to_flat(named))
    if [entry["symbols"] for entry in again] != [entry["symbols"] for entry in named]:
        raise UsageError("the flat form does not read back", where="conversion")
    return named, case.get("named")


def ask_chosen_lengths(case: Case) -> Answer:
    """Context lengths chosen for a context."""
    found = automatic(numbers(case["ctx_len"]), numbers(case["prefill_seq_len"]))
    return [found.prefill, found.decode, found.ctx], case.get("out")


def ask_given_lengths(case: Case) -> Answer:
    """Context lengths given: moved to what a compiler takes; with chunks, a phase may stay without."""
    prefill, decode, ctx, prompt = numbers(case["args"][:4])
    chunked = any(case["args"][4:]) or case.get("enable_chunking") is True
    found = settled(prefill or (), decode or (), ctx, prompt, chunked=chunked)
    return [found.prefill, found.decode or decode, found.ctx], case.get("out")


def ask_bounds(case: Case) -> Answer:
    """How layers are spread over stages."""
    return layer_bounds(case["layers"], case["partitions"]), case.get("bounds")


def ask_layer(case: Case) -> Answer:
    """The layer that a node's name tells."""
    return layer_of(case["node"]), case.get("layer")


def ask_slices(case: Case) -> Answer:
    """The template that slices tensors over devices: the counts stand under any of the names people use."""
    devices, cores = (_first(case, names) for names in (_DEVICES, _CORES))
    return tensor_slices(devices, cores), next(filter(_is_template, case.values()))


_DEVICES = ("devices", "num_devices", "mdp_ts_num_devices")
_CORES = ("cores", "num_cores", "aic_num_cores")


def is_slices(case: Case) -> bool:
    """Whether a case is one for :func:`ask_slices`."""
    return any(name in case for name in _DEVICES) and any(map(_is_template, case.values()))


def _is_template(value: object) -> bool:
    return isinstance(value, dict) and "partitions" in value


def _first(case: Case, names: tuple[str, ...]) -> int:
    return next(case[name] for name in names if name in case)


def ask_prefix(case: Case) -> Answer:
    """A prefix in the names of states, of one list or of the two sides of a model."""
    given, prefix = case["apply"], case["prefix"]
    if isinstance(given, Mapping):
        return prefixed_sides(cast("Mapping[str, list[str]]", given), prefix), case.get("out")
    return prefixed(given, prefix), case.get("out")


def ask_alignment(case: Case) -> Answer:
    """Inputs named as their twins among the outputs."""
    return aligned_inputs(case["align_inputs"], case["outputs"]), case.get("out")


def ask_prefix_check(case: Case) -> Answer:
    """Prefixes that are allowed, or must all be refused."""
    passed = [prefix for prefix in case["validate"] if _allowed(prefix)]
    return (passed, REFUSALS) if "raises" in case else (passed == case["validate"], case.get("ok"))


def _allowed(prefix: object) -> bool:
    try:
        check_prefix(prefix)
    except OnnxPassesError:
        return False
    return True


def ask_unprefixed(case: Case) -> Answer:
    """Names that a prefix must leave alone."""
    return prefixed(case["not_prefixed"], "P"), case["not_prefixed"]


def ask_compiled(case: Case) -> Answer:
    """What a compiled program's manifest says it was compiled for."""
    return compiled_sizes(json.dumps({"specializations": case["specializations"]}), where="the case"), case.get("out")


def ask_missing(case: Case) -> Answer:
    """A manifest that is not there."""
    with tempfile.TemporaryDirectory() as folder:
        return compiled_sizes(read_text(Path(folder) / "specializations.json"), where="the case"), case.get("out")


def ask_exported(case: Case) -> Answer:
    """The input and output names of an exported model with as many layers as the case names."""
    layers = sum(name.startswith("past_key.") for name in case["inputs"])
    variants = str(case["variant"]).replace(",", "+").split("+")
    inputs, outputs = exported_names(layers, variants)
    return {"inputs": inputs, "outputs": outputs}, {"inputs": case["inputs"], "outputs": case["outputs"]}


def is_manifest_bytes(case: Case) -> bool:
    """Whether a case holds a manifest's text and what it was written from."""
    return _json_text(case) is not None and _source(case) is not None


def ask_manifest_bytes(case: Case) -> Answer:
    """The text of a manifest, byte for byte."""
    source = _source(case)
    listed = isinstance(source, list)
    content: object = {"specializations": to_named(cast("list[object]", source))} if listed else source
    return dump_json(content), _json_text(case)


def _json_text(case: Case) -> str | None:
    found = next((v for v in case.values() if isinstance(v, str) and v.lstrip().startswith(("{", "["))), None)
    return found if found is not None and ('"specializations"' in found or _holds(found, _source(case))) else None


def _holds(text: str, content: object) -> bool:
    try:
        return json.loads(text) == content
    except (ValueError, RecursionError):
        return False


def _source(case: Case) -> object:
    return next(filter(_is_structure, case.values()), None)


def _is_structure(value: object) -> bool:
    return isinstance(value, dict | list)


def is_custom_io(case: Case) -> bool:
    """Whether a case holds a custom I/O file and what it was written from."""
    return _custom_io_text(case) is not None


def ask_custom_io(case: Case) -> Answer:
    """The text of a custom I/O file, byte for byte: from a mapping, or for the states of an exported model."""
    text = _custom_io_text(case) or ""
    given = next(filter(_are_precisions, case.values()), None)
    return write_custom_io(_states_of(case, text) if given is None else given), text


def is_custom_entries(case: Case) -> bool:
    """Whether a case holds the precisions of an exported model's states."""
    return any(map(_are_precisions, case.values()))


def ask_custom_entries(case: Case) -> Answer:
    """The precisions of an exported model's states, in order."""
    recorded: dict[str, str] = next(filter(_are_precisions, case.values()))
    return list(_states_of(case, "".join(f"IOName: {name}" for name in recorded)).items()), list(recorded.items())


def _are_precisions(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(precision in PRECISIONS for precision in cast("dict[str, Any]", value).values())


def _custom_io_text(case: Case) -> str | None:
    return next((v for v in case.values() if isinstance(v, str) and "IOName:" in v), None)


def _states_of(case: Case, text: str) -> dict[str, str]:
    """Each state with its twin; the precision is that of the caches unless the case asks for mxint8."""
    layers = next(
        (case[k] for k in ("layers", "num_layers", "n_layer") if k in case), text.count("IOName: past_key.") // 2
    )
    compressed = any(value is True for key, value in case.items() if "mxint8" in key)
    spelled = str(next((case[k] for k in ("dtype", "kv_dtype", "precision") if k in case), "float16")).split(".")[-1]
    precision = "mxint8" if compressed else {"float32": "float16"}.get(spelled, spelled)  # compilers convert to float16
    _, outputs = exported_names(layers)
    names = [part for twin in outputs[1:] for part in (twin.removesuffix("_RetainedState"), twin)]
    return dict.fromkeys(names, precision)
