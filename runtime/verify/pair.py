"""Runs an original graph and what became of it on the same inputs at several sizes and compares outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import NotEqualError, UsageError
from ...ir.interface.roles import Role
from ...ir.program.contracts.adapters import AdapterInputs
from ...ir.states import Layout, Pairing
from ..decode.cases import ANYWHERE, BATCHES, LENGTHS, ORDERED, Case, Padding, plan
from ..decode.inputs import UnknownSize, build_inputs
from ..session.legalize import legalized
from ..session.session import KernelMissing, Optimization, RunError, Session, SessionError, mapped_weights
from ..session.subject import GUESSES, Subject
from .adapted import adapters_in
from .closeness import OTHER_SUMS
from .compare import Difference, compare, ulp_tolerance
from .contract import Contract, check_empty, check_given
from .converted import Unplayable, changes_layout, play
from .report import CaseReport, VerifyReport

MAX_NAMED = 3  # inputs by whose sizes a run is named


@dataclass(eq=False)
class Pair:
    """An original graph and what became of it, each with one session for all cases."""

    name: str
    original: Subject
    result: Subject
    contract: Contract
    report: VerifyReport
    unbound: ir.Model  # the original as it is run; as a subject it has the sizes of its result
    sessions: tuple[Session, Session] | None = None
    leaving_out: bool = False
    names: set[str] = field(default_factory=set[str])

    @property
    def optional(self) -> list[str]:
        """Inputs of the original that have a default, which a caller may leave out."""
        return [value.name or "" for value in self.unbound.graph.inputs if value.is_initializer()]

    def agree(self) -> None:
        """The result has no cache that would say what positions mean: the report says so. New outputs are noted."""
        self.result.pads_by_position = self.original.pads_by_position
        known = {value.name for value in self.original.model.graph.outputs}
        known |= {n for link in self.contract.chain.links if isinstance(link, AdapterInputs) for n in link.retained}
        for value in self.result.model.graph.outputs:
            if self.contract.old_output(value.name or "") not in known:
                self.report.notes.append(f"{self.name}: {value.name} is no output of the original: not compared")

    @mapped_weights()
    def open(self) -> None:
        """Makes the sessions, of runnable copies where INT32_MAX stands for "no index"."""
        opened: list[Session] = []
        for subject, model in ((self.original, self.unbound), (self.result, self.result.model)):
            legal = legalized(model)
            self.report.notes.extend(f"{subject.name}: {note}" for note in legal.notes)
            opened.append(Session(legal.model, subject.name))
        self.sessions = (opened[0], opened[1])

    def played(self, seed: int) -> bool:
        """Whether the graphs, whose states are updated in different ways, were compared over texts, run after run."""
        if not changes_layout(self.original, self.result, self.contract):
            return False
        self.report.tolerance = max(self.report.tolerance, OTHER_SUMS)
        try:
            self.report.cases.extend(list(play(self.original, self.result, self.contract, self.name, seed)))
        except Unplayable as error:
            self.report.notes.append(f"{self.name}: only first runs are compared, from empty states: {error.what}")
            return False
        return True

    @mapped_weights()
    def refused_as_usual(self) -> str:
        """Why onnxruntime refuses the result with its basic optimizations on, though it takes the original so."""
        try:
            Session(self.result.model, self.result.name, Optimization.BASIC)
        except (SessionError, KernelMissing) as error:
            try:
                Session(self.unbound, self.original.name, Optimization.BASIC)
            except (SessionError, KernelMissing):
                return ""
            return f"with its basic optimizations, {error.what}"
        return ""

    def run_planned(self, seed: int) -> Iterator[CaseReport]:
        """Every size and padding that the graphs leave open."""
        for case in self._cases(seed):
            capacity = self.original.capacity
            if capacity is not None and case.length > capacity - (case.padding is not Padding.FULL):
                yield CaseReport(self.name, case.name, skipped=f"the cache has {capacity} rows")
                continue
            for leaving_out in (False, True) if self.optional else (False,):
                self.leaving_out = leaving_out
                ran = self._run(case)
                if not self._sized or ran.skipped or ran.case not in self.names:  # else sizes that have run already
                    self.names.add(ran.case)
                    yield ran

    @property
    def _sized(self) -> bool:
        """Whether no input counts tokens: runs are then named by the sizes of what they were given."""
        return not self.original.takes_length

    def _cases(self, seed: int) -> list[Case]:
        batch, length = (self._fixed(axis) for axis in (0, 1))
        paddings = self._paddings()
        if len(paddings) == 1:
            self.report.notes.append(f"{self.name}: no input tells padding, so only full rows are run")
        lengths = LENGTHS if self.original.takes_length or self.original.states else LENGTHS[:1]
        return plan([batch] if batch else BATCHES, [length] if length else lengths, paddings, seed)

    def _fixed(self, axis: int) -> int | None:
        sizes = {size for size in (self.original.fixed(axis), self.result.fixed(axis)) if size is not None}
        if len(sizes) > 1:
            self.report.notes.append(f"{self.name}: the graphs fix axis {axis} of their tokens to {sorted(sizes)}")
        return min(sizes, default=None)

    def _paddings(self) -> Sequence[Padding]:
        if self.original.pads_by_position:
            return ANYWHERE if self.contract.any_order else ORDERED
        if self.contract.right_padded:
            return ORDERED
        return (*ORDERED, Padding.LEFT) if self.original.masks else (Padding.FULL,)

    def _title(self, case: Case, inputs: Mapping[str, np.ndarray] | None = None) -> str:
        carried = set(self.original.by_input)
        sizes = [f"{name} {list(array.shape)}" for name, array in (inputs or {}).items() if name not in carried]
        name = ", ".join(sizes[:MAX_NAMED]) if self._sized and sizes else case.name
        return f"{name}, optional inputs left out" if self.leaving_out else name

    def _run(self, case: Case) -> CaseReport:
        inputs, outputs, rejected = self._run_original(case)
        if outputs is None:
            return CaseReport(self.name, self._title(case), skipped=f"the original rejects it: {rejected}")
        return self._against(case, inputs, outputs)

    def _run_original(self, case: Case) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None, str]:
        """Runs the original; sizes that nothing explains are guessed until it accepts one, which is kept."""
        assert self.sessions is not None, "open() comes first"
        rejected = ""
        own = (case.length,) if self._sized and self.original.states else ()  # of frames, where nothing else says it
        for guess in dict.fromkeys((*own, self.original.guess, *GUESSES)):
            self.original.guess = guess
            try:
                inputs = self.contract.allowed(build_inputs(self.original, case))
                inputs = {n: a for n, a in inputs.items() if not (self.leaving_out and n in self.optional)}
                return inputs, self.sessions[0].run(inputs), ""
            except (RunError, UnknownSize) as error:
                rejected = rejected or error.what
        return {}, None, rejected

    def _against(self, case: Case, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> CaseReport:
        assert self.sessions is not None, "open() comes first"
        self.result.guess = self.original.guess
        try:
            others = self.sessions[1].run(self._inputs_of_result(case, inputs))
        except RunError as error:
            return CaseReport(self.name, self._title(case, inputs), failed=error.what)
        chain = self.contract.chain
        expected = chain.expected(outputs, inputs)
        shared = [name for name in others if name in expected]
        if not shared:
            return CaseReport(self.name, self._title(case, inputs), failed="the graphs share no output")
        found: list[Difference] = []
        for name in shared:
            before, after = chain.comparable(name, expected[name], others[name], inputs)
            size = float(np.abs(before).max(initial=0)) if before.dtype.kind == "f" else 0.0
            allowed = chain.tolerance(name, after) * chain.stretch(name, outputs, inputs, size)
            found.append(compare(name, before, after, max(allowed, self._tolerance(before))))
        if not all(output.equal for output in found):
            found = self._without_chance(found, inputs, outputs)
        if (self._cache_left or self.contract.right_padded) and not all(output.equal for output in found):
            found = [self._at_tokens(case, output, expected, others) for output in found]
        return CaseReport(self.name, self._title(case, inputs), tuple(found))

    def _without_chance(
        self, found: list[Difference], inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
    ) -> list[Difference]:
        """Leaves out what the original itself answers differently when it runs again (rows it never initialized)."""
        assert self.sessions is not None, "open() comes first"
        outputs = self.contract.chain.expected(outputs, inputs)
        again = self.contract.chain.expected(self.sessions[0].run(inputs), inputs)
        kept = [o for o in found if compare("", outputs[o.output], again[o.output]).equal]
        for output in found:
            if output not in kept:
                self.report.notes.append(
                    f"{self.name}: {output.output}: the original's own answer changes from run to run"
                )
        return kept

    @property
    def _cache_left(self) -> bool:
        """Whether caches that are written in place have left the graph, and with them rows that were never written."""
        written = {s.name for s in self.original.states if s.layout is Layout.SCATTER and s.pairing is Pairing.BOTH}
        return bool(written - {self.contract.old_input(state.name) for state in self.result.states})

    def _at_tokens(
        self, case: Case, found: Difference, expected: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
    ) -> Difference:
        """``found`` at the rows of real tokens: one of padding sees no key, and averages rows that nobody wrote.

        Under a window, GroupQueryAttention in half precision (onnxruntime 1.32) answers such rows by chance.
        """
        before, after = expected.get(found.output), others[found.output]
        rows = (case.batch, case.length)
        if found.equal or before is None or before.shape != after.shape or before.shape[:2] != rows:
            return found
        note = f"{self.name}: {found.output}: rows of padded tokens, which see no key, are not compared"
        if note not in self.report.notes:
            self.report.notes.append(note)
        return compare(found.output, before[case.valid], after[case.valid], self._tolerance(before))

    def _tolerance(self, output: np.ndarray) -> float:
        return max(self.report.tolerance, ulp_tolerance(output) if self.report.ulp else 0.0)

    def _inputs_of_result(self, case: Case, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The original's arrays, adapted by the contracts; what may have another size here is built for this graph."""
        built = build_inputs(self.result, case)
        adapted = self.contract.chain.adapt_inputs(inputs)
        own_size = (Role.ATTENTION_MASK, Role.STATE, Role.CONTEXT_LENGTHS)
        for name, array in built.items():
            old, role = adapted.get(name), self.result.roles[name]
            asked = role is Role.LOGITS_TO_KEEP and self.contract.old_input(name) not in inputs  # as many as there are
            if old is not None and not asked and (role not in own_size or old.shape == array.shape):
                built[name] = old
        built |= adapters_in(self.result, adapted)
        defaults = {value.name for value in self.result.model.graph.inputs if value.is_initializer()}
        return {n: a for n, a in built.items() if n not in defaults or self.contract.old_input(n) in inputs}

    def run_given(self, given: Mapping[str, np.ndarray]) -> Iterator[CaseReport]:
        """One case: the caller's arrays, with empty states for what they leave out."""
        case = check_given(self.original, self.contract, given)
        check_empty(self.original, set(self.result.roles), given)
        assert self.sessions is not None, "open() comes first"
        inputs = {**self.contract.allowed(build_inputs(self.original, case)), **given}
        try:
            outputs = self.sessions[0].run(inputs)
        except RunError as error:
            raise UsageError("the original rejects the given inputs", found=error.what) from error
        yield self._against(case, inputs, outputs)

    def structure(self) -> list[str]:
        """What is known without running: the result is a sound graph whose inputs and outputs the original has."""
        from ...ir.core.verifier import check_structure

        check_structure(self.result.model)
        known = {value.name for value in (*self.original.model.graph.inputs, *self.original.model.graph.outputs)}
        known |= {value.name for value in self.result.inputs(Role.LOGITS_TO_KEEP)}
        graph = self.result.model.graph
        new = [
            ("input", value.name) for value in graph.inputs if self.contract.old_input(value.name or "") not in known
        ]
        new += [("output", v.name) for v in graph.outputs if self.contract.old_output(v.name or "") not in known]
        for kind, name in new:
            raise NotEqualError(f"the result has an {kind} {name!r} that the original has not", where=self.name)
        return [f"{self.name}: structure sound, inputs and outputs all the original's"]
