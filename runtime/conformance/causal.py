"""Translates compile calls of causal models, as the cases write them, into this package's terms."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any, cast

from ...ir.core.errors import UsageError
from ...ir.specialize.families import CausalSizes, ContextLengths, Entry, EqualLengths, Phases, causal, context_lengths
from ...ir.specialize.families.base import check_options, positive, size, sizes
from ...ir.specialize.naming import TAG, to_named
from .cases import Answer, Case

_SIZES = (
    "prefill_seq_len",
    "ctx_len",
    "batch_size",
    "full_batch_size",
    "kv_cache_batch_size",
    "num_speculative_tokens",
)
_CHOICES = ("prefill_only", "comp_ctx_lengths_prefill", "comp_ctx_lengths_decode", "specializations", "enable_chunking")
_COMPILER = (  # what goes to the compiler and changes no specialization
    "aic_*", "mdp_*", "mxfp6*", "mxint8*", "mos", "num_cores", "num_devices", "convert_to_fp16", "retained_state",
    "compile_dir", "onnx_path", "use_onnx_subfunctions", "enable_qnn", "qnn_config", "offload_pt_weights",
    "retain_full_kv", "node_precision_info", "allow_mxint8_mdp_io", "custom_io", "user_tiled",
    "io_encrypt", "ddr_stats", "time_passes", "stats_level", "compile_only", "use_dynamo", "enable_profiling",
)  # fmt: skip


def ask_compile(case: Case) -> Answer:
    """The named list of one compile call."""
    options: dict[str, Any] = dict(case["compile"])
    init: dict[str, Any] = dict(case.get("init") or {})
    _check_names(options)
    raw = options.get("specializations")
    if raw is not None:
        return to_named(raw), case.get("named")
    return tagged(causal(_sizes_of(options, init))), case.get("named")


def tagged(entries: list[Entry]) -> list[dict[str, object]]:
    """The named list of our entries."""
    return to_named([{**entry.symbols, **({TAG: entry.tag} if entry.tag else {})} for entry in entries])


def _check_names(options: Mapping[str, object]) -> None:
    others = [name for name in options if not any(fnmatch.fnmatchcase(name, pattern) for pattern in _COMPILER)]
    check_options(others, (*_SIZES, *_CHOICES), "causal-lm")


def _sizes_of(options: Mapping[str, Any], init: Mapping[str, Any]) -> CausalSizes:
    config: Mapping[str, Any] = init.get("qaic_config") or {}
    prefill, ctx = size(options, "prefill_seq_len", 32) or 1, size(options, "ctx_len", 128) or 1
    lengths = _lengths(options, config, prefill, ctx)
    full, continuous = size(options, "full_batch_size"), bool(init.get("continuous_batching"))
    if full is not None and not continuous:
        raise UsageError("goes with continuous batching, and only with it", where="full_batch_size", found=full)
    return CausalSizes(
        batch=size(options, "batch_size", 1) or 1,
        prefill=prefill,
        ctx=lengths.ctx if lengths else ctx,
        full_batch=full,
        cache_batch=size(options, "kv_cache_batch_size"),
        continuous=continuous,
        k=_speculation(options.get("num_speculative_tokens"), config),
        lengths=lengths,
        phases=_phases(options.get("prefill_only")),
        equal_lengths=EqualLengths.SHARE,
    )


def _phases(prefill_only: object) -> Phases:
    if prefill_only is not None and not isinstance(prefill_only, bool):
        raise UsageError("is no boolean", where="prefill_only", found=repr(prefill_only)[:80])
    return {None: Phases.BOTH, True: Phases.PREFILL, False: Phases.DECODE}[prefill_only]


def _lengths(options: Mapping[str, Any], config: Mapping[str, Any], prefill: int, ctx: int) -> ContextLengths | None:
    names = ("comp_ctx_lengths_prefill", "comp_ctx_lengths_decode")
    lists = [sizes(name, options.get(name)) for name in names]
    if not any(lists) and not config.get("ccl_enabled"):
        return None
    chunked = options.get("enable_chunking") is True
    return context_lengths(lists[0] or (), lists[1] or (), ctx, prefill, chunked=chunked)


def _speculation(given: object, config: Mapping[str, Any]) -> tuple[int, ...] | None:
    if config.get("include_sampler") and given is not None and any(sizes("k", given, least=0) or ()):
        raise UsageError("a sampler in the graph takes no proposals", where="num_speculative_tokens", found=given)
    if config.get("speculative_model_type") is None:
        return None
    found = sizes(
        "num_speculative_tokens", cast("object", given) if isinstance(given, list) else _integer(given), least=0
    )
    if not found:
        raise UsageError("must be given for a target model", where="num_speculative_tokens")
    return found


def _integer(given: object) -> int | None:
    return None if given is None else positive("num_speculative_tokens", given, least=0)
