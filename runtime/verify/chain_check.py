"""Parts of a split graph run one after the other, each in a session of its own, against the graph that they make."""

from __future__ import annotations

from collections.abc import Iterator

from ...ir.program.contracts.sizes import SplitInto
from ...ir.program.joined import chains_of, joined
from ...ir.program.program import Program
from ..decode.cases import Padding, make_case
from ..decode.inputs import build_inputs
from ..session.legalize import legalized
from ..session.session import KernelMissing, RunError, Session, SessionError, mapped_weights
from ..session.subject import Subject
from .compare import compare
from .report import CaseReport

CASE = "part by part"
WIDTH = 4  # tokens of the run, where any number will do


def check_chains(split: Program, seed: int) -> Iterator[CaseReport]:
    """One case a chain: what the parts give must be what the joined graph gives, bit for bit."""
    whole = joined(split)
    for chain in chains_of(split):
        try:
            yield _check(split, whole, chain, seed)
        except KernelMissing as error:
            yield CaseReport(chain.graph, CASE, skipped=error.what)
        except (SessionError, RunError) as error:
            yield CaseReport(chain.graph, f"{CASE}, {error.where}", failed=error.what)


@mapped_weights()
def _check(split: Program, whole: Program, chain: SplitInto, seed: int) -> CaseReport:
    model = whole.graph(chain.graph)
    subject = Subject.of(model, chain.graph)
    case = make_case(subject.fixed(0) or 1, subject.fixed(1) or WIDTH, Padding.FULL, seed)
    feeds = build_inputs(subject, case)
    try:
        expected = Session(legalized(model).model, chain.graph).run(feeds)
    except RunError as error:
        return CaseReport(chain.graph, CASE, skipped=f"the joined graph rejects a first run: {error.what}")
    known, found = dict(feeds), dict[str, object]()
    for part in chain.parts:
        session = Session(legalized(split.graph(part)).model, part)
        known |= session.run({name: known[name] for name in session.input_names})
        found |= {name: known[name] for name in session.outputs}
    outputs = tuple(compare(name, array, known[name]) for name, array in expected.items() if name in found)
    missing = [name for name in expected if name not in found]
    return CaseReport(chain.graph, CASE, outputs, failed=f"no part gives {missing[0]}" if missing else "")
