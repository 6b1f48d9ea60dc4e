"""A trial runs each specialization: a session, inputs of its sizes, and outputs of the shapes that were proved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError
from ...ir.core.specialization import Specialization
from ...ir.interface.axes import Axis
from ...ir.interface.dimensions import DimensionAnalysis, analyze_dimensions
from ...ir.interface.roles import Role
from ...ir.program.program import Program
from ...ir.proof.placed import in_symbols
from ...ir.shapes.infer import Trust, propagate
from ...ir.symbolic.dims import Dim
from ...ir.symbolic.equations import bound_value
from ...ir.symbolic.symbols import dims_of, substitute_symbols
from ..decode.cases import Padding, make_case
from ..decode.inputs import build_inputs
from ..session.legalize import legalized
from ..session.session import KernelMissing, Session
from ..session.subject import Subject

MAX_ELEMENTS = 1 << 28  # of all inputs together: more is for the device, not for a trial


@dataclass(frozen=True)
class Trial:
    """One run: ``failed`` says what onnxruntime said, ``skipped`` why nothing ran; both empty where it went well."""

    graph: str
    specialization: str
    failed: str = ""
    skipped: str = ""


def try_program(program: Program, specs: Sequence[Specialization]) -> Iterator[Trial]:
    """Builds a session and runs it once for every specialization of every graph."""
    for name, model in program.graphs.items():
        own = [spec for spec in specs if spec.graph in ("", name)]
        if own:
            canonical = analyze_dimensions(model)
            yield from (_try(name, canonical, in_symbols(canonical, spec)[0]) for spec in own)


def _try(name: str, canonical: DimensionAnalysis, spec: Specialization) -> Trial:
    binding = canonical.complete(spec.binding)
    elements = sum(math.prod(sizes) for sizes in _sizes(canonical.model.graph.inputs, binding))
    if elements > MAX_ELEMENTS:
        return Trial(name, spec.name, skipped=f"its inputs have {elements:,} elements: too large to try here")
    try:
        session = Session(legalized(canonical.model).model, f"{name}, {spec.name}")
        outputs = session.run(_inputs(canonical, spec, binding))
    except KernelMissing as error:
        return Trial(name, spec.name, skipped=str(error))
    except OnnxPassesError as error:
        return Trial(name, spec.name, failed=str(error))
    facts = propagate(canonical.model, binding=binding, trust=Trust.INPUTS)  # what follows from the inputs alone
    for value in canonical.model.graph.outputs:
        proved, found = facts.shape(value), outputs[value.name or ""].shape
        if proved is not None and any(isinstance(p, int) and p != f for p, f in zip(proved, found, strict=True)):
            mismatch = f"output {value.name!r} comes out as {list(found)}, proved was {list(proved)}"
            return Trial(name, spec.name, failed=mismatch)
    return Trial(name, spec.name)


def _inputs(canonical: DimensionAnalysis, spec: Specialization, binding: Mapping[str, int]) -> dict[str, np.ndarray]:
    sizes: dict[str, Dim] = dict(binding)
    bound = canonical.model.clone()
    substitute_symbols(bound, sizes)
    subject = Subject.of(bound, spec.name)
    batch, length = (canonical.size(axis, binding) or subject.fixed(index) or 1 for index, axis in enumerate(_TOKENS))
    inputs = build_inputs(subject, make_case(batch, length, Padding.FULL))
    for value in subject.inputs(Role.ATTENTION_MASK):  # attend to everything, however the caches are held
        name = value.name or ""
        inputs[name] = np.full_like(inputs[name], 0 if inputs[name].dtype.kind == "f" else 1)
    for value in subject.inputs(Role.BRANCH):  # with a past, the branch that reads it
        name = value.name or ""
        inputs[name] = np.full_like(inputs[name], bool(canonical.size(Axis.PAST, binding)))
    return inputs


_TOKENS = (Axis.BATCH, Axis.SEQ)


def _sizes(values: Sequence[ir.Value], binding: Mapping[str, int]) -> Iterator[list[int]]:
    for value in values:
        sizes = [bound_value(dim, binding) if dim is not None else None for dim in dims_of(value) or ()]
        yield [size for size in sizes if size is not None]
