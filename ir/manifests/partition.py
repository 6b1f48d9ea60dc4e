"""A program is spread over devices: by a template that slices tensors, or as a pipeline of stages with their nodes."""

from __future__ import annotations

from typing import Any

from ..core.errors import UsageError

PARTITION = "partition.json"
MAX_DEVICES = 1024


def tensor_slices(devices: int, cores: int) -> dict[str, Any]:
    """One partition over all devices, each tensor sliced among them; UsageError for counts that are none."""
    _check(devices=devices, cores=cores)
    return {
        "connections": [connection(range(devices))],
        "partitions": [{"name": "Partition0", "devices": _devices(range(devices), cores)}],
    }


def connection(devices: range) -> dict[str, Any]:
    """Devices that reach each other directly."""
    return {"devices": list(devices), "type": "p2p"}


def pipeline(devices: int, cores: int, stages: list[list[str]]) -> dict[str, Any]:
    """One partition a stage, with its nodes, over an equal share of the devices; UsageError where they do not share."""
    _check(devices=devices, cores=cores, stages=len(stages))
    if devices % len(stages):
        raise UsageError("do not share out evenly", where="devices", found=f"{devices} over {len(stages)} stages")
    share = devices // len(stages)
    partitions = [
        {
            "name": f"Partition{stage}",
            "devices": _devices(range(stage * share, (stage + 1) * share), cores),
            "nodeList": nodes,
        }
        for stage, nodes in enumerate(stages)
    ]
    return {"connections": [connection(range(devices))], "partitions": partitions}


def _devices(devices: range, cores: int) -> list[dict[str, int]]:
    return [{"deviceId": device, "numCores": cores} for device in devices]


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if not 1 <= count <= MAX_DEVICES:
            raise UsageError("is out of range", where=name, found=count, wanted=f"1 to {MAX_DEVICES}")
