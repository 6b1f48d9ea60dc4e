"""What a graph and its result compute, on plain onnxruntime: code of its own, with nothing of `verify` in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

Array = np.ndarray[Any, Any]
CTX, LIMIT = 32, 3e-5
STEPS = (3, 1, 0, 2, 0, 3, 1, 0)  # how many of three tokens a step keeps; 0: one token a run
BATCH = frozenset("batch batch_size full_batch_size s10 s43".split())
GROWS = frozenset("past past_sequence_length s15 P".split())
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class Graph:
    """A graph on onnxruntime with its operators as spelled, one thread, and caches that are carried by name."""

    def __init__(self, content: bytes | Path) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        source = str(content) if isinstance(content, Path) else content
        self.session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.inputs = {v.name: v for v in self.session.get_inputs()}
        self.outputs = [v.name for v in self.session.get_outputs()]
        self.caches: dict[str, Array] = {}

    @property
    def length(self) -> int | None:
        """How many tokens a run takes, where the graph says so."""
        size = self.inputs["input_ids"].shape[1]
        return size if isinstance(size, int) else None

    def begin(self, batch: int, rows: int) -> None:
        """Empty caches: none of the rows of one that grows, ``rows`` rows of zeros of one that is written in place."""
        self.caches = {
            name: np.zeros([_size(dim, batch, rows) for dim in value.shape], _TYPES[value.type])
            for name, value in self.inputs.items()
            if re.match(r"past|cache_(key|value)", name)
        }

    def run(self, tokens: Array, start: int, valid: int | None = None, keep: bool = True) -> dict[str, Array]:
        """One run of ``tokens`` ``[B, S]`` from position ``start`` on, of which ``valid`` are none of padding."""
        feeds = {name: self._feed(name, tokens, start, valid) for name in self.inputs if name not in self.caches}
        found = dict(zip(self.outputs, self.session.run(None, {**feeds, **self.caches}), strict=True))
        if keep:
            self.caches = {name: found.get(present(name, self.outputs), held) for name, held in self.caches.items()}
        return found

    def _feed(self, name: str, tokens: Array, start: int, valid: int | None) -> Array:
        batch, count = tokens.shape
        shape = self.inputs[name].shape
        positions = np.arange(start, start + count)[None].repeat(batch, 0)
        positions[:, count if valid is None else valid :] = -1
        width = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else start + count
        ends = start + (count if valid is None else valid)
        known = {
            "input_ids": tokens,
            "position_ids": {1: positions[0], 2: positions, 3: np.stack([positions] * 4)}.get(len(shape)),
            "attention_mask": np.tile((np.arange(width) < ends).astype(np.int64), (batch, 1)),
            "batch_index": np.arange(batch)[:, None],
            "beam_idx": np.arange(batch),
            "write_indices": np.full(batch, start, np.int64),
            "comp_ctx_lengths": np.zeros(CTX, np.int64),
        }
        found = known.get(name)
        sizes = [dim if isinstance(dim, int) else 1 for dim in shape]
        return found if found is not None else np.zeros(sizes, _TYPES[self.inputs[name].type])


def _size(dim: int | str, batch: int, rows: int) -> int:
    return dim if isinstance(dim, int) else batch if dim in BATCH else 0 if dim in GROWS else rows


def present(name: str, outputs: list[str]) -> str:
    """The output that a cache input's new value leaves by."""
    for made in (
        name.replace("past_key_values", "present"),
        f"{name}_RetainedState",
        name.replace("cache", "updated"),
        name.replace("past", "present"),
    ):
        if made in outputs and made != name:
            return made
    return ""


def original(model: ir.Model) -> Graph | None:
    """The mutant itself, where onnxruntime takes it and one token runs."""
    try:
        graph = Graph(ir.to_proto(model).SerializeToString())
        graph.begin(1, CTX)
        graph.run(np.ones((1, 1), np.int64), 0)
    except Exception:  # onnxruntime's exceptions share no base class
        return None
    return graph


