"""The proof by running: a result and its original are run on tiny sizes and seeded weights before anything is written.

Rules over the graph's structure refuse what they know. This is the second line, for what no rule sees: both graphs
run on onnxruntime as ``verify`` runs them, weights in files replaced by seeded numbers of the same shape, so that no
weight is read.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import NotEqualError, OnnxPassesError
from ...ir.core.operators import names
from ...ir.core.operators.walks import LAYOUT
from ...ir.core.scopes import scopes
from ...ir.interface.analysis import analysis_of
from ...ir.interface.roles import Role
from ...ir.interface.usage import origins
from ...ir.program.joined import joined
from ...ir.program.program import Program
from ..session.limited import Ended, in_limits
from .fewer_parts import with_fewer_parts
from .report import Verdict

MAX_NODES = 4_000  # of the original and of every graph that is written: about a second of onnxruntime 1.32
MAX_WEIGHTS = 1 << 22  # elements that a run multiplies with
MAX_SEARCHED = 10_000  # nodes of both that are read anew and searched for parts that are alike: half a second
CPU_SECONDS, MEMORY = 20, 1 << 30  # what a proof that was not asked for may take before it is given up
_NEXT = "--prove always runs it, and `verify` runs what is written"
REWRITES = frozenset(
    "strip-states convert-states clone-decode keep-last-logits lora lower select-branch select-input pool "
    "split tap-hidden".split()
)
"""Passes that rewrite what a graph carries or answers: their results are proved."""
EXACT = REWRITES | frozenset(
    "simplify check check-speculation-safe custom-io emit-manifest specialize bind rename-io argmax-tail".split()
)
"""Passes after which the original's numbers are still to be had; others change them on purpose, or part of a graph."""


class Prove(enum.StrEnum):
    """When a result is run before it is written."""

    NEVER = "never"
    AUTO = "auto"
    ALWAYS = "always"


@dataclass(frozen=True)
class Proof:
    """What came of it: ``runs`` that were compared and equal, else why nothing was (empty where not asked)."""

    runs: int = 0
    reason: str = ""

    @property
    def text(self) -> str:
        """One line for the summary; empty where there is nothing to say."""
        if self.runs:
            left = f"; {self.reason}" if self.reason else ""
            return f"proved by running it on tiny sizes: equal in {self.runs} runs{left}"
        return f"not proved by running it: {self.reason}" if self.reason else ""


def prove_result(load: Callable[[], Program], result: Program, done: int, choice: Prove, before: int = 0) -> Proof:
    """Runs ``result`` and what ``load`` reads anew, and compares; ``done`` passes of its history ran before this run.

    ``before`` is how many nodes are read anew.

    With AUTO only where that takes about a second; of large graphs one part of each kind (a layer's attention, its
    feed-forward) stands for all that are like it but for their weights. Raises NotEqualError where the two differ, or
    where the runtime takes the original and not the result.
    """
    names = {record.name for record in result.history[done:]}
    if choice is Prove.NEVER or not names & REWRITES:
        return Proof()
    if others := sorted(names - EXACT):
        return Proof(reason=f"{', '.join(others)} changes what is computed")
    if untold := _untold(result):
        return Proof(reason=f"nothing tells what input {untold!r} holds in later runs")
    limits = (CPU_SECONDS, MEMORY) if choice is Prove.AUTO else (None, None)
    if choice is Prove.AUTO and (large := _too_large(result)):
        if before + _nodes(result) > MAX_SEARCHED:
            return Proof(reason=f"{large}; {_NEXT}")
        ended = in_limits(lambda: _verdict_of_parts(load(), result, large), *limits)
        if not ended.text or not json.loads(ended.text)["different"]:
            return _proof(ended)  # what differs without some parts is run whole: then it is the result that differs
        limits = (None, None)
    return _proof(in_limits(lambda: _verdict(load(), result), *limits))


def _untold(result: Program) -> str:
    """The first input of a graph that runs again and again that nothing explains; empty where there is none.

    What says where rows are written (``write_indices`` of TensorScatter) has no role and is named all the same.
    """
    if not result.clones and len(result.graphs) == 1:
        return ""
    for model in result.graphs.values():
        known = analysis_of(model)  # what the pipeline kept of it, until it is saved
        states = known.states
        placing = {id(state.input) for state in states} | {id(v) for v in origins(state.positions for state in states)}
        for name, role in known.roles.items():
            value = next(v for v in model.graph.inputs if v.name == name)
            if role is Role.OTHER and id(value) not in placing and not value.is_initializer():
                return name
    return ""


def _verdict_of_parts(original: Program, result: Program, large: str) -> str:
    """What ``verify`` says of the two without the parts that are like another but for their weights."""
    fewer = with_fewer_parts(original, joined(result))
    if fewer is None or _too_large(fewer.result):
        return json.dumps({"different": "", "runs": 0, "reason": f"{large}; {_NEXT}"})
    found = json.loads(_verdict(fewer.original, fewer.result))
    found["reason"] = "; ".join(filter(None, (fewer.text, found["reason"])))
    return json.dumps(found)


def _nodes(program: Program) -> int:
    return sum(len(model.graph) for model in program.graphs.values())


