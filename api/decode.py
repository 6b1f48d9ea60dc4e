"""``generate``, ``predict`` and ``suggest_k`` let programs answer, and say what that costs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.core.errors import UnknownNameError, UsageError
from ..ir.core.gc_off import collector_off
from .sources import path_of, program_of

if TYPE_CHECKING:
    import numpy as np

    from ..ir.program.program import Program
    from ..runtime.decode.generate import Generated
    from ..runtime.decode.texts import Words
    from ..runtime.predict.predict import Predicted
    from ..runtime.predict.texts import Item
    from ..runtime.speculate.policies import Policy
    from ..runtime.speculate.proposers import Source as Proposers
    from ..runtime.speculate.traces import Trace
    from ..runtime.suggest.suggest import Suggestion
    from .sources import Model

    PathLike = str | os.PathLike[str]


def generate(
    program: Model,
    prompts: Sequence[Sequence[int]] | Sequence[str] | PathLike,
    *,
    tokenizer: PathLike | None = None,
    max_new: int,
    proposer: str | Proposers = "ngram",
    policy: str = "cover",
    batch: int | None = None,
    k: Sequence[int] | None = None,
    ctx: int | None = None,
    eos: Collection[int] = (),
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    optimization: str = "none",
    follow_links: bool = False,
) -> Generated:
    """Generates texts from prompts of token ids; greedy tokens are exactly those of decoding one token a run.

    ``prompts``: lists of ids, a JSON or .npy file of them, or texts, which need a ``tokenizer`` beside the program or
    given, and end where its exporter's configuration says unless ``eos`` does.
    ``proposer``: ngram, suffix, arctic, none, or what opens proposers.
    Raises UsageError where a prompt does not fit the context.

    >>> from onnx_llm_passes import generate
    >>> len(generate(decoder, [[1, 2, 3]], max_new=4, ctx=16).tokens[0])
    4
    """
    from ..runtime.decode.decoder import Decoder
    from ..runtime.decode.generate import Settings
    from ..runtime.decode.generate import generate as run
    from ..runtime.decode.sampling import Sampling
    from ..runtime.session.session import optimized
    from ..runtime.session.settings import optimization_of
    from ..runtime.suggest.costs import known_costs

    loaded = program_of(program, "generate", follow_links=follow_links)
    texts, words = _prompts(prompts, loaded, tokenizer)
    ends = frozenset(eos or (words.eos if words is not None else ()))
    sampling = Sampling(temperature, top_k, top_p, seed)
    settings = Settings(max_new, ends, sampling, policy_of(policy), known_costs(loaded), batch)
    context = ctx or max(map(len, texts), default=0) + max_new + 1
    with optimized(optimization_of(optimization)):
        with collector_off():
            decoder = Decoder(loaded, rows=batch, ctx=context, ks=None if k is None else tuple(sorted(set(k))))
        try:
            found = run(decoder, texts, settings, proposers_of(proposer))
            return found if words is None else replace(found, texts=[words.text(ids) for ids in found.tokens])
        finally:
            decoder.close()


def _prompts(
    prompts: Sequence[Sequence[int]] | Sequence[str] | PathLike, program: Program, tokenizer: PathLike | None
) -> tuple[list[list[int]], Words | None]:
    """The token ids of all prompts, and the tokenizer that made them of texts."""
    from ..runtime.decode.prompts import read_prompts
    from ..runtime.decode.texts import Words

    if isinstance(prompts, str | os.PathLike):
        texts = read_prompts(Path(prompts))
    elif said := [one for one in prompts if isinstance(one, str)]:
        if len(said) != len(prompts):
            raise UsageError("prompts are all texts or all token ids", found=f"{len(said)} texts of {len(prompts)}")
        words = Words.beside(program.source, None if tokenizer is None else Path(tokenizer))
        return words.prompts(said), words
    else:
        texts = [[int(token) for token in one] for one in prompts]
    if tokenizer is not None:
        raise UsageError("token ids need no tokenizer", found=f"tokenizer={tokenizer}", wanted="prompts that are text")
    return texts, None


def predict(
    program: Model,
    texts: Sequence[str] | PathLike | None = None,
    *,
    pairs: Sequence[tuple[str, str]] | PathLike | None = None,
    feeds: Mapping[str, np.ndarray] | None = None,
    tokenizer: PathLike | None = None,
    template: str | None = None,
    batch: int | None = None,
    output: str | None = None,
    strict: bool = False,
    threads: int = 1,
    follow_links: bool = False,
) -> Predicted:
    """One vector or score for each text, pair of query and document, or row of arrays named like the inputs.

    Texts are a list, or a file with one a line; a tokenizer.json beside the program is found by itself. UsageError
    unless exactly one of ``texts``, ``pairs`` and ``feeds`` is given, and for a program that carries a cache.
    """
    from ..ir.serialization.tokenizer_file import find_tokenizer
    from ..runtime.predict.predict import Predictor
    from ..runtime.predict.tokens import Encoder

    if sum(given is not None for given in (texts, pairs, feeds)) != 1:
        raise UsageError("predict takes one of texts, pairs= and feeds=")
    loaded = program_of(program, "predict", follow_links=follow_links)
    predictor = Predictor(loaded, output=output, threads=threads)
    if feeds is not None:
        return predictor.arrays(feeds)
    items = _texts(texts, template) if texts is not None else _pairs(pairs, template)
    source = loaded.source
    folders = [] if source is None else [source if source.is_dir() else source.parent, source.parent]
    encoder = Encoder(find_tokenizer(None if tokenizer is None else Path(tokenizer), *dict.fromkeys(folders)))
    return predictor.texts(items, encoder, batch=batch, strict=strict)


def _texts(texts: Sequence[str] | PathLike, template: str | None) -> list[Item]:
    from ..runtime.predict.texts import items_of, read_texts

    return read_texts(Path(texts), template) if isinstance(texts, str | os.PathLike) else items_of(texts, template)


def _pairs(pairs: Sequence[tuple[str, str]] | PathLike | None, template: str | None) -> list[Item]:
    from ..runtime.predict.texts import pair_items, read_pairs

    if isinstance(pairs, str | os.PathLike):
        return read_pairs(Path(pairs), template)
    return pair_items(pairs or (), template)


def suggest_k(
    program: Model,
    trace: Trace | PathLike,
    *,
    budget: int,
    policy: str = "goodput",
    max_k: int = 8,
    batch: int | None = None,
    ctx: int = 512,
    optimization: str = "none",
    follow_links: bool = False,
) -> list[Suggestion]:
    """The best set of speculative lengths for each budget from 1 to ``budget``, from measured costs and a trace.

    ``trace``: what was proposed and accepted, as ``docs/traces.md`` writes it, or a Trace.
    """
    from ..runtime.decode.decoder import Decoder
    from ..runtime.session.session import optimized
    from ..runtime.session.settings import optimization_of
    from ..runtime.speculate.traces import Trace, read_trace
    from ..runtime.suggest.costs import fill_in, measure
    from ..runtime.suggest.suggest import demand_of, suggest

    if not isinstance(trace, Trace):
        path_of(trace, "suggest_k", "trace")
    recorded = trace if isinstance(trace, Trace) else read_trace(Path(trace))
    loaded = program_of(program, "suggest_k", follow_links=follow_links)
    fixed = len(loaded.names) > 1 or bool(loaded.specializations)
    with optimized(optimization_of(optimization)):
        decoder = Decoder(loaded, rows=batch, ctx=ctx, ks=None if fixed else tuple(range(max_k + 1)))
        try:
            cost = measure(decoder)
        finally:
            decoder.close()
    demand = demand_of(recorded, max_k)
    costs, _ = fill_in(cost, demand.top)
    return suggest(demand, costs, budget, policy_of(policy))


def policy_of(name: str) -> Policy:
    """The policy of that name; UnknownNameError lists them."""
    from ..runtime.speculate.policies import Policy

    known = [policy.value for policy in Policy]
    if name not in known:
        raise UnknownNameError("policy", name, known)
    return Policy(name)


def proposers_of(proposer: str | Proposers) -> Proposers:
    """What opens the proposers of that name, or what was given."""
    from ..runtime.speculate.proposers import NGram, open_proposers

    if not isinstance(proposer, str):
        return proposer
    return (lambda: NGram(3, 5)) if proposer == "ngram" else open_proposers(proposer)
