"""lora puts low-rank adapters beside each layer's projections as inputs or slots, or folds them into the weights."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..ir.core.errors import PassRefused, UsageError
from ..ir.interface.analysis import Known, analysis_of
from ..ir.interface.roles import Role
from ..ir.program.contract import Contract
from ..ir.program.contracts.adapters import AdapterInputs, AdapterSlots, Source, WeightsFolded
from ..ir.program.program import Program
from ..ir.rewrite.builder import Builder
from ..ir.rewrite.lora import LORA_IDS, Beside, fold
from ..ir.rewrite.lora.plan import Target, by_adapters, by_kinds, projections_of, table
from ..ir.rewrite.names import names_in
from ..ir.serialization.adapters import SUFFIX, Adapter, LowRank, read_adapter
from ..ir.serialization.onnx_adapter_file import write_onnx_adapter
from ..ir.shapes.float_values import element_types
from ..ir.symbolic.symbols import dims_of
from .base import GraphResult, Pass, Report

SYMBOL = "lora_rank"
MARK = "onnx_llm_passes.folded"
"""The metadata by which a graph tells which adapters lie in its weights."""
DEFAULT_TARGETS = ("q", "v")  # what PEFT 0.21 adapts of Llama where nothing is said


class Mode(enum.Enum):
    """Where an adapter goes."""

    INPUTS = "inputs"
    SLOTS = "slots"
    FOLD = "fold"


@dataclass(frozen=True)
class Lora(Pass):
    """Lets one graph serve low-rank adapters: given with each run, chosen line by line, or folded into its weights.

    Before → after, of each projection that is a target::

        y = MatMul(x, W)   →   inputs:  y + MatMul(MatMul(x, A), B), A [in, r] and B [r, out] are graph inputs
                           →   slots:   the same, A and B picked by lora_ids [B, 1] out of the stacked adapters
                           →   fold:    MatMul(x, W + A·B)

    1. Projections are found by what they feed: q, k, v, o, gate, up, down of each layer, in, qkv, gate_up; head.
       Columns of packed products count as projections of their own. MatMul, Gemm, MatMulNBits and integer products.
    2. ``adapters`` are PEFT folders (``adapter_config.json``, ``adapter_model.safetensors``; alpha, rsLoRA, patterns)
       or ``.onnx_adapter`` files. Their modules are the targets; each must match one projection, and its sizes.
    3. ``inputs``: rank 0, or zeros, are the base model. The rank is the symbol ``lora_rank``, which a clone or manifest
       binds (``bind=lora_rank:16``), or ``rank``. Each adapter is written beside the graph as ``NAME.onnx_adapter``.
    4. ``slots``: number 0 is the base model; ranks that differ are filled up with zeros to ``rank``.
    5. ``fold``: weights are read one at a time, when they are written.

    Left alone: a graph that has the adapters already, or takes no tokens. Refused: layers that cannot be told, modules
    that match nothing, matrices of another base model or with NaN, DoRA; ``fold`` of quantized or shared weights.

    Attributes:
        mode: inputs, slots or fold.
        rank: The rank of inputs and slots; a symbol, or the adapters' own, by default.
        targets: Kinds or names of projections where no adapter tells them; q,v by default.
        adapters: Folders of PEFT, or .onnx_adapter files.
        retained: Each input is given back as NAME_RetainedState, so that a compiler keeps it on the device.
        optional: Inputs have empty matrices as defaults and may be left out, as Olive writes them.
    """

    name: ClassVar[str] = "lora"
    preserves: ClassVar[frozenset[Known]] = frozenset()

    mode: Mode = Mode.INPUTS
    rank: int | None = None
    targets: tuple[str, ...] = ()
    adapters: tuple[Path, ...] = ()
    retained: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        """UsageError for options that do not go together."""
        where = f"pass {self.name!r}"
        if self.mode is not Mode.INPUTS and not self.adapters:
            raise UsageError(f"mode={self.mode.value} needs adapters", where=where, wanted="adapters=FOLDER,…")
        if self.mode is not Mode.INPUTS and (self.retained or self.optional):
            raise UsageError("retained and optional are of mode=inputs", where=where, found=self.mode.value)
        if self.adapters and self.targets:
            raise UsageError("the adapters tell the targets", where=where, found=", ".join(self.targets))
        if self.rank is not None and (self.rank < 0 or self.mode is Mode.FOLD or self.optional):
            wanted = "a rank >= 0 of inputs or slots; the rank of optional inputs stays open"
            raise UsageError("no rank", where=where, found=self.rank, wanted=wanted)

    def run(self, program: Program) -> Report:
        """Changes every graph; adapters that go in as inputs are written beside them."""
        report = super().run(program)
        linked = next((c for c in report.contracts if isinstance(c, AdapterInputs)), None)
        if linked is None or not self.adapters:
            return report
        for adapter in self._read():
            program.artifacts[f"{adapter.name}{SUFFIX}"] = self._written(adapter, linked)
        return replace(report, notes=(*report.notes, f"adapters are written as NAME{SUFFIX}"))

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; raises UsageError, InputError or PassRefused, with nothing changed."""
        where = f"{self.name}, graph {model.graph.name!r}"
        known, adapters = analysis_of(model), self._read()
        if not any(role in (Role.TOKEN_IDS, Role.EMBEDDINGS) for role in known.roles.values()):
            return GraphResult(model, False, notes=("the graph takes no tokens",))
        if self._is_done(model, adapters):
            return GraphResult(model, False, notes=("the graph has these adapters already",))
        projections = projections_of(model, known, where)
        if adapters:
            targets = by_adapters(projections, adapters, where)
        else:
            targets = by_kinds(projections, self.targets or DEFAULT_TARGETS, where)
        self._hold_ranks(targets, adapters, where)
        for pair in (pair for adapter in adapters for pair in adapter.pairs):
            pair.hold_finite()  # before anything changes
        beside = Beside(model, Builder(model.graph, self.name), known.facts, element_types(model), where)
        contract = getattr(self, f"_{self.mode.value}")(beside, targets, adapters)
        counts = {"projections": len(targets)}
        return GraphResult(model, True, counts, tuple(table(targets, projections, adapters)), contracts=(contract,))

    def _read(self) -> list[Adapter]:
        found = [read_adapter(path) for path in self.adapters]
        names = [adapter.name for adapter in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError("two adapters have one name", where=self.name, found=twice, hint="Rename a folder.")
        return found

    def _is_done(self, model: ir.Model, adapters: Sequence[Adapter]) -> bool:
        names = {value.name for value in model.graph.inputs}
        if self.mode is Mode.FOLD:
            return model.metadata_props.get(MARK) == _digests(adapters)
        return LORA_IDS in names if self.mode is Mode.SLOTS else any(_halves(n or "") for n in names)

    def _hold_ranks(self, targets: Sequence[Target], adapters: Sequence[Adapter], where: str) -> None:
        """PassRefused where ranks differ and no option says to which they are filled up, or one is larger than that."""
        ranks = {adapter.name: max(pair.rank for pair in adapter.pairs) for adapter in adapters}
        if self.rank is not None and (above := [f"{n}: {r}" for n, r in ranks.items() if r > self.rank]):
            raise PassRefused("an adapter has a larger rank", where=where, found=", ".join(above), wanted=self.rank)
        if self.mode is Mode.SLOTS and self.rank is None and len(set(ranks.values())) > 1:
            found = ", ".join(f"{name}: {rank}" for name, rank in ranks.items())
            hint = f"Give rank={max(ranks.values())}: smaller ones are filled up with zeros, which changes nothing."
            raise PassRefused("the adapters' ranks differ", where=where, found=found, hint=hint)

    def _inputs(self, beside: Beside, targets: Sequence[Target], adapters: Sequence[Adapter]) -> Contract:
        graph, taken = beside.model.graph, set(names_in(beside.model.graph))
        rank = self.rank if self.rank is not None else SYMBOL
        dtypes = [_dtype(beside, target) for target in targets]
        for target in targets:
            if found := taken.intersection(_names(target.module)):
                raise UsageError("this name is taken in the graph", where=beside.where, found=min(found))
        for target, dtype in zip(targets, dtypes, strict=True):
            shapes = ([target.projection.width, rank], [rank, target.projection.columns])
            values = [
                ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
                for name, shape in zip(_names(target.module), shapes, strict=True)
            ]
            for value in values:
                self._enter(graph, value, dtype)
            beside.add(target.projection, *values)
        return AdapterInputs(
            modules=tuple(target.module for target in targets),
            downs=tuple(_names(target.module)[0] for target in targets),
            ups=tuple(_names(target.module)[1] for target in targets),
            widths=tuple((target.projection.width, target.projection.columns) for target in targets),
            dtype=dtypes[0].name,
            rank=rank,
            retained=tuple(f"{n}_RetainedState" for t in targets for n in _names(t.module) if self.retained),
        )

    def _enter(self, graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> None:
        """Puts one half among the inputs, with its default and its way out where they are asked for."""
        graph.inputs.append(value)
        if self.optional:
            empty = np.zeros([dim if isinstance(dim, int) else 0 for dim in dims_of(value) or ()], dtype.numpy())
            value.const_value = ir.Tensor(empty, dtype=dtype, name=value.name)
            graph.register_initializer(value)
        if self.retained:
            builder = Builder(graph, self.name)
            out = builder.op("Identity", [value], f"{value.name}_RetainedState", like=value, exact=True)
            builder.place_end()
            graph.outputs.append(out)

    def _slots(self, beside: Beside, targets: Sequence[Target], adapters: Sequence[Adapter]) -> Contract:
        graph = beside.model.graph
        tokens = _tokens(beside.model)
        batch = (dims_of(tokens) or (None,))[0]
        ends = [_dtype(beside, target) for target in targets]
        for target in targets:
            beside.rank_of(beside.ends(target.projection)[0])
        ids = ir.Value(name=LORA_IDS, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([_text(batch), 1]))
        stacks = [_stacked(target, self._slot_rank(target), dtype) for target, dtype in zip(targets, ends, strict=True)]
        graph.inputs.append(ids)
        beside.choose_by(ids)
        for target, (downs, ups) in zip(targets, stacks, strict=True):
            down = beside.builder.constant(downs, f"{target.module}.lora_A")
            up = beside.builder.constant(ups, f"{target.module}.lora_B")
            beside.add(target.projection, down, up)
        return AdapterSlots(
            ids=LORA_IDS, tokens=tokens.name or "", sources=_sources(adapters), modules=_modules(targets)
        )

    def _slot_rank(self, target: Target) -> int:
        return self.rank if self.rank is not None else target.rank

    def _fold(self, beside: Beside, targets: Sequence[Target], adapters: Sequence[Adapter]) -> Contract:
        by_node: dict[ir.Node, list[Target]] = {}
        for target in targets:
            by_node.setdefault(target.projection.node, []).append(target)
        plans = [fold([(t.projection, _delta(t.pairs)) for t in group], beside.where) for group in by_node.values()]
        for put in plans:
            put()
        beside.model.metadata_props[MARK] = _digests(adapters)
        kinds = {_dtype(beside, target) for target in targets}
        narrow = min(kinds, key=lambda dtype: dtype.itemsize)
        return WeightsFolded(sources=_sources(adapters), modules=_modules(targets), dtype=narrow.name)

    def _written(self, adapter: Adapter, linked: AdapterInputs) -> bytes:
        """The adapter under the inputs' names, zeros for pairs that it has not; one rank, or none is left out."""
        pairs = {pair.module: pair for pair in adapter.pairs}
        rank = self.rank if self.rank is not None else max(pair.rank for pair in adapter.pairs)
        dtype = ir.DataType[linked.dtype].numpy()
        tensors: dict[str, np.ndarray] = {}
        for module, down, up, widths in zip(linked.modules, linked.downs, linked.ups, linked.widths, strict=True):
            matrices = _filled(pairs.get(module), rank, *widths)
            tensors[down], tensors[up] = (matrix.astype(dtype) for matrix in matrices)
        return write_onnx_adapter(tensors)


def _names(module: str) -> tuple[str, str]:
    return f"{module}.lora_A.weight", f"{module}.lora_B.weight"


def _halves(name: str) -> bool:
    return name.endswith((".lora_A.weight", ".lora_B.weight"))


def _dtype(beside: Beside, target: Target) -> ir.DataType:
    product = beside.ends(target.projection)[1]
    return beside.types.get(product, product.dtype) or ir.DataType.FLOAT


def _tokens(model: ir.Model) -> ir.Value:
    roles = analysis_of(model).roles
    inputs = {role: value for value in reversed(model.graph.inputs) for role in (roles.get(value.name or ""),)}
    return inputs[Role.TOKEN_IDS if Role.TOKEN_IDS in inputs else Role.EMBEDDINGS]


def _text(dim: object) -> int | str | None:
    return dim if isinstance(dim, int) else None if dim is None else str(dim)


def _filled(pair: LowRank | None, rank: int, width: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """FLOAT ``[width, rank]`` and ``[rank, columns]``, zeros behind the pair's own rank."""
    down, up = np.zeros((width, rank), np.float32), np.zeros((rank, columns), np.float32)
    if pair is not None:
        down[:, : pair.rank], up[: pair.rank] = pair.down(), pair.up()
    return down, up


def _stacked(target: Target, rank: int, dtype: ir.DataType) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    """Both stacks, the base model's zeros first."""
    widths = target.projection.width, target.projection.columns
    filled = [_filled(pair, rank, *widths) for pair in (None, *target.pairs)]
    downs, ups = (np.stack(matrices).astype(dtype.numpy()) for matrices in zip(*filled, strict=True))
    return ir.Tensor(downs, dtype=dtype), ir.Tensor(ups, dtype=dtype)


def _delta(pairs: Sequence[LowRank | None]) -> Callable[[], np.ndarray]:
    def total() -> np.ndarray:
        return sum(pair.down().astype(np.float64) @ pair.up() for pair in pairs if pair is not None)  # pyright: ignore[reportReturnType]

    return total


def _sources(adapters: Sequence[Adapter]) -> tuple[Source, ...]:
    return tuple(Source(adapter.name, str(adapter.path), adapter.sha256) for adapter in adapters)


def _modules(targets: Sequence[Target]) -> tuple[str, ...]:
    return tuple(target.module for target in targets)


def _digests(adapters: Sequence[Adapter]) -> str:
    return ",".join(adapter.sha256[:16] for adapter in adapters)
