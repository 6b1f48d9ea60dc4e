"""Runs a single-shot program over texts or arrays and gives one vector or score for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...ir.core.errors import UnknownNameError, UsageError
from ...ir.program.contracts.heads import Pooled, SelectedWords
from ...ir.program.program import Program
from ..session.legalize import legalized
from ..session.session import Optimization, Session
from ..session.subject import Subject
from .feeds import feeds_of, rows_of
from .sizes import Batch, Size, plan, sizes_of
from .texts import Item
from .tokens import Encoder

OnStep = Callable[[int, int], None]
SLOWER = ("SkipLayerNormFusion",)
"""onnxruntime 1.32's CPU kernel of a sum with its norm takes several times as long as the two operators alone."""


@dataclass
class Stats:
    """How a prediction went; ``padding`` is the share of tokens that were fed and belong to no text."""

    texts: int = 0
    runs: int = 0
    truncated: int = 0
    padding: float = 0.0
    tokenize_s: float = 0.0
    run_s: float = 0.0
    texts_per_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """As --json shows it."""
        return asdict(self)


@dataclass
class Predicted:
    """``values`` has a row a text; ``feeds`` what was fed, by length, where that was asked for."""

    output: str
    values: np.ndarray
    stats: Stats
    feeds: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    def to_dict(self) -> dict[str, Any]:
        """Plain data: vectors or scores as lists."""
        return {"output": self.output, "values": self.values.tolist(), "stats": self.stats.as_json()}


