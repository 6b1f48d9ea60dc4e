"""Sound pairs of a graph and a manifest: small graphs in every idiom, and exporters' models where they are."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

from .append_graphs import append_dynamo, no_states
from .builders import BUILDERS
from .quantized_graphs import fused_decoder

Entry = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """A graph and the entries of a manifest that fits it; symbols by what they are."""

    name: str
    build: Callable[[], ir.Model]
    entries: tuple[Entry, ...]
    batch: str
    seq: str
    ctx: str = ""
    past: str = ""
    total: str = ""
    twin: str = ""  # a symbol that must equal another
    cache_batch: str = ""

    def manifest(self) -> list[Entry]:
        """A copy of the entries, free to be damaged."""
        return [{"name": entry["name"], "symbols": dict(entry["symbols"])} for entry in self.entries]


def entry(name: str, **symbols: int) -> Entry:
    """One named entry, its sizes as decimals."""
    return {"name": name, "symbols": {symbol: str(size) for symbol, size in symbols.items()}}


def pair(name: str, build: Callable[[], ir.Model], entries: list[Entry], **symbols: str) -> Pair:
    """A pair; the graph is built once and shared, for a proof changes nothing."""
    return Pair(name, functools.cache(build), tuple(entries), **symbols)


def _retained(batch: str, seq: str, ctx: str) -> list[Entry]:
    return [entry("Prefill", **{batch: 1, seq: 8, ctx: 32}), entry("Decode", **{batch: 1, seq: 1, ctx: 32})]


def _grown(batch: str, seq: str, past: str) -> list[Entry]:
    return [
        entry("Prefill", **{batch: 1, seq: 8, past: 0}),
        entry("Decode_0", **{batch: 1, seq: 1, past: 31}),
        entry("Decode_1", **{batch: 1, seq: 5, past: 27}),
    ]


PAIRS = (
    pair("scatter", scatter_decoder, _retained("batch_size", "seq_len", "ctx_len"),
         batch="batch_size", seq="seq_len", ctx="ctx_len"),
    pair("scatter batch index", lambda: scatter_decoder(batch_index=True), [
        entry("Prefill", batch_size=1, seq_len=8, ctx_len=32, full_batch_size=4, full_batch_exec_size=1),
        entry("Decode", batch_size=2, seq_len=1, ctx_len=32, full_batch_size=4),
    ], batch="batch_size", seq="seq_len", ctx="ctx_len", cache_batch="full_batch_size"),
    pair("tensor scatter", BUILDERS["tensor scatter"], _retained("batch", "seq", "ctx"),
         batch="batch", seq="seq", ctx="ctx"),
    pair("append", append_decoder, _grown("batch_size", "sequence_length", "past_sequence_length"),
         batch="batch_size", seq="sequence_length", past="past_sequence_length"),
    pair("append dynamo", append_dynamo, [
        entry("Prefill", s10=1, s70=8, s43=1, s53=8, s15=0),
        entry("Decode_0", s10=1, s70=1, s43=1, s53=32, s15=31),
        entry("Decode_1", s10=1, s70=5, s43=1, s53=32, s15=27),
    ], batch="s10", seq="s70", past="s15", total="s53", twin="s43"),
    pair("fused", fused_decoder, [
        entry("Prefill", B=1, S=8, T=8, P=0),
        entry("Decode_0", B=1, S=1, T=32, P=31),
        entry("Decode_1", B=1, S=5, T=32, P=27),
    ], batch="B", seq="S", past="P", total="T"),
    pair("fused, shared buffers", fused_decoder, [
        entry("Prefill", B=1, S=8, T=32, P=32), entry("Decode_0", B=1, S=1, T=32, P=32),
    ], batch="B", seq="S"),
    pair("no states", no_states, [entry("Embedding_0", batch=2, seq=8), entry("Embedding_1", batch=2, seq=16)],
         batch="batch", seq="seq"),
)  # fmt: skip
BY_NAME = {item.name: item for item in PAIRS}


def _load(path: Path) -> ir.Model:
    return next(iter(Program.load(path).graphs.values()))


def _real(folder: Path, model: str, entries: list[Entry], **symbols: str) -> Pair | None:
    path = folder / model
    return pair(model, lambda: _load(path), entries, **symbols) if path.exists() else None


def real_pairs() -> list[Pair]:
    """Pairs of exporters' models, where ONNX_PASSES_MODELS names their folder."""
    place = os.environ.get("ONNX_PASSES_MODELS")
    if not place:
        return []
    folder = Path(place)
    qeff = {"batch": "batch_size", "seq": "seq_len", "ctx": "ctx_len"}
    optimum = {"batch": "batch_size", "seq": "sequence_length", "past": "past_sequence_length"}
    torch = {"batch": "s10", "seq": "s70", "past": "s15", "total": "s53", "twin": "s43"}
    flat = [
        entry("Prefill", s10=1, s70=8, s43=1, s53=8, s15=0),
        entry("Decode_0", s10=1, s70=1, s43=1, s53=32, s15=31),
        entry("Decode_1", s10=1, s70=5, s43=1, s53=32, s15=27),
    ]
    genai = [
        {"name": item["name"], "symbols": {**item["symbols"], "kv_cache_dim": "16", "total_sequence_length": total}}
        for item, total in zip(_grown(*optimum.values()), ("8", "32", "32"), strict=True)
    ]
    found = [
        _real(folder, "qeff-llama/LlamaForCausalLM.onnx", _retained(*qeff.values()), **qeff),
        _real(folder, "qeff-llama-subfn/LlamaForCausalLM.onnx", _retained(*qeff.values()), **qeff),
        _real(folder, "qeff-gpt2/GPT2LMHeadModel.onnx", _retained(*qeff.values()), **qeff),
        _real(folder, "optimum-llama/model.onnx", _grown(*optimum.values()), **optimum),
        _real(folder, "optimum-gpt2/model.onnx", _grown(*optimum.values()), **optimum),
        _real(folder, "torch-flat-llama/model.onnx", flat, **torch),
        _real(folder, "torch-flat-gemma3/model.onnx", flat, **torch),
        _real(folder, "genai-llama-fp32-cpu/model.onnx", genai, **optimum, total="total_sequence_length"),
    ]
    return [item for item in found if item is not None]
