"""``verify``, ``calibrate``, ``compare`` and ``sensitivity`` run programs, and return what the commands print."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..ir.core.errors import UnknownNameError
from .sources import path_of, program_of

if TYPE_CHECKING:
    import numpy as np

    from ..ir.quantization import EncodingTable
    from ..runtime.compare.bits import Suggestion
    from ..runtime.compare.programs import Comparison
    from ..runtime.compare.sensitivity import Sensitivity
    from ..runtime.verify.verify import VerifyReport
    from .sources import Model

    Texts = str | os.PathLike[str] | Sequence[Sequence[int]] | Sequence[np.ndarray]


def verify(
    original: Model,
    result: Model,
    *,
    inputs: Mapping[str, np.ndarray] | str | os.PathLike[str] | None = None,
    seed: int = 0,
    tolerance: float | Literal["ulp"] | None = None,
    optimization: str = "none",
    follow_links: bool = False,
) -> VerifyReport:
    """Compares ``result`` with ``original`` on generated inputs, or on given arrays (a mapping or an .npz file).

    ``tolerance`` is relative to each output's largest value; by default 0 (bit-equal), or 2e-6 where the result's
    contracts allow positions in any order, or what the rows of spelled-out operators state; "ulp" adds to that one
    unit in the last place of the largest value for float16 and bfloat16. ``optimization``: none, basic or all, of
    onnxruntime's optimizer.

    A program that shares graphs with the result, as after `PassManager.run`, is read anew from its files. Raises
    UsageError where there are none, and for given inputs that break a contract. Where the class of a contract is not
    installed nothing is run: the verdict is NOT_RUN, and a note names the contract.

    >>> from onnx_llm_passes import single_shot, verify
    >>> verify(decoder, single_shot(decoder)).verdict.value
    'equal'
    """
    from ..runtime.session.arrays import read_arrays
    from ..runtime.session.session import optimized
    from ..runtime.session.settings import optimization_of, saturation_note
    from ..runtime.verify.verify import verify as compare_runs

    given = read_arrays(Path(inputs)) if isinstance(inputs, str | os.PathLike) else inputs
    before, after = (program_of(model, "verify", follow_links=follow_links) for model in (original, result))
    with optimized(optimization_of(optimization)):
        report = compare_runs(before, after, inputs=given, seed=seed, tolerance=tolerance)
    if note := saturation_note([before, after]):
        report.notes.append(note)
    return report


def calibrate(
    model: Model,
    tokens: Texts,
    *,
    method: str = "minmax",
    chunk: int = 256,
    samples: int | None = None,
    k_envelope: str = "none",
    percentile: float = 99.99,
    graph: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    engine: str = "local",
    follow_links: bool = False,
) -> EncodingTable:
    """Runs texts through a graph in chunks, its cache carried, and returns the range of every tensor.

    ``tokens``: lists of ids, or a file of them (.npz, .npy, .jsonl) or of text, which needs a ``tokenizer``. What is
    returned is what ``insert-qdq`` reads: ``print_encodings(table, "native")`` is the file that the command writes.
    """
    from ..runtime.calibrate.calibrate import Envelope, Method, Plan
    from ..runtime.calibrate.calibrate import calibrate as watch
    from ..runtime.calibrate.engine import parse_engine

    for kind, name, known in (("method", method, Method), ("envelope", k_envelope, Envelope)):
        if name not in (values := [choice.value for choice in known]):
            raise UnknownNameError(kind, name, values)
    plan = Plan(Method(method), chunk, Envelope(k_envelope), percentile)
    program = program_of(model, "calibrate", follow_links=follow_links)
    texts = texts_of(tokens, "calibrate", samples, tokenizer)
    return watch(program, texts, plan, engine=parse_engine(engine), follow_links=follow_links, graph=graph)


def compare(
    reference: Model,
    other: Model,
    tokens: Texts | None = None,
    *,
    samples: int | None = None,
    chunk: int = 64,
    graph: str | None = None,
    within: Model | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    optimization: str = "none",
    follow_links: bool = False,
) -> Comparison:
    """Runs both programs over the same texts, each with its own cache, and measures how far the second is off.

    Without ``tokens`` random ids of the vocabulary are run, which says that both run, not what rounding costs. Two
    layers that were cut out need the model that feeds them, ``within``.
    """
    from ..runtime.calibrate.tokens import random_tokens
    from ..runtime.compare.layers import compare_layers
    from ..runtime.compare.programs import compare_programs
    from ..runtime.session.session import optimized
    from ..runtime.session.settings import optimization_of

    first, second = (program_of(model, "compare", follow_links=follow_links) for model in (reference, other))
    whole = None if within is None else program_of(within, "compare", follow_links=follow_links)
    fed = whole or first
    texts = random_tokens(fed, samples) if tokens is None else texts_of(tokens, "compare", samples, tokenizer)
    with optimized(optimization_of(optimization)):
        if whole is not None:
            return compare_layers(first, second, whole, texts)
        return compare_programs(first, second, texts, chunk=chunk, graph=graph)


def sensitivity(
    model: Model,
    tokens: Texts,
    *,
    rows: int | None = None,
    block: int = 0,
    samples: int | None = None,
    graph: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
) -> Sensitivity:
    """What the weights of each layer and role lose alone at 8 and 4 bits, in decibels and KL at the logits.

    ``rows``: tokens that are run, by default as many as cost about two runs over all texts; ``block``: inputs that
    share a scale, 0 for a whole channel. Raises PassRefused where no structure tells the layers.
    """
    from ..runtime.compare.sensitivity import sensitivity as measure

    program = program_of(model, "sensitivity", follow_links=follow_links)
    texts = texts_of(tokens, "sensitivity", samples, tokenizer)
    return measure(program, texts, rows=rows, graph=graph, block=block)


def suggest_bits(losses: Sensitivity | str | os.PathLike[str], budget: float = 4.5) -> Suggestion:
    """The widths of layers and roles that lose least at ``budget`` bits a weight; its ``recipe`` goes to ``quantize``.

    ``losses``: what `sensitivity` measured, or the file that the command wrote. UsageError for a budget below the
    narrowest width.
    """
    from ..runtime.compare.bits import suggest_bits as choose
    from ..runtime.compare.losses import read_sensitivity
    from ..runtime.compare.sensitivity import Sensitivity

    found = losses if isinstance(losses, Sensitivity) else read_sensitivity(Path(losses))
    return choose(found, budget)


def texts_of(tokens: Texts, call: str, limit: int | None, tokenizer: str | os.PathLike[str] | None) -> list[np.ndarray]:
    """Texts as arrays of token ids: those given, or those of a file."""
    import numpy as np

    from ..runtime.calibrate.tokens import read_tokens

    if isinstance(tokens, str | os.PathLike):
        path_of(tokens, call, "tokens")
        return read_tokens(Path(tokens), limit=limit, tokenizer=None if tokenizer is None else Path(tokenizer))
    return [np.asarray(text, np.int64) for text in tokens][:limit]
