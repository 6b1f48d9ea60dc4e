"""How much each layer and role loses alone at few bits: its perturbation goes through the layers behind it, once.

The float run of all texts is shared. Then the layers go by one at a time: where a layer's own weights are coarse its
run begins, and every run begun before goes through its float weights. One layer is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import InputError, UsageError
from ...ir.interface.logits import logits_output
from ...ir.interface.places import Place, places_of
from ...ir.interface.projections import Part
from ...ir.program.program import Program
from ...ir.quantization.decide import Choice, channel_axis
from ...ir.quantization.qdq import quantized
from ...ir.quantization.weight_grids import weight_encoding
from ..calibrate.feed import Feeder, graph_of
from ..calibrate.rows import feeder_of
from ..decode.host import Caches
from ..decode.step import Chunk, Step
from ..session.session import Session
from .stages import Arrays, Stage, crossing, cut

WIDTHS = (8, 4)
FEWEST = 8  # tokens of a text that says anything
LONGEST = 64  # tokens of a text that is run
FORWARD = 2.0  # runs of the whole graph over all texts that the perturbed ones may cost together
Progress = Callable[[str, int, int], None]


@dataclass
class Loss:
    """What one layer's role loses alone at a width: in decibels over noise, and in nats a token, at the logits."""

    layer: int | None
    role: str
    bits: int
    weights: int
    sqnr: float = float("nan")
    kl: float = float("nan")


@dataclass
class Sensitivity:
    """The losses, layer by layer, and what they were measured on."""

    losses: list[Loss] = field(default_factory=list[Loss])
    tokens: int = 0
    texts: int = 0
    block: int = 0

    def to_dict(self) -> dict[str, object]:
        """As the command writes it."""
        losses = [vars(loss) for loss in self.losses]
        return {"block": self.block, "tokens": self.tokens, "texts": self.texts, "losses": losses}


@dataclass(eq=False)
class _Unit:
    """Weights of one layer and role, and its runs: for each text the values that differ from the float run's."""

    loss: Loss
    stage: int
    names: list[str]
    changed: list[Arrays] = field(default_factory=list[Arrays])


def sensitivity(
    program: Program,
    samples: Sequence[np.ndarray],
    *,
    rows: int | None = None,
    graph: str | None = None,
    block: int = 0,
    on_progress: Progress | None = None,
) -> Sensitivity:
    """The loss of each layer and role at 8 and at 4 bits alone, at the logits, on the beginnings of the texts.

    ``rows`` is how many tokens are run; by default as many as cost about what two runs over all texts do. ``block`` is
    how many inputs of a channel share a scale, 0 for the whole channel. Raises InputError where no text is long enough,
    PassRefused where the layers of the graph are not told by its structure.
    """
    model = program.graph(graph_of(program, graph))
    feeder = feeder_of(model, LONGEST, LONGEST)
    model = feeder.model
    answer = logits_output(model, feeder.states)
    if answer is None or answer.name is None:
        raise UsageError("a graph without an answer beside its cache has no logits", where=str(program.source))
    places = places_of(model, feeder.states)
    stages = cut(model, places, answer.name)
    units = list(_units(places.weights, stages))
    texts = _texts(samples, feeder, rows or _affordable(samples, units, len(stages)))
    floats = _float_run(feeder, stages, texts, answer.name)
    _through(model, stages, units, floats, places.weights, block, on_progress)
    return replace(_measured(units, floats, texts, answer.name), block=block)


def _units(weights: Mapping[ir.Value, Place], stages: Sequence[Stage]) -> Iterable[_Unit]:
    """Weights by layer and role, at each width, in the order of their stages."""
    of_stage = {name: stage.number for stage in stages for name in stage.weights}
    groups: dict[tuple[int, int | None, str], list[ir.Value]] = {}
    for value, place in weights.items():
        if value.name in of_stage:
            role = " ".join(sorted(part.value for part in place.parts - {Part.EMBEDDING})) or "other"
            groups.setdefault((of_stage[value.name], place.layer, role), []).append(value)
    for (stage, layer, role), members in sorted(groups.items(), key=lambda item: item[0][0]):
        count = sum(value.const_value.size for value in members if value.const_value is not None)
        for bits in WIDTHS:
            yield _Unit(Loss(layer, role, bits, count), stage, [value.name or "" for value in members])


def _affordable(samples: Sequence[np.ndarray], units: Sequence[_Unit], stages: int) -> int:
    """Tokens whose perturbed runs cost as much as ``FORWARD`` runs over all texts."""
    passes = sum((stages - unit.stage) / stages for unit in units)
    return max(int(FORWARD * sum(map(len, samples)) / max(passes, 1.0)), 2 * FEWEST)


