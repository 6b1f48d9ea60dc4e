"""Compiler passes over ONNX for language-model inference graphs; the public names, each loaded when first used."""

from __future__ import annotations

import importlib

_HOMES = {  # module -> the public names it gives; passes and presets come out of their tables
    "api.check": ("CheckReport", "check"),
    "api.decode": ("generate", "predict", "suggest_k"),
    "api.diff": ("Difference", "diff"),
    "api.facts": ("GraphFacts",),
    "api.inspect": ("Inspection", "inspect"),
    "api.measure": ("calibrate", "compare", "sensitivity", "suggest_bits", "verify"),
    "api.run": ("run",),
    "ir.core.errors": (
        "InputError",
        "NotEqualError",
        "OnnxPassesError",
        "OutputError",
        "PassRefused",
        "ProgramInvalid",
        "UnknownNameError",
        "UsageError",
        "WriteError",
    ),
    "ir.core.specialization": ("Manifest", "Specialization"),
    "ir.core.verifier": ("check_structure",),
    "ir.interface.roles": ("Role", "find_roles"),
    "ir.program.program": ("Program",),
    "ir.serialization.interop": ("from_surgeon", "to_surgeon"),
    "ir.states": ("find_states",),
    "ir.states.base": ("Layout", "Pairing", "State"),
    "passes.base": ("GraphResult", "Pass", "Report"),
    "passes.instruments": ("Dump", "Instrument", "PrintAfter", "StopAfter", "Timing", "VerifyEach"),
    "passes.manager": ("PassManager",),
    "passes.package": ("Packaging",),
    "passes.pipeline": ("parse_pipeline", "print_pipeline"),
    "passes.registry": ("get_pass",),
    "passes.strip_states": ("Positions",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def _all_homes() -> dict[str, str]:
    """Every public name and its module; type checkers read the same out of ``__init__.pyi``, which a test compares."""
    from .passes.presets import PRESETS
    from .passes.registry import PASSES

    rows = (row.partition(":") for row in PASSES.values())
    passes = {class_name: f"passes.{module}" for module, _, class_name in rows}
    return {**_HOME_OF, **passes, **{name.replace("-", "_"): "api.run" for name in PRESETS}}


def __getattr__(name: str) -> object:
    """Loads a public name's module on first use; ``__all__`` is made when it is asked for."""
    if name == "__all__":
        return sorted(_all_homes())
    if name == "__version__":
        from importlib.metadata import version

        return version("onnx-llm-passes")
    homes = _HOME_OF if name in _HOME_OF or name.startswith("_") else _all_homes()
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{homes[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(_all_homes())
