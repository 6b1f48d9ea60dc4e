"""``run`` takes a pipeline over a model; every preset is a function that takes its parameters as keywords."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import TYPE_CHECKING, Literal

from ..ir.core.errors import UsageError
from ..ir.core.gc_off import collector_off
from ..passes.presets import PRESETS
from ..passes.syntax import Atom, PassSpec, Value, print_specs
from .sources import program_of

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from .sources import Model

    Option = str | int | float | bool | os.PathLike[str] | None
    Parameter = Option | list[Option] | tuple[Option, ...] | Mapping[str, Option]
    Proving = Literal["never", "auto", "always"]


def run(
    model: Model,
    pipeline: str,
    *,
    out: str | os.PathLike[str] | None = None,
    prove: Proving = "auto",
    weights: str = "auto",
    force: bool = False,
    allow_scripts: bool = False,
    follow_links: bool = False,
) -> Program:
    """Runs a pipeline as the command does, graphs checked after every pass, and returns the new program.

    The given program stays as it is. ``prove`` runs the result beside its original on tiny sizes; ``out`` is the folder
    to write, if any. Raises what the passes raise, NotEqualError where the two differ, and then nothing is written.

    >>> from onnx_llm_passes import run, verify
    >>> single = run(decoder, "single-shot")
    >>> verify(decoder, single).equal
    True
    """
    from ..ir.interface.analysis import kept_analyses
    from ..passes.manager import PassManager
    from ..passes.pipeline import parse_pipeline
    from ..runtime.verify.prove_run import Prove, prove_result

    passes = parse_pipeline(pipeline)
    choice = _choice(prove)
    with collector_off():
        original = program_of(model, "run", follow_links=follow_links)
        program = original.copy() if original is model else original
        done, nodes = len(program.history), sum(len(graph.graph) for graph in program.graphs.values())
        with kept_analyses(program.graphs):
            PassManager(passes, allow_scripts=allow_scripts).run(program)
            prove_result(lambda: _again(model, original, follow_links), program, done, Prove(choice), nodes)
            if out is not None:
                program.save(out, weights=weights, force=force)
    return program


def _choice(prove: str) -> str:
    from ..ir.core.errors import UnknownNameError
    from ..runtime.verify.prove_run import Prove

    known = [choice.value for choice in Prove]
    if prove not in known:
        raise UnknownNameError("choice of prove", prove, known)
    return prove


def _again(model: Model, original: Program, follow_links: bool) -> Program:
    """The model before the passes: as it was given, or read once more."""
    return original if original is model else program_of(model, "run", follow_links=follow_links)


def preset(name: str) -> Callable[..., Program]:
    """The function of a preset: ``preset("speculative")(model, k=[0, 4], ctx=128)``; its parameters are keywords."""
    row = PRESETS[name]

    def call(
        model: Model,
        *,
        out: str | os.PathLike[str] | None = None,
        prove: Proving = "auto",
        follow_links: bool = False,
        **parameters: Parameter,
    ) -> Program:
        options = tuple(
            (key.rstrip("_"), written(key, value)) for key, value in parameters.items() if value is not None
        )
        text = print_specs([PassSpec(name, options)])
        return run(model, text, out=out, prove=prove, follow_links=follow_links)

    call.__name__ = call.__qualname__ = function_name(name)
    call.__doc__ = f"{row.caption}: the preset ``{name}``, run as :func:`run` runs it.\n\n{_parameters(name)}"
    call.__signature__ = inspect.Signature(_signature(name))  # pyright: ignore[reportFunctionMemberAccess]
    return call


def function_name(preset_name: str) -> str:
    """``single_shot`` for ``single-shot``."""
    return preset_name.replace("-", "_")


def _parameters(name: str) -> str:
    names = ", ".join(f"``{key}``" for key in PRESETS[name].parameters)
    return f"Its parameters are {names}; docs/passes.md says what each takes."


def _signature(name: str) -> list[inspect.Parameter]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    first = inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = [inspect.Parameter(_keyword(key), keyword, default=None) for key in PRESETS[name].parameters]
    rest = (("out", None), ("prove", "auto"), ("follow_links", False))
    return [first, *own, *(inspect.Parameter(key, keyword, default=default) for key, default in rest)]


def _keyword(option: str) -> str:
    """``from_`` for ``from``, which Python keeps for itself."""
    return f"{option}_" if iskeyword(option) else option


def written(name: str, value: Parameter) -> Value:
    """A Python value as the value of an option in pipeline text; UsageError for what no option takes."""
    if isinstance(value, Mapping):
        return tuple((_atom(name, key), _atom(name, item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple((_atom(name, item),) for item in value)
    return _split(value) if isinstance(value, str) else ((_atom(name, value),),)


def _split(text: str) -> Value:
    """A text means what it means in a pipeline: commas and colons part it."""
    return tuple(tuple(Atom(word) for word in item.split(":")) for item in text.split(","))


def _atom(name: str, value: object) -> Atom:
    if isinstance(value, bool):
        return Atom(str(value).lower())
    if isinstance(value, int | float):
        return Atom(repr(value))
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return Atom(text, quoted=isinstance(value, os.PathLike))
    raise UsageError(
        f"option {name!r} takes no {type(value).__name__}",
        wanted="a number, a bool, a text, a path, or a list of these",
    )


def __getattr__(name: str) -> Callable[..., Program]:
    """The preset functions: ``single_shot``, ``speculative`` and the others of the table."""
    for key in PRESETS:
        if function_name(key) == name:
            return preset(key)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
