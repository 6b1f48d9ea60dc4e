"""The table of carrying operators equals what the runtimes' schemas say."""

from __future__ import annotations

from collections.abc import Iterator

import onnx.defs
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from onnx_llm_passes.ir.states.ports import CACHE_ATTRIBUTES, GROWING_AXIS, KEY_VALUE_INPUTS, PORTS, RECURRENT, Port

CARRIES = ("past", "cache", "state")
NOT_HERE = {"TensorScatter", "Scan"}  # a scatter, and a loop: found in other ways
PLAIN_NUMBERS = ("length", "seqlens")


def present_names(past: str) -> Iterator[str]:
    yield past.replace("past", "present")
    yield f"{past}_out"
    yield f"new_{past}"
    yield past.replace("initial", "final")


def derive() -> dict[tuple[str, str], tuple[Port, ...]]:
    newest: dict[tuple[str, str], tuple[int, tuple[Port, ...]]] = {}
    for schema in (*ort_state.get_all_operator_schema(), *onnx.defs.get_all_schemas_with_history()):
        key = (schema.domain, schema.name)
        if schema.domain not in ("", "com.microsoft") or schema.name in NOT_HERE:
            continue
        outputs = [output.name for output in schema.outputs]
        ports = tuple(
            Port(index, outputs.index(present), "Optional" in str(schema.inputs[index].option))
            for index, past in enumerate(value.name for value in schema.inputs)
            if any(word in past for word in CARRIES) and not any(word in past for word in PLAIN_NUMBERS)
            for present in present_names(past)
            if present != past and present in outputs
        )
        if ports and (key not in newest or schema.since_version >= newest[key][0]):
            newest[key] = (schema.since_version, ports)
    return {key: ports for key, (_, ports) in sorted(newest.items())}


def test_table_equals_the_schemas() -> None:
    assert derive() == PORTS


def test_side_tables_speak_of_operators_in_the_table() -> None:
    names = {name for _, name in PORTS}
    assert names >= RECURRENT
    assert PORTS.keys() >= GROWING_AXIS.keys() | CACHE_ATTRIBUTES.keys() | KEY_VALUE_INPUTS.keys()
