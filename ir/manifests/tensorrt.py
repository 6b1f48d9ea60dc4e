"""Optimization profiles of TensorRT give the shape of every input for each specialization, as JSON and as arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..core.specialization import ManifestInvalid, Specialization, SpecRole, read_size
from ..symbolic.dims import free_symbols
from .base import Command, GraphInterface, Port
from .strict import load_list

PROFILES = "profiles.json"
BOUNDS = ("min", "opt", "max")


@dataclass(frozen=True)
class TensorRT:
    """See :class:`~.base.Target`. One profile a specialization, in order; its least, best and largest shapes are one.

    What was proved of a specialization was proved of these shapes and no others, so the profile allows no others.
    """

    name: str = "tensorrt"
    tolerated: frozenset[str] = frozenset()
    file: str = PROFILES

    def matches(self, data: object) -> bool:
        """An object with ``profiles``."""
        return isinstance(data, dict) and "profiles" in data

    def write(self, interface: GraphInterface) -> dict[str, str]:
        """``profiles.json``: profiles, each input with ``min``, ``opt`` and ``max`` as Polygraphy names them."""
        profiles = [
            {"name": item.name, "inputs": {port.name: _bounds(port.sizes(item.binding)) for port in _open(interface)}}
            for item in interface.specializations
        ]
        return {interface.file(PROFILES): json.dumps({"profiles": profiles}, indent=2) + "\n"}

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """The profiles as specializations whose symbols are ``input[axis]``, for a file knows no symbols.

        ManifestInvalid where an input's bounds are not one shape, or the file is none.
        """
        profiles = load_list(text, "profiles", where=where)
        return [_read(profile, index, where) for index, profile in enumerate(profiles)]

    def commands(self, interface: GraphInterface) -> list[Command]:
        """One call of ``trtexec`` with all profiles."""
        arguments = [f"--onnx={interface.graph}.onnx"]
        for index, item in enumerate(interface.specializations):
            shapes = ",".join(f"{_quoted(p.name)}:{_joined(p.sizes(item.binding))}" for p in _open(interface))
            if shapes:  # a graph of numbers alone needs no profile
                flags = [f"--{bound}Shapes={shapes}" for bound in BOUNDS]
                arguments += [f"--profile={index}", *flags]
        return [Command("trtexec", (*arguments, f"--saveEngine={interface.graph}.engine"))]


def _open(interface: GraphInterface) -> list[Port]:
    """Inputs with a dimension that a binding must decide; a static input needs no profile."""
    return [
        port for port in interface.inputs if port.shape is None or any(d is None or free_symbols(d) for d in port.shape)
    ]


def _bounds(shape: tuple[int, ...]) -> dict[str, list[int]]:
    return {bound: list(shape) for bound in BOUNDS}


def _joined(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _quoted(name: str) -> str:
    return f"'{name}'" if any(char in name for char in ":,") else name


def _read(profile: Any, index: int, where: str) -> Specialization:
    place = f"{where}, profile {index}"
    fields = cast("dict[str, Any]", profile) if isinstance(profile, dict) else {}
    name, inputs = fields.get("name"), fields.get("inputs")
    if not isinstance(name, str) or not isinstance(inputs, dict):
        raise ManifestInvalid("is no profile", where=place, wanted='{"name": …, "inputs": {…}}')
    binding: dict[str, int] = {}
    for tensor, bounds in cast("Mapping[str, Any]", inputs).items():
        for axis, size in enumerate(_shape(bounds, f"{place}, input {tensor!r}")):
            binding[f"{tensor}[{axis}]"] = size
    return Specialization(name=name, role=SpecRole.OTHER, binding=binding)


def _shape(bounds: Any, where: str) -> list[int]:
    shapes: list[list[Any]] = []
    for bound in BOUNDS:
        shape = cast("dict[str, Any]", bounds).get(bound) if isinstance(bounds, dict) else None
        if not isinstance(shape, list):
            raise ManifestInvalid(f"{bound} is no shape", where=where, found=str(shape)[:80])
        shapes.append(cast("list[Any]", shape))
    sizes = [[read_size(size, where=where) for size in shape] for shape in shapes]
    if not sizes[0] == sizes[1] == sizes[2]:
        raise ManifestInvalid("is a range, which no specialization is", where=where, found=str(sizes)[:120])
    return sizes[0]


TARGET = TensorRT()