def _texts(samples: Sequence[np.ndarray], feeder: Feeder, rows: int) -> list[np.ndarray]:
    """The beginnings of as many texts as ``rows`` tokens are enough for; longer ones rather than many."""
    usable = [np.asarray(sample)[: min(LONGEST, feeder.chunk)] for sample in samples if len(sample) >= FEWEST]
    if feeder.fixed:
        usable = [sample for sample in usable if len(sample) == feeder.chunk]
    if not usable:
        wanted = f"at least {feeder.chunk if feeder.fixed else FEWEST} tokens"
        raise InputError("no text is long enough", where="the tokens", wanted=wanted)
    each = max(min(LONGEST, rows // max(len(usable), 1)), 2 * FEWEST)
    chosen: list[np.ndarray] = []
    for sample in usable:
        if sum(map(len, chosen)) + FEWEST > rows and chosen:
            break
        chosen.append(sample if feeder.fixed else sample[:each])
    return chosen


def _float_run(feeder: Feeder, stages: Sequence[Stage], texts: Sequence[np.ndarray], answer: str) -> list[Arrays]:
    """What every stage takes and gives for each text, from one session of the whole graph; it is closed again."""
    copy, host = feeder.model.clone(), feeder.host
    values = {value.name: value for node in copy.graph for value in node.outputs}
    for name in crossing(stages):
        if not values[name].is_graph_output():
            copy.graph.outputs.append(values[name])
    host.open(copy)
    kept, found = {answer, *crossing(stages)}, list[Arrays]()
    for text in texts:
        caches, step = Caches(1), Step.of([Chunk(text, 0)])
        arrays = host.feeds(caches, step)
        results = host.session.run(arrays)
        found.append({**arrays, **{name: results[name] for name in kept}})
    host.opened = None
    return found


def _through(
    model: ir.Model,
    stages: Sequence[Stage],
    units: Sequence[_Unit],
    floats: Sequence[Arrays],
    weights: Mapping[ir.Value, Place],
    block: int,
    on_progress: Progress | None,
) -> None:
    by_name = {value.name or "": value for value in weights}
    for stage in stages:
        running = [unit for unit in units if unit.stage < stage.number and unit.changed]
        beginning = [unit for unit in units if unit.stage == stage.number]
        if not running and not beginning:
            continue
        if on_progress is not None:
            on_progress("layers", stage.number, len(stages))
        session = Session(stage.model(model, floats[0]), f"stage {stage.number}")
        exact = {name: tensor.numpy() for name, tensor in stage.weights.items()}
        for unit in (*running, *beginning):
            coarse = (
                {name: _coarse(by_name[name], unit.loss.bits, block) for name in unit.names}
                if unit in beginning
                else {}
            )
            changed = unit.changed or [Arrays() for _ in floats]
            unit.changed = [
                {**before, **_differing(session, stage, {**base, **before}, {**exact, **coarse}, base)}
                for before, base in zip(changed, floats, strict=True)
            ]
            _forget(unit, stages, stage.number)


def _differing(
    session: Session, stage: Stage, known: Mapping[str, np.ndarray], weights: Arrays, base: Mapping[str, np.ndarray]
) -> Arrays:
    feeds = {name: known[name] for name in stage.takes} | weights
    results = session.run({name: array for name, array in feeds.items() if name in session.input_names})
    return {name: array for name, array in results.items() if not np.array_equal(array, base[name])}


def _forget(unit: _Unit, stages: Sequence[Stage], number: int) -> None:
    """Values that no later stage takes go, but for the last one's."""
    wanted = {name for stage in stages[number + 1 :] for name in stage.takes} | set(stages[-1].gives)
    unit.changed = [{name: array for name, array in one.items() if name in wanted} for one in unit.changed]


def _coarse(value: ir.Value, bits: int, block: int) -> np.ndarray:
    """The weight put on a grid of its channels, and taken off it again."""
    assert value.const_value is not None, "weights are initializers"
    array, name = value.const_value.numpy(), value.name or ""
    encoding = weight_encoding(name, array, Choice(bits, symmetric=True, block=block), channel_axis(value))
    held = replace(encoding, scale=tuple(np.array(encoding.scale, np.float32).tolist()))
    scale = np.array(held.scale, np.float32).reshape(held.shape)
    if held.block is not None and held.axis is not None:
        scale = np.repeat(scale, held.block, axis=held.axis).take(range(array.shape[held.axis]), axis=held.axis)
    elif held.axis is not None:
        scale = scale.reshape([-1 if axis == held.axis else 1 for axis in range(array.ndim)])
    return (quantized(array, held).astype(array.dtype) * scale).astype(array.dtype)


def _measured(
    units: Sequence[_Unit], floats: Sequence[Arrays], texts: Sequence[np.ndarray], answer: str
) -> Sensitivity:
    from .metrics import kl, sqnr

    exact = [base[answer].astype(np.float64) for base in floats]
    found = Sensitivity(tokens=sum(map(len, texts)), texts=len(texts))
    for unit in units:
        other = [
            one.get(answer, base[answer]).astype(np.float64) for one, base in zip(unit.changed, floats, strict=True)
        ]
        flat = [np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays]) for arrays in (exact, other)]
        unit.loss.sqnr, unit.loss.kl = sqnr(*flat), kl(*flat)
        found.losses.append(unit.loss)
    return found
