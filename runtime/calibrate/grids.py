"""Chooses grids from watched ranges, for the file formats that hold grids alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...ir.core.errors import UsageError
from ...ir.interface.analysis import analysis_of
from ...ir.program.program import Program
from ...ir.quantization import Encoding, EncodingTable, encoding_of
from ...ir.quantization.carried import put_table, table_of
from ...ir.quantization.clip import resolve
from ...ir.quantization.kv_scales import cache_name
from ...passes.tie_states import TieStates


def grids_of(
    program: Program, table: EncodingTable, form: str, bits: int, kv_bits: int
) -> tuple[EncodingTable, list[str]]:
    """Asymmetric grids of ``bits`` bits, states tied at ``kv_bits``; and the tensors without a usable range."""
    if kv_bits not in (8, 16):
        raise UsageError("caches take 8 or 16 bits", found=kv_bits)
    tied = replace(program, encodings={})
    put_table(tied, table)
    TieStates(bits=8 if kv_bits == 8 else 16).run(tied)
    states = table_of(tied).encodings
    if form == "kv-scales":
        return _by_layer(program, states), []
    grids = EncodingTable(extra={"file_format": "native"})
    left_out: list[str] = []
    for name, seen in table.ranges.items():
        if name in states or seen.usable:
            grids.encodings[name] = states[name] if name in states else encoding_of(name, seen, bits)
        else:
            left_out.append(name)
    grids.encodings |= {name: encoding for name, encoding in states.items() if name not in grids.encodings}
    return grids, left_out


def resolved(table: EncodingTable, bits: int) -> EncodingTable:
    """The table with each range as its method chooses it for ``bits`` bits, for a format without histograms."""
    ranges = {name: replace(resolve(seen, bits), method="", histogram=None) for name, seen in table.ranges.items()}
    return replace(table, ranges=ranges)


def _by_layer(program: Program, states: Mapping[str, Encoding]) -> EncodingTable:
    table = EncodingTable()
    for model in program.graphs.values():
        for state in analysis_of(model).states:
            if state.layer is not None and state.kind in ("key", "value"):
                table.encodings[cache_name(state.layer, state.kind)] = states[state.name]
    return table