def apart(ours: Array, theirs: Array) -> float:
    """The largest difference over the largest value; infinite where shapes differ, or one is not a number."""
    if ours.shape != theirs.shape or (np.isnan(ours) != np.isnan(theirs)).any():
        return float("inf")
    if ours.dtype.kind in "iub":
        return float((ours != theirs).any())
    with np.errstate(invalid="ignore"):
        gap = np.where((ours == theirs) | np.isnan(ours), 0.0, np.abs(ours.astype(np.float64) - theirs))
    scale = np.abs(ours[np.isfinite(ours)]).max(initial=0.0)
    return float(gap.max(initial=0.0) / max(scale, 1e-9))


def single_shot(before: Graph, out: Path) -> float | None:
    """How far the result of single-shot is from the original with empty caches of several lengths.

    None where the original takes none of them: nothing was compared.
    """
    after, worst, played = Graph(out / "model.onnx"), 0.0, False
    random = np.random.default_rng(5)
    length = before.length or 6
    for batch, spare, valid in ((1, 0, None), (1, 5, None), (2, 1, None), (2, 7, max(length - 2, 1))):
        tokens = random.integers(0, 128, (batch, length))
        padded = None if "attention_mask" in before.inputs else valid
        ours = _tried(before, tokens, length + spare, padded)
        if ours is None:
            continue
        played = True
        after.begin(batch, length + spare)
        theirs = after.run(tokens, 0, padded)
        for name in after.outputs:
            a, b = ours[name], theirs[name]
            if padded is not None and a.ndim == 3 and a.shape[1] == length:
                a, b = a[:, :padded], b[:, :padded]
            worst = max(worst, apart(a, b))
        left = [name for name in after.caches if present(name, before.outputs) and not present(name, after.outputs)]
        worst = max(worst, float("inf") if left else 0.0)  # a past without its present: half a state
    return worst if played else None


def _tried(graph: Graph, tokens: Array, rows: int, valid: int | None) -> dict[str, Array] | None:
    """What the original says from empty caches, or None where it does not take these sizes."""
    graph.begin(len(tokens), rows)
    try:
        return graph.run(tokens, 0, valid)
    except Exception:  # onnxruntime's exceptions share no base class
        return None


def speculative(before: Graph, out: Path) -> float | None:
    """How far prefill and decodes are from the original token by token, wrong proposals taken back on the way.

    None where the original does not read the text to its end: TensorScatter-24 of onnxruntime 1.32 refuses rows behind
    the cache's last.
    """
    text = np.random.default_rng(7).integers(0, 128, (1, CTX))
    before.begin(1, CTX)
    step = before.length or 1
    try:
        expected = [before.run(text[:, i : i + step], i)["logits"][0, -1] for i in range(CTX - 1)]
    except Exception:  # onnxruntime's exceptions share no base class
        return None
    names = ("prefill", "decode_k0", "decode_k2")
    prefill, plain, guess = (Graph(out / f"{name}.onnx") for name in names)
    worst = 0.0
    for valid in (None, 5):
        if valid is not None and not _pads(prefill):
            continue
        prefill.begin(1, CTX)
        tokens = text[:, :8].copy()
        tokens[:, valid or 8 :] = 0
        last = (valid or 8) - 1
        worst = max(worst, apart(expected[last], prefill.run(tokens, 0, valid)["logits"][0, -1]))
        caches, start = prefill.caches, last + 1
        for graph, kept in (
            (guess, 3),
            (guess, 1),
            (plain, 1),
            (guess, 2),
            (plain, 1),
            (guess, 3),
            (guess, 1),
            (plain, 1),
        ):
            graph.caches = caches
            width = graph.length or 1
            tokens = text[:, start : start + width].copy()
            tokens[:, kept:] = (tokens[:, kept:] + 1) % 128
            logits = graph.run(tokens, start)["logits"][0]
            caches = graph.caches
            for row in range(kept):
                worst = max(worst, apart(expected[start + row], logits[row - width if len(logits) >= width else -1]))
            start += kept
    return worst


def _pads(graph: Graph) -> bool:
    return "position_ids" in graph.inputs
