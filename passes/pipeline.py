"""Pipeline text to passes and back: parsing expands presets and converts options, printing leaves defaults out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir.core.errors import UnknownNameError, UsageError
from .options import parse_options, print_options
from .presets import PRESETS, expand
from .registry import get_pass, pass_names
from .syntax import PassSpec, parse_specs, print_specs

if TYPE_CHECKING:
    from .base import Pass


def parse_pipeline(text: str) -> list[Pass]:
    """Reads pipeline text into passes; nothing is run.

    Raises UsageError for text that does not fit, an unknown pass or option, or a value that is not what is wanted.
    """
    return [_build(spec) for spec in expand(parse_specs(text))]


def print_pipeline(passes: Sequence[Pass]) -> str:
    """Writes passes as the text that :func:`parse_pipeline` reads back; options at their default are left out."""
    return print_specs([PassSpec(pass_.name, print_options(pass_)) for pass_ in passes])


def print_pass(pass_: Pass) -> str:
    """Writes one pass."""
    return print_pipeline([pass_])


def expand_pipeline(text: str) -> str:
    """The text with every preset replaced by its passes."""
    return print_pipeline(parse_pipeline(text))


def _build(spec: PassSpec) -> Pass:
    where = f"pass {spec.name!r}"
    cls = _find(spec.name)
    arguments = parse_options(cls, dict(spec.options), where=where)
    try:
        return cls(**arguments)
    except UsageError as error:
        raise _placed(error, where) from error
    except (TypeError, ValueError) as error:  # a third party's own check of its fields
        raise UsageError(str(error), where=where) from error


def _find(name: str) -> type[Pass]:
    if name not in PRESETS and name not in (known := pass_names()):
        raise UnknownNameError("pass", name, [*known, *PRESETS], hint="`onnx-passes list` shows them all.")
    return get_pass(name)


def _placed(error: UsageError, where: str) -> UsageError:
    if error.where:
        return error
    return UsageError(error.what, where=where, found=error.found, wanted=error.wanted, hint=error.hint)
