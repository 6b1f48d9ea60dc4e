"""What a state holds before the first run: zeros, or the values that a caller or an initializer names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...core.constants import constant_of
from ...core.errors import PassRefused, UnknownNameError, UsageError
from ...states.base import Layout, Pairing, State
from ...states.neutral import not_neutral
from ...states.start import Start
from ...states.suspects import suspected_states

MAX_ELEMENTS = 1 << 16  # of a start: program.json holds it in full
_FORM = "init=NAME:VALUE, or init=NAME:FILE.npz with an array of that name"


def told_states(model: ir.Model, states: Sequence[State], names: Iterable[str]) -> list[State]:
    """The suspected states that a start is given for, which says that they are some; each starts a first run."""
    wanted = set(names)
    return [
        State(
            Layout.RECURRENT,
            input=suspect.input,
            output=suspect.output,
            carried=suspect.output,
            evidence="a start was given for it, and the output of its type is computed from it",
            stacked=True,
        )
        for suspect in (suspected_states(model, states) if wanted else ())
        if suspect.input.name in wanted
    ]


def starts_of(init: Mapping[str, str], states: Sequence[State], where: str) -> dict[str, Start]:
    """The starts of ``states`` that ``init`` or their initializers name; UsageError for one that does not fit."""
    known = {
        state.name: state for state in states if state.pairing is Pairing.BOTH and state.layout is Layout.RECURRENT
    }
    for name in init:
        if name not in known:
            hint = "A start is given for states that each run transforms; `onnx-passes inspect` lists them."
            raise UnknownNameError("state", name, list(known), where=where, hint=hint)
    found = {name: _given(text, known[name], where) for name, text in init.items()}
    for name, state in known.items():
        tensor = constant_of(state.input) if state.input is not None and state.input.is_initializer() else None
        if name not in found and tensor is not None:
            found[name] = _start(tensor.numpy(), state, where)
    return found


def _given(text: str, state: State, where: str) -> Start:
    """One start as the option spells it."""
    try:
        array = np.asarray(float(text))
    except ValueError:
        array = _read(text, state, where)
    return _start(array, state, where)


def _read(text: str, state: State, where: str) -> np.ndarray[Any, Any]:
    try:
        with np.load(Path(text), allow_pickle=False) as stored:
            return np.asarray(stored[state.name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"no start of state {state.name!r} can be read from this",
            where=f"{where}, init",
            found=f"{text!r}: {type(error).__name__}",
            wanted=_FORM,
        ) from None


def _start(array: np.ndarray[Any, Any], state: State, where: str) -> Start:
    """``array`` as a start of ``state``; UsageError for another shape, or numbers that its type does not hold."""
    dims = list(state.input.shape or ()) if state.input is not None else []
    sizes = list(array.shape) if array.size != 1 else [1] * len(dims)
    fits = len(sizes) == len(dims) and all(size in (1, dim) for size, dim in zip(sizes, dims, strict=True))
    dtype = state.input.dtype if state.input is not None else None
    if not fits or array.dtype.kind not in "fiu" or dtype is None or math.prod(sizes) > MAX_ELEMENTS:
        raise UsageError(
            f"state {state.name!r} cannot start from these values",
            where=f"{where}, init",
            found=f"{array.dtype} {list(array.shape)}",
            wanted=f"numbers of shape [{', '.join(str(dim) for dim in dims)}], 1 where a size is open, "
            f"and at most {MAX_ELEMENTS} of them",
        )
    with np.errstate(over="ignore"):
        held = array.astype(dtype.numpy()).astype(np.float64)
    if not np.isfinite(held).all():
        raise UsageError(
            f"state {state.name!r} cannot start from these values",
            where=f"{where}, init",
            found="numbers that are not finite in its element type",
            wanted=f"finite numbers of {dtype.name}",
        )
    return Start(tuple(sizes), tuple(float(number) for number in held.reshape(-1)))


def refuse_unknown_start(where: str, states: Iterable[State], starts: Mapping[str, Start]) -> None:
    """Raises PassRefused for a state without a start whose update tells zeros from a state that holds nothing."""
    for state in states:
        node = not_neutral(state) if state.name not in starts and state.pairing is Pairing.BOTH else None
        if node is not None:
            raise PassRefused(
                f"nothing tells what state {state.name!r} holds before the first run",
                where=where,
                found=f"{node.op_type} {node.name!r}, which gives something else of zeros than of an empty state",
                wanted="the values that the model's own first run starts from",
                hint=f"Give them: strip-states{{init={state.name}:VALUE}}, or init={state.name}:FILE.npz with an array "
                "of that name (a running maximum starts from the least number, -1e30 or so).",
            )