class Predictor:
    """A program that is ready to run: one session a graph."""

    def __init__(self, program: Program, *, output: str | None = None, threads: int = 1) -> None:
        """Raises UsageError for a program that answers with several outputs, or carries a cache."""
        self.subjects = {name: Subject.of(program.graph(name), name) for name in program.names}
        carried = [name for name, subject in self.subjects.items() if subject.by_input]
        if carried:
            raise UsageError(
                "the graph carries a cache from run to run", where=carried[0],
                hint="Put strip-states first, or use generate.",
            )  # fmt: skip
        self.output = _output(program, self.subjects, output)
        self.sizes: list[Size] = []
        self._program = program
        self._sessions = {
            name: Session(legalized(subject.model).model, name, Optimization.ALL, threads=threads, without=SLOWER)
            for name, subject in self.subjects.items()
        }

    @property
    def longest(self) -> int | None:
        """The largest compiled length; None where one is open."""
        self.sizes = self.sizes or sizes_of(self._program, self.subjects)
        lengths = [size.length for size in self.sizes]
        return None if None in lengths else max(length for length in lengths if length is not None)

    def texts(
        self, items: Sequence[Item], encoder: Encoder, *, batch: int | None = None, strict: bool = False,
        keep_feeds: bool = False, on_step: OnStep | None = None,
    ) -> Predicted:  # fmt: skip
        """One row a text, in the order of the texts; ``strict`` refuses a text that is too long."""
        began = time.perf_counter()
        tokens = encoder.encode(items, self.longest)
        cut = [at for at, text in enumerate(tokens) if text.cut]
        empty = next((at for at, text in enumerate(tokens) if not text.ids), None)
        if empty is not None:
            raise UsageError("a text has no tokens", where=f"text {empty + 1}", found=repr(items[empty].text[:60]))
        if strict and cut:
            raise UsageError(
                f"{len(cut)} texts are longer than the largest compiled length", where=f"text {cut[0] + 1}",
                found=f"{len(tokens[cut[0]].ids) + tokens[cut[0]].cut} tokens", wanted=f"at most {self.longest}",
            )  # fmt: skip
        ready = time.perf_counter()
        batches = plan([len(text.ids) for text in tokens], self.sizes, batch)
        values: np.ndarray | None = None
        kept: list[tuple[Batch, dict[str, np.ndarray]]] = []
        done = fed = 0
        for part in batches:
            rows = rows_of([tokens[at] for at in part.texts], part.rows, part.length)
            feeds = feeds_of(self.subjects[part.graph], rows)
            found = self._run(part.graph, feeds, len(part.texts))
            values = np.zeros((len(tokens), *found.shape[1:]), found.dtype) if values is None else values
            values[list(part.texts)] = found
            done, fed = done + len(part.texts), fed + part.rows * part.length
            if keep_feeds:
                kept.append((part, feeds))
            if on_step is not None:
                on_step(done, len(tokens))
        assert values is not None, "there is a text"
        spent = time.perf_counter() - ready
        padding = 1 - sum(len(text.ids) for text in tokens) / fed
        rate = len(tokens) / (spent + ready - began)
        stats = Stats(len(tokens), len(batches), len(cut), padding, ready - began, spent, rate)
        return Predicted(self.output, _flat(values), stats, _stacked(kept))

    def arrays(self, given: Mapping[str, np.ndarray], on_step: OnStep | None = None) -> Predicted:
        """One row a row of the given arrays, which are cut into runs where the graph's batch is smaller."""
        name = next(iter(self.subjects))
        known = [value.name or "" for value in self.subjects[name].model.graph.inputs]
        for wanted in known:
            if wanted not in given:
                raise UnknownNameError("input", wanted, given, where="the arrays", hint="Every input is needed.")
        feeds = {wanted: given[wanted] for wanted in known}
        rows = len(next(iter(feeds.values())))
        size = self.subjects[name].fixed(0) or rows
        began, parts = time.perf_counter(), list[np.ndarray]()
        for start in range(0, rows, size):
            cut = {key: _rows(array, rows, start, size) for key, array in feeds.items()}
            parts.append(self._run(name, cut, min(size, rows - start)))
            if on_step is not None:
                on_step(min(start + size, rows), rows)
        spent = time.perf_counter() - began
        stats = Stats(rows, len(parts), run_s=spent, texts_per_s=rows / spent)
        return Predicted(self.output, _flat(np.concatenate(parts)), stats)

    def _run(self, graph: str, feeds: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        found = self._sessions[graph].run(feeds, [self.output])[self.output]
        if found.ndim == 0 or len(found) < rows:
            raise UsageError("the output has no row a text", where=self.output, found=list(found.shape))
        if found.ndim > 2 and found.shape[1] != 1:
            raise UsageError(
                "the output has a row a token", where=self.output, found=list(found.shape), wanted="one row a text",
                hint="Put pool, or keep-last-logits{n=1} and select-vocab, before it.",
            )  # fmt: skip
        return found[:rows]


def _output(program: Program, subjects: Mapping[str, Subject], chosen: str | None) -> str:
    subject = next(iter(subjects.values()))
    names = [value.name or "" for value in subject.model.graph.outputs]
    if chosen is not None:
        if chosen not in names:
            raise UnknownNameError("output", chosen, names)
        return chosen
    made = [link.output for link in program.contracts if isinstance(link, Pooled | SelectedWords)]
    heads = [name for name in made if name in names]
    if heads or len(names) == 1:
        return heads[-1] if heads else names[0]
    raise UsageError(
        "the graph answers with several outputs", found=", ".join(names), hint="Choose one: --output NAME."
    )


def _rows(array: np.ndarray, rows: int, start: int, size: int) -> np.ndarray:
    """The rows of one run, the last repeated where too few are left; arrays without a row a text go in whole."""
    if len(array) != rows or rows <= size:
        return array
    part = array[start : start + size]
    return part if len(part) == size else np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])


def _flat(values: np.ndarray) -> np.ndarray:
    """Without axes of one behind the first: scores are ``[texts]``."""
    return values.reshape(len(values), *(size for size in values.shape[1:] if size != 1))


def _stacked(kept: Sequence[tuple[Batch, dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """What was fed, one array an input; named by length where there are several. ``text`` tells whose each row is."""
    lengths = {part.length for part, _ in kept}
    found: dict[str, list[np.ndarray]] = {}
    for part, feeds in kept:
        places = np.array([*part.texts, *[-1] * (part.rows - len(part.texts))])
        for name, array in {**feeds, "text": places}.items():
            found.setdefault(name if len(lengths) == 1 else f"length_{part.length}/{name}", []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in found.items()}
