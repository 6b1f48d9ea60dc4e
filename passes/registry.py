"""The registry lists all passes: a literal table, onnx_ir's under `ir-`, third parties' by entry point; loaded late."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.core.errors import OnnxPassesError, UnknownNameError, UsageError
from .captions import class_caption, common_ir_passes

if TYPE_CHECKING:
    import importlib.metadata

    from .base import Pass

PASSES: dict[str, str] = {  # name -> module of this package : class; a test holds key == name == file name
    "argmax-tail": "argmax_tail:ArgmaxTail",
    "bind": "bind:Bind",
    "check": "check:Check",
    "check-speculation-safe": "check_speculation_safe:CheckSpeculationSafe",
    "clamp-positions": "clamp_positions:ClampPositions",
    "clone-decode": "clone_decode:CloneDecode",
    "convert-states": "convert_states:ConvertStates",
    "custom-io": "custom_io:CustomIO",
    "drop-unused-inputs": "drop_unused_inputs:DropUnusedInputs",
    "emit-manifest": "emit_manifest:EmitManifest",
    "extract-layer": "extract_layer:ExtractLayer",
    "fix-opset": "fix_opset:FixOpset",
    "keep-last-logits": "keep_last_logits:KeepLastLogits",
    "insert-qdq": "insert_qdq:InsertQdq",
    "kv-io": "kv_io:KvIo",
    "load-encodings": "load_encodings:LoadEncodings",
    "lora": "lora:Lora",
    "lower": "lower:Lower",
    "narrow-int": "narrow_int:NarrowInt",
    "package": "package:Package",
    "partition": "partition:Partition",
    "pool": "pool:Pool",
    "rename-io": "rename_io:RenameIO",
    "sample-tail": "sample_tail:SampleTail",
    "select-branch": "select_branch:SelectBranch",
    "select-input": "select_input:SelectInput",
    "select-vocab": "select_vocab:SelectVocab",
    "simplify": "simplify:Simplify",
    "specialize": "specialize:Specialize",
    "split": "split:Split",
    "strip-states": "strip_states:StripStates",
    "surgeon": "surgeon:Surgeon",
    "tap-hidden": "tap_hidden:TapHidden",
    "tie-states": "tie_states:TieStates",
    "to-float16": "to_float16:ToFloat16",
    "transfer-encodings": "transfer_encodings:TransferEncodings",
}
GROUP = "onnx_llm_passes.passes"  # the entry point group of third-party passes
IR_PREFIX = "ir-"
BUILT_IN = "onnx-llm-passes"


@dataclass(frozen=True)
class Listed:
    """One pass of the listing: its name, one sentence, and who offers it (a distribution's name)."""

    name: str
    caption: str
    origin: str


def pass_names() -> list[str]:
    """The names of all passes, sorted; raises UsageError where two packages offer the same name."""
    return sorted([*PASSES, *(IR_PREFIX + name for name in common_ir_passes()), *_third_party()])


def list_passes() -> list[Listed]:
    """All passes with their captions, sorted by name; imports none of them."""
    return [Listed(name, _caption(name), origin_of(name)) for name in pass_names()]


def origin_of(name: str) -> str:
    """The distribution that offers a pass."""
    if name in PASSES:
        return BUILT_IN
    entry = _third_party().get(name)
    if entry is None:
        return "onnx-ir"
    return _distribution(entry)


def get_pass(name: str) -> type[Pass]:
    """The class behind a name; raises UnknownNameError, or OnnxPassesError where a third party's cannot be loaded."""
    third_party = _third_party()
    if name in PASSES:
        module, _, class_name = PASSES[name].partition(":")
        return getattr(importlib.import_module(f".{module}", __package__), class_name)
    if name.removeprefix(IR_PREFIX) in common_ir_passes() and name.startswith(IR_PREFIX):
        from .ir_passes import common_pass

        return common_pass(name)
    if name in third_party:
        return _load(third_party[name])
    raise UnknownNameError("pass", name, pass_names(), hint="`onnx-passes list` shows all passes and presets.")


@functools.cache
def _third_party() -> dict[str, importlib.metadata.EntryPoint]:
    import importlib.metadata  # a fifth of the start of a listing, and not needed for our own passes

    own = {*PASSES, *(IR_PREFIX + name for name in common_ir_passes())}
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name in own or (entry.name in found and found[entry.name].value != entry.value):
            other = _distribution(found[entry.name]) if entry.name in found else BUILT_IN
            raise UsageError(
                f"two packages offer a pass named {entry.name!r}",
                found=f"{other} and {_distribution(entry)}",
                hint="Uninstall one of them or rename its entry point.",
            )
        found[entry.name] = entry
    return found


def _load(entry: importlib.metadata.EntryPoint) -> type[Pass]:
    from .base import Pass

    where = f"pass {entry.name!r} of {_distribution(entry)}"
    try:
        cls = entry.load()
    except Exception as error:  # a stranger's module may raise anything while it is imported
        raise OnnxPassesError("cannot be loaded", where=where, found=f"{type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Pass)):
        raise OnnxPassesError("is not a pass", where=where, found=entry.value, wanted="a subclass of Pass")
    if cls.name != entry.name:
        raise OnnxPassesError("has another name than its entry point", where=where, found=cls.name, wanted=entry.name)
    return cls


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _caption(name: str) -> str:
    if name in PASSES:
        module, _, class_name = PASSES[name].partition(":")
        return class_caption(Path(__file__).with_name(f"{module}.py"), class_name)
    entry = _third_party().get(name)
    if entry is None:
        class_name, path = common_ir_passes()[name.removeprefix(IR_PREFIX)]
        return class_caption(path, class_name) or name.removeprefix(IR_PREFIX).replace("-", " ").capitalize()
    if entry.dist is None:
        return ""
    return class_caption(Path(str(entry.dist.locate_file(entry.module.replace(".", "/") + ".py"))), entry.attr)
