"""select-vocab leaves the head only the words that are asked for, and makes scores of them."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import onnx_ir as ir

from ..ir.core.errors import InputError, UsageError
from ..ir.interface.analysis import Known, analysis_of
from ..ir.program.contracts.heads import SelectedWords
from ..ir.program.program import Program
from ..ir.rewrite.builder import Builder
from ..ir.rewrite.lm_head import find_head, mark_words
from ..ir.rewrite.names import names_in
from ..ir.rewrite.task_heads import Vocabulary
from ..ir.serialization.strict import StrictReader
from ..ir.serialization.tokenizer_file import find_tokenizer_file, token_ids
from .base import GraphResult, Pass, Report

READER = StrictReader("a list of token ids", InputError)
FLOAT = ir.DataType.FLOAT
MAP = "token_ids.json"
"""What a save calls the list of the words' ids."""


class Scores(enum.Enum):
    """What becomes of the chosen words' logits."""

    COLUMNS = "columns"
    DIFFERENCE = "difference"
    PROBABILITY = "probability"
    SOFTMAX = "softmax"


NAMES = {Scores.DIFFERENCE: "score", Scores.PROBABILITY: "score", Scores.SOFTMAX: "probabilities"}


@dataclass(frozen=True)
class SelectVocab(Pass):
    """Takes all words but the chosen ones out of the language-model head.

    Before → after::

        logits float [B, n, V] = MatMul(rows, W [D, V])   →   logits float [B, n, k] = MatMul(rows, W' [D, k])

    1. ``as=columns`` leaves the logits of the words, in the order given. ``difference`` is that of two words,
       ``[B, n]``; ``probability`` of the first of two is the sigmoid of it; ``softmax`` is over the chosen words.
    2. Of the weights only the chosen columns or rows are read. A head that nothing else uses is dropped from the
       result; one tied to the embedding stays for that.
    3. MatMul, Gemm, MatMulNBits, and weights behind Transpose, Cast, DequantizeLinear; behind the head a bias is cut
       too, casts, scales and softcaps stay.
    4. Words are ids, or texts that ``tokenizer.json`` beside the model has as one token each.
    5. ``file`` is a JSON list of ids (a reduced vocabulary for drafts): new id = place in the list. The save writes the
       list beside the graphs as ``token_ids.json``; ``generate`` gives the old ids.

    Left alone: every other output. Refused: no head or several, a text of several tokens, ids twice or beyond the
    vocabulary, an operator behind the head that looks at all words.

    Attributes:
        tokens: Ids or texts.
        file: A JSON list of ids, in place of ``tokens``.
        as_: columns, difference, probability or softmax.
        name_: The name of a new output; score or probabilities by default.
        optional: Without tokens and file leave the graph as it is, and say so.
    """

    name: ClassVar[str] = "select-vocab"
    preserves: ClassVar[frozenset[Known]] = frozenset({Known.STATES})

    tokens: tuple[str, ...] = ()
    file: Path | None = None
    as_: Scores = Scores.COLUMNS
    name_: str = ""
    optional: bool = False

    def run(self, program: Program) -> Report:
        """Finds the words' ids by the files beside the model, then changes every graph."""
        if not self.tokens and self.file is None and self.optional:
            return Report(notes=("no tokens are given: the logits keep the whole vocabulary",))
        texts = [token for token in self.tokens if not _is_id(token)]
        if not texts:
            report = super().run(program)
            if self.file is not None:
                program.artifacts[MAP] = json.dumps(self._ids(self.name)) + "\n"
            return report
        path = find_tokenizer_file(program.source) if program.source is not None else None
        if path is None:
            raise UsageError(
                "no tokenizer.json beside the model tells the ids of words", where=self.name,
                found=", ".join(texts[:4]), hint="Put it there, or give ids: tokens=9693,2152.",
            )  # fmt: skip
        found = dict(zip(texts, token_ids(path, texts), strict=True))
        ids = tuple(str(found.get(token, token)) for token in self.tokens)
        report = super(SelectVocab, replace(self, tokens=ids)).run(program)
        said = ", ".join(f"{text!r} is {number}" for text, number in found.items())
        return replace(report, notes=(f"{path}: {said}", *report.notes))

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; raises UsageError for the words, PassRefused, with nothing changed, for the graph."""
        where = f"{self.name}, graph {model.graph.name!r}"
        ids = self._ids(where)
        known = analysis_of(model)
        head = find_head(model, self.name, known.states, known.roles, known.facts)
        beyond = [number for number in ids if number >= head.vocabulary]
        if beyond:
            raise UsageError("no token of the vocabulary", where=where, found=beyond[0], wanted=f"< {head.vocabulary}")
        name = self.name_ or NAMES.get(self.as_, head.output.name or "")
        if name != head.output.name and name in set(names_in(model.graph)):
            raise UsageError("this name is taken in the graph", where=where, found=name, hint="Choose name=….")
        builder, before = Builder(model.graph, self.name), head.output.name or ""
        plan = Vocabulary(head, ids, known.facts, builder, where).plan()
        logits = plan.apply()
        if self.as_ is Scores.COLUMNS:
            mark_words(model, len(ids))
        if self.as_ is not Scores.COLUMNS:
            self._score(model, builder, logits, name)
        elif name != before:
            logits.name = name
        contract = SelectedWords(output=name, logits=before, tokens=tuple(ids), scores=self.as_.value)
        counts = {"words": len(ids), "words left out": head.vocabulary - len(ids)}
        return GraphResult(model, True, counts=counts, contracts=(contract,))

    def _ids(self, where: str) -> list[int]:
        if (not self.tokens) == (self.file is None):
            raise UsageError("give tokens=… or file=…, one of them", where=where)
        if self.file is not None:
            ids = _read_ids(self.file)
        elif not all(_is_id(token) for token in self.tokens):
            raise UsageError("words are found for a program, from its files", where=where, wanted="ids")
        else:
            ids = [int(token) for token in self.tokens]
        twice = [number for at, number in enumerate(ids) if number in set(ids[:at])] if len(set(ids)) < len(ids) else []
        if twice:
            raise UsageError("a token stands twice", where=where, found=twice[0])
        if self.as_ in (Scores.DIFFERENCE, Scores.PROBABILITY) and len(ids) != 2:
            raise UsageError(f"as={self.as_.value} takes two tokens", where=where, found=len(ids))
        return ids

    def _score(self, model: ir.Model, builder: Builder, logits: ir.Value, name: str) -> None:
        rows = list(logits.shape)[:-1] if logits.shape is not None else None
        dtype = logits.dtype or FLOAT
        wide = logits if dtype is FLOAT else builder.op("Cast", [logits], "float", {"to": int(FLOAT)}, dtype=FLOAT)
        if self.as_ is Scores.SOFTMAX:
            found = builder.op("Softmax", [wide], "softmax", {"axis": -1}, None, FLOAT)
            shape = ir.Shape([*rows, len(self._ids(""))]) if rows is not None else None
        else:
            parts = [
                builder.op("Gather", [wide, builder.ints(at, f"{at}")], f"word_{at}", {"axis": -1}, None, FLOAT)
                for at in (0, 1)
            ]
            found = builder.op("Sub", parts, "difference", None, None, FLOAT)
            if self.as_ is Scores.PROBABILITY:
                found = builder.op("Sigmoid", [found], "probability", None, None, FLOAT)
            shape = ir.Shape(rows) if rows is not None else None
        found = builder.cast(found, dtype, "cast")
        builder.place_after(logits)
        found.name, found.shape = name, shape
        at = list(model.graph.outputs).index(logits)
        model.graph.outputs[at : at + 1] = [found]


def _is_id(token: str) -> bool:
    return token.isascii() and token.isdigit() and len(token) < 10


def _read_ids(path: Path) -> list[int]:
    found: Any = READER.load_json(READER.read_text(path), where=str(path))
    items: Sequence[Any] = cast("list[Any]", found) if isinstance(found, list) else []
    if not items or not all(type(item) is int and 0 <= item < 1 << 31 for item in items):
        raise InputError("is no list of token ids", where=str(path), wanted="[1, 2, …]")
    return list(items)
