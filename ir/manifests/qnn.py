"""Shapes and precisions for the QNN converter (``custom_io_config.yaml``), and the names of its graphs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from ..core.specialization import ManifestInvalid, Specialization, SpecRole
from .base import Command, GraphInterface, Port
from .strict import load_yaml

CONFIG = "custom_io_config.yaml"
EXTENSIONS = "htp_backend_extensions.json"
INPUTS, OUTPUTS, PARAMETERS = "Input Tensor Configuration", "Output Tensor Configuration", "Desired Model Parameters"
_TYPES = {"mxint8": "uint8"}  # what the converter calls a precision
_SHAPE = re.compile(r"\(\s*\d{1,10}(?:\s*,\s*\d{1,10})*\s*,?\s*\)|\(\s*\)")


@dataclass(frozen=True)
class Qnn:
    """See :class:`~.base.Target`."""

    name: str = "qnn"
    tolerated: frozenset[str] = frozenset({"full_batch_exec_size"})
    file: str = CONFIG

    def matches(self, data: object) -> bool:
        """An object with the converter's list of inputs."""
        return isinstance(data, dict) and INPUTS in data

    def write(self, interface: GraphInterface) -> dict[str, str]:
        """The converter's configuration, each input with its shape in every specialization, and the graphs' names."""
        import yaml

        bindings = [item.binding for item in interface.specializations]
        inputs = [
            self._entry(interface, port, Shape=", ".join(_tuple(port.sizes(binding)) for binding in bindings))
            for port in interface.inputs
        ]
        content = {INPUTS: inputs, OUTPUTS: [self._entry(interface, port) for port in interface.outputs]}
        names = {"graphs": [{"graph_names": [item.name for item in interface.specializations]}]}
        return {
            interface.file(CONFIG): yaml.safe_dump(content, sort_keys=False, width=1 << 20),
            interface.file(EXTENSIONS): json.dumps(names, indent=4) + "\n",
        }

    def _entry(self, interface: GraphInterface, port: Port, **more: str) -> dict[str, Any]:
        precision = interface.custom_io.get(port.name, port.dtype)
        return {"Name": port.name, PARAMETERS: {"DataType": _TYPES.get(precision, precision), **more}}

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """One specialization a shape, its symbols ``input[axis]``; ManifestInvalid where inputs have unlike counts."""
        data = load_yaml(text, where=where)
        fields = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        entries = fields.get(INPUTS)
        if set(fields) != {INPUTS, OUTPUTS} or not isinstance(entries, list):
            raise ManifestInvalid("is no configuration", where=where, wanted=f"{INPUTS!r} and {OUTPUTS!r}")
        shapes = dict(_shapes(entry, where) for entry in cast("list[Any]", entries))
        counts = {len(found) for found in shapes.values()}
        if len(counts) > 1:
            raise ManifestInvalid("inputs have unlike numbers of shapes", where=where, found=sorted(counts))
        return [_read(shapes, index) for index in range(counts.pop() if counts else 0)]

    def commands(self, interface: GraphInterface) -> list[Command]:
        """The converter, then the generator of the context binary."""
        model = f"{interface.graph}.onnx"
        return [
            Command("qnn-onnx-converter", (f"--input_network={model}", f"--io_config={interface.file(CONFIG)}")),
            Command("qnn-context-binary-generator", (f"--config_file={interface.file(EXTENSIONS)}",)),
        ]


def _tuple(shape: Iterable[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _shapes(entry: Any, where: str) -> tuple[str, list[list[int]]]:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    name, parameters = fields.get("Name"), fields.get(PARAMETERS)
    text = cast("dict[str, Any]", parameters).get("Shape") if isinstance(parameters, dict) else None
    if not isinstance(name, str) or not isinstance(text, str):
        raise ManifestInvalid("is no input with shapes", where=where, found=repr(fields)[:80])
    found = _SHAPE.findall(text)
    if ", ".join(found) != text:
        raise ManifestInvalid("is no list of shapes", where=f"{where}, input {name!r}", found=text[:80])
    return name, [[int(size) for size in re.findall(r"\d+", shape)] for shape in found]


def _read(shapes: dict[str, list[list[int]]], index: int) -> Specialization:
    binding = {f"{name}[{axis}]": size for name, found in shapes.items() for axis, size in enumerate(found[index])}
    return Specialization(name=f"Graph_{index}", role=SpecRole.OTHER, binding=binding)


TARGET = Qnn()
