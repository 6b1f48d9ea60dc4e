"""One round sweeps, walks forward, applies backward and tidies up."""

from __future__ import annotations

import onnx_ir as ir

from ...shapes.infer import Trust, propagate
from ...shapes.infer.context import Context
from .apply import apply, live_nodes
from .bodies import find_bodies
from .branches import inline_decided
from .reshape_targets import learn_positive
from .scope import Round
from .tidy import tidy
from .walk import walk


def simplify_round(model: ir.Model) -> dict[str, int]:
    """Runs one round on a model in place; returns counts of what changed, empty where nothing did."""
    facts = propagate(model, trust=Trust.INPUTS)
    graphs, bodies = find_bodies(model.graph)
    state = Round(model, facts, Context(facts, lambda ctx, graph: None), graphs, bodies)
    live = live_nodes(state)
    learn_positive(state, (node for node in model.graph if node in live))
    walk(state)
    changed = apply(state)
    inlined = inline_decided(model, facts) if bodies else 0
    tidied = tidy(model, find_bodies(model.graph)[0] if bodies else graphs)
    if not (changed or inlined or tidied):
        return {}
    counts = {**state.counts, "branches": inlined, "unused": tidied}
    return {name: number for name, number in counts.items() if number} or {"nodes": 0}
