"""Checks what a verification must have run before it says equal: each graph of a result, in each role it claims."""

from __future__ import annotations

from ...ir.program.program import Program
from ...ir.states import find_states
from ...ir.states.suspects import suspected_states


def claims_of(result: Program) -> list[tuple[str, str]]:
    """Each graph of the result with each specialization that it has; "" where it has none."""
    specs = result.specializations
    found: list[tuple[str, str]] = []
    for name in result.names:
        own = [spec.name or name for spec in specs if spec.graph in ("", name)]
        found += [(name, claim) for claim in own or [""]]
    return found


def unpaired_states(result: Program) -> list[str]:
    """A sentence for each graph in which something may be carried from run to run that no case carries."""
    sentences: list[str] = []
    for name in result.names:
        model = result.graph(name)
        pairs = [suspect.text for suspect in suspected_states(model, find_states(model))]
        if pairs:
            sentences.append(f"{name}: unpaired, and carried by no run: {', '.join(pairs)}")
    return sentences