def _too_large(result: Program) -> str:
    bases = {name: result.clones[name].base if name in result.clones else name for name in result.names}
    nodes = sum(len(result.graphs[base].graph) for base in bases.values())
    if nodes > MAX_NODES:
        return f"{nodes:,} nodes are many"
    elements = sum(math.prod(tensor.shape.numpy()) for model in result.graphs.values() for _, tensor in _files(model))
    return f"{elements:,} weights are many" if elements > MAX_WEIGHTS else ""


def _proof(ended: Ended) -> Proof:
    if ended.reason:
        return Proof(reason=ended.reason)
    found: dict[str, Any] = json.loads(ended.text)
    if found["different"]:
        raise NotEqualError(
            "the result does not compute what the original does, and is not written",
            where="proof by running",
            found=found["different"],
            hint="What the passes assume of the graph does not hold for it: --prove never writes the result "
            "nevertheless, for a look at it with `verify`.",
        )
    return Proof(found["runs"], found["reason"])


def _verdict(original: Program, result: Program) -> str:
    """What ``verify`` says of the two, as JSON; what it cannot run says nothing against the result."""
    from .verify import verify

    try:
        report = verify(*seeded_alike(original, result))
    except OnnxPassesError as error:
        return json.dumps({"different": "", "runs": 0, "reason": str(error)})
    differs = report.first_difference if report.verdict is Verdict.DIFFERENT else ""
    skipped = [case.skipped for case in report.cases if case.skipped]
    reason = "" if report.runs else "; ".join(report.structure or report.notes or skipped[:1]) or "nothing was compared"
    if report.runs and report.not_verified:
        reason = f"nothing ran {', '.join(report.not_verified)}"
    return json.dumps({"different": differs, "runs": report.runs, "reason": reason})


def seeded(program: Program) -> Program:
    """The program with seeded numbers in place of the weights that lie in files; where none do, the program itself."""
    return _seeded(program, _places(program))


def seeded_alike(*programs: Program) -> list[Program]:
    """The programs, each with seeded numbers for those weights that all of them use as weights.

    A table that a fused operator read is looked up by Gather once the operator is spelled out: it keeps its numbers in
    both.
    """
    shared = set[str].intersection(*(_places(program) for program in programs))
    own = set[str].union(*(_places(program) for program in programs))
    kept = own - shared
    held = [{_place(tensor) for tensor in _external(program)} for program in programs]
    alone = {place for place in kept if sum(place in places for places in held) == 1}
    return [_seeded(program, shared | alone) for program in programs]


def _seeded(program: Program, places: set[str]) -> Program:
    return replace(program, graphs={name: _seeded_graph(model, places) for name, model in program.graphs.items()})


def _places(program: Program) -> set[str]:
    return {_place(tensor) for model in program.graphs.values() for _, tensor in _files(model)}


def _external(program: Program) -> Iterator[ir.ExternalTensor]:
    for model in program.graphs.values():
        for scope in scopes(model):
            for value in scope.initializers.values() if isinstance(scope, ir.Graph) else ():
                if isinstance(value.const_value, ir.ExternalTensor):
                    yield value.const_value


def _seeded_graph(model: ir.Model, places: set[str]) -> ir.Model:
    """Optional inputs are left out: both graphs run on their defaults."""
    optional = any(value.is_initializer() for value in model.graph.inputs)
    if not optional and not any(_place(tensor) in places for _, tensor in _files(model)):
        return model
    copy = model.clone()
    copy.graph.inputs[:] = [value for value in copy.graph.inputs if not value.is_initializer()]
    for value, tensor in list(_files(copy)):
        if _place(tensor) in places:
            value.const_value = ir.Tensor(_numbers(tensor), name=value.name)
    return copy


def _files(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    """The weights of a graph that lie in files: floats that are multiplied with, or rows that tokens choose."""
    for scope in scopes(model):
        for value in scope.initializers.values() if isinstance(scope, ir.Graph) else ():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and _is_weight(value, tensor):
                yield value, tensor


_FLOAT_PRODUCTS = names(lambda row: row.product and not row.product.integers and not row.product.packed, None)


def _is_weight(value: ir.Value, tensor: ir.ExternalTensor) -> bool:
    """Stored masks and tables mean something: they are read, and are small. Products and embeddings are not read."""
    rank = len(tensor.shape)
    return tensor.dtype.is_floating_point() and any(
        node.op_type in _FLOAT_PRODUCTS or (node.op_type == "Gather" and rank == 2) for node, _ in _users(value)
    )


def _users(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    for node, index in value.uses():
        yield node, index
        if node.op_type in LAYOUT and index == 0:
            yield from ((user, at) for user, at in node.outputs[0].uses())


def _place(tensor: ir.ExternalTensor) -> str:
    """Which bytes of which file a tensor is."""
    return f"{Path(tensor.base_dir or '.').resolve()}/{tensor.location}:{tensor.offset}"


def _numbers(tensor: ir.ExternalTensor) -> np.ndarray[Any, Any]:
    """Seeded numbers of the tensor's shape and type; the same for the same bytes of the same file."""
    place = _place(tensor)
    shape = tuple(int(size) for size in tensor.shape.numpy())
    random = np.random.default_rng(list(place.encode()))
    return (random.standard_normal(shape, np.float32) / math.sqrt(shape[0] if shape else 1)).astype(
        tensor.dtype.numpy()
    )
