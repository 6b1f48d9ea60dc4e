"""pool lets one vector a text leave the graph in place of hidden rows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UsageError
from ..ir.interface.analysis import GraphAnalysis, analysis_of
from ..ir.program.contracts.heads import Pooled
from ..ir.program.program import Program
from ..ir.rewrite.builder import Builder
from ..ir.rewrite.lm_head import Valid, Validity, validity_of
from ..ir.rewrite.names import names_in
from ..ir.rewrite.task_heads import Hidden, Pooler, PoolKind, drop_outputs, find_hidden
from ..ir.serialization.sentence_config import find_sentence_config, read_sentence_config
from ..ir.states import Pairing
from .base import GraphResult, Pass, Report


class Norm(enum.Enum):
    """What length vectors get; AUTO is l2 unless files beside the model say otherwise."""

    AUTO = "auto"
    NONE = "none"
    L2 = "l2"


class VectorType(enum.Enum):
    """What vectors are handed out as."""

    NONE = "none"
    INT8 = "int8"
    BINARY = "binary"


@dataclass(frozen=True)
class Pool(Pass):
    """Pools the valid hidden rows of each text into one vector, and gives it length one.

    Before → after::

        last_hidden_state float [B, S, D]   →   sentence_embedding float [B, D]

    1. Rows are valid where the attention mask's last S columns mark them; without a mask, where positions are ≥ 0.
       Padding may stand left, right or anywhere; a text without a valid row gives zeros, never NaN.
    2. ``last`` and ``cls`` copy the last and the first valid row; ``mean`` and ``weighted-mean`` (the n-th row counts n
       times) sum in float32, in half-precision graphs too; ``max`` takes the largest of each dimension.
    3. ``kind=auto`` reads ``modules.json`` and the pooling's ``config.json``, as sentence-transformers writes them,
       beside the model, and says what it read.
    4. ``dims`` keeps the first dimensions (Matryoshka), before the norm.
    5. ``quantize=int8``: steps of each vector's largest value over 127, and an output ``NAME_scale`` of what a step is;
       cosines need no scale. ``quantize=binary``: eight signs a byte, first in the highest bit, as numpy.packbits.
    6. Where the only output is logits, the rows before the language-model head are pooled, and the head goes.

    No weight is read.

    Left alone: a graph that gives a vector of this name; other outputs, unless ``only``. Refused: no hidden rows, or
    several outputs of them; no input that tells which rows are valid (but for ``cls``); a cache, whose rows of earlier
    runs would be missing; a pooling that the files name and that is not known.

    Attributes:
        kind: auto, last, mean, weighted-mean, cls or max.
        from_: The output of hidden rows, where several hold some.
        normalize: l2, none, or auto: l2 unless files beside the model have no Normalize.
        dims: How many of the first dimensions are kept.
        quantize: none, int8 or binary.
        name_: The name of the new output.
        only: Drop the other outputs.
    """

    name: ClassVar[str] = "pool"

    kind: PoolKind = PoolKind.AUTO
    from_: str | None = None
    normalize: Norm = Norm.AUTO
    dims: int | None = None
    quantize: VectorType = VectorType.NONE
    name_: str = "sentence_embedding"
    only: bool = False

    def run(self, program: Program) -> Report:
        """Decides what is left to files beside the model, then changes every graph."""
        if self.kind is not PoolKind.AUTO:
            norm = Norm.L2 if self.normalize is Norm.AUTO else self.normalize
            return super(Pool, replace(self, normalize=norm)).run(program)
        if all(_is_done(model, self.name_) for model in program.graphs.values()):
            return super().run(program)
        folder = find_sentence_config(program.source) if program.source is not None else None
        if folder is None:
            raise UsageError(
                "no modules.json beside the model says how to pool", where=self.name, found=program.source,
                wanted="a folder of sentence-transformers, or kind=last|mean|weighted-mean|cls|max",
                hint="Decoders take kind=last, BGE kind=cls, E5 and most others kind=mean.",
            )  # fmt: skip
        found = read_sentence_config(folder)
        norm = Norm.L2 if found.normalize else Norm.NONE
        norm = self.normalize if self.normalize is not Norm.AUTO else norm
        note = f"{' and '.join(str(path) for path in found.read)}: kind={found.kind} normalize={norm.value}"
        report = super(Pool, replace(self, kind=PoolKind(found.kind), normalize=norm)).run(program)
        return replace(report, notes=(note, *report.notes))

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; raises PassRefused, with nothing changed."""
        if _is_done(model, self.name_):
            return GraphResult(model, False, notes=(f"{self.name_} leaves the graph already",))
        where = f"{self.name}, graph {model.graph.name!r}"
        if self.kind is PoolKind.AUTO:
            raise UsageError("kind=auto is decided for a program, from its files", where=where, wanted="kind=…")
        known = analysis_of(model)
        self._check(model, known, where)
        hidden = find_hidden(model, self.name, known, self.from_)
        self._check_width(hidden.width, where)
        validity = validity_of(model, hidden.tokens, known.states, known.roles, known.facts)
        if validity.how is Valid.ALL and self.kind is not PoolKind.CLS:
            raise PassRefused(
                "no input tells which rows are valid", where=where,
                found=", ".join(str(value.name) for value in model.graph.inputs),
                wanted="an attention mask [batch, tokens], or positions with -1 for padding",
                hint="Export the model with attention_mask; kind=cls takes the first row without one.",
            )  # fmt: skip
        vectors = self._emit(model, hidden, validity)
        gone = self._replace(model, hidden, vectors)
        counts = {"vectors": 1, **({"outputs dropped": gone} if gone else {})}
        return GraphResult(model, True, counts=counts, contracts=(self._contract(hidden, validity),))

    def _check(self, model: ir.Model, known: GraphAnalysis, where: str) -> None:
        if self.dims is not None and self.dims < 1:
            raise UsageError("keeps at least one dimension", where=where, found=f"dims={self.dims}")
        taken = set(names_in(model.graph))
        for name in (self.name_, *self._scale):
            if name in taken or not name:
                raise UsageError("this name is taken in the graph", where=where, found=name, hint="Choose name=….")
        carried = [state.name for state in known.states if state.pairing is Pairing.BOTH]
        if carried:
            raise PassRefused(
                "the graph carries a cache, and rows of earlier runs would not be pooled", where=where,
                found=f"{len(carried)} states, {carried[0]} first", hint="Put strip-states before this pass.",
            )  # fmt: skip

    def _check_width(self, width: int, where: str) -> None:
        dims = self.dims or width
        if dims > width:
            raise UsageError("rows have fewer dimensions", where=where, found=f"dims={dims}", wanted=f"≤ {width}")
        if self.quantize is VectorType.BINARY and dims % 8:
            raise UsageError("signs fill whole bytes", where=where, found=f"{dims} dimensions", hint="Choose dims=….")

    @property
    def _scale(self) -> tuple[str, ...]:
        return (f"{self.name_}_scale",) if self.quantize is VectorType.INT8 else ()

    def _emit(self, model: ir.Model, hidden: Hidden, validity: Validity) -> list[ir.Value]:
        builder = Builder(model.graph, self.name)
        pooler = Pooler(builder, hidden, validity, model.opset_imports.get("", 1))
        vectors, width = pooler.pool(self.kind), self.dims or hidden.width
        if width < hidden.width:
            vectors = pooler.first_dims(vectors, width)
        if self.normalize is Norm.L2:
            vectors = pooler.normalized(vectors, width)
        outputs = [vectors]
        if self.quantize is VectorType.INT8:
            outputs = list(pooler.as_int8(vectors, width))
        elif self.quantize is VectorType.BINARY:
            outputs = [pooler.as_bits(vectors, width)]
        elif vectors.dtype is not hidden.dtype:
            cast = builder.cast(vectors, hidden.dtype, "vectors/cast")
            cast.shape = vectors.shape
            outputs = [cast]
        builder.place_after(hidden.rows)
        for value, name in zip(outputs, (self.name_, *self._scale), strict=True):
            value.name = name
        return outputs

    def _replace(self, model: ir.Model, hidden: Hidden, vectors: list[ir.Value]) -> int:
        """Puts the vectors in the place of the rows; what nothing needs any more goes. How many outputs went."""
        outputs = model.graph.outputs
        at = list(outputs).index(hidden.output)
        others = [value for value in outputs if value is not hidden.output] if self.only else []
        outputs[at : at + 1] = vectors
        outputs[:] = [value for value in outputs if value not in others]
        drop_outputs(model.graph, [hidden.output, *others] if hidden.inside else others)
        return len(others)

    def _contract(self, hidden: Hidden, validity: Validity) -> Pooled:
        source = validity.source
        return Pooled(
            output=self.name_,
            hidden=hidden.rows.name or "",
            pooling=self.kind.value,
            normalize=self.normalize.value,
            dims=self.dims,
            quantize=self.quantize.value,
            scale=self._scale[0] if self._scale else "",
            how=validity.how.value,
            source=source.name or "" if source is not None else "",
            inside=hidden.inside,
        )


def _is_done(model: ir.Model, name: str) -> bool:
    """True where an output of this name holds one row a batch line."""
    found = next((value for value in model.graph.outputs if value.name == name), None)
    return found is not None and found.shape is not None and len(found.shape) == 2
