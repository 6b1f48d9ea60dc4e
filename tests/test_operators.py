"""The table of operators against the schemas of onnx and onnxruntime, and which of its columns are empty for whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx.defs
import onnx_ir as ir
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from onnx_llm_passes.ir.core.operators import ALL, MS, OPERATORS, Grids, Key, Operator, key_of, of, where
from onnx_llm_passes.ir.quantization.layout_ops import MOVES
from onnx_llm_passes.ir.quantization.variants import RULES
from onnx_llm_passes.ir.shapes.demands.rules_basic import BASIC
from onnx_llm_passes.ir.shapes.demands.rules_cache import CACHE
from onnx_llm_passes.ir.shapes.infer.tables import SHAPES

BY_ATTRIBUTE = {("", "DequantizeLinear")}  # output_dtype since opset 23; the scale's type where that is left out
TYPES = {"tensor(bool)": ir.DataType.BOOL, "tensor(int64)": ir.DataType.INT64}


def newest_schemas() -> dict[Key, Any]:
    """By domain and name; onnxruntime's own for its domain."""
    found: dict[Key, Any] = {}
    for schema in (*ort_state.get_all_operator_schema(), *onnx.defs.get_all_schemas_with_history()):
        key = (schema.domain, schema.name)
        if key in OPERATORS and (key not in found or schema.since_version >= found[key].since_version):
            found[key] = schema
    return found


SCHEMAS = newest_schemas()


def test_every_operator_of_the_table_exists() -> None:
    assert OPERATORS.keys() == SCHEMAS.keys()


def dtype_of_schema(schema: Any) -> Iterator[int | ir.DataType]:
    """The operands whose type variable the first result shares, or the one type that it has."""
    result, *given = (_type_of(value) for value in (schema.outputs[0], *schema.inputs))
    rules = schema.type_constraints if isinstance(schema, onnx.defs.OpSchema) else []
    only = {rule.type_param_str: rule.allowed_type_strs for rule in rules}.get(result, [result])
    if len(only) == 1 and only[0] in TYPES:
        yield TYPES[only[0]]
    yield from (index for index, found in enumerate(given) if found == result)


def _type_of(value: Any) -> str:
    return value.type_str if hasattr(value, "type_str") else value.typeStr  # onnx's spelling, onnxruntime's


@pytest.mark.parametrize("key", sorted(where(lambda row: row.dtype is not None).keys() - BY_ATTRIBUTE))
def test_the_element_type_is_the_schemas(key: Key) -> None:
    assert OPERATORS[key].dtype in list(dtype_of_schema(SCHEMAS[key]))


COLUMNS: Mapping[str, tuple[str, ...]] = {  # column -> the names that schemas give such operands
    "key_value": ("key", "value", "K", "V"),
    "masks": ("attn_mask", "mask_index", "key_padding_mask", "attention_bias"),
    "lengths": ("seqlens_k", "total_sequence_length", "nonpad_kv_seqlen"),
    "slots": ("indices", "write_indices"),
    "rotates": ("position_ids",),
}


def named(key: Key, column: str) -> set[int]:
    return {at for at, given in enumerate(SCHEMAS[key].inputs) if given.name in COLUMNS[column]}


def filled(row: Operator, column: str) -> set[int]:
    value = getattr(row, column)
    return set() if value is None else {value} if isinstance(value, int) else set(value)


ATTENTIONS = where(lambda row: (row.carries and row.key_value) or row.writes or row.reads or row.rotates is not None)
EMPTY: Mapping[str, set[str]] = {
    "key_value": set(),
    "masks": set(),
    "lengths": {"SparseAttention"},
    "slots": set(),
    "rotates": set(),
}
"""Columns that schemas could fill and that are still empty; a row that fills one has to be taken off here."""


@pytest.mark.parametrize("column", COLUMNS)
def test_operands_are_those_that_schemas_name_so(column: str) -> None:
    open_rows = set[str]()
    for key, row in ATTENTIONS.items():
        wanted, found = named(key, column), filled(row, column)
        if not found and wanted:
            open_rows.add(key[1])
        elif wanted:
            assert found == wanted, key
    assert open_rows == EMPTY[column], f"{column} is empty, and the schema tells it"


def missing(have: Mapping[Key, object]) -> set[str]:
    rows = where(lambda row: row.carries or row.writes or row.reads)
    return {f"{key[0]}:{key[1]}" for key in rows if key not in have}


def test_carrying_operators_without_a_rule_of_shapes_demands_or_grids_are_known() -> None:
    """A new row shows here what it still wants: a shape rule, demands of its operands, a rule of quantization."""
    grids = {key: row for key, row in OPERATORS.items() if row.grids is not None}
    open_rows = {name: missing(table) for name, table in {"shapes": SHAPES, "demands": {**BASIC, **CACHE}}.items()}
    open_rows["grids"] = missing(grids)
    rare = {
        f"{MS}:{name}"
        for name in (
            *("DecoderAttention", "DecoderMaskedSelfAttention", "DynamicSparseAttention", "GatedDeltaNet"),
            *("LinearAttention", "NGramHashMapping", "PackedSparseAttentionIndexer", "PagedAttention", "QAttention"),
            *("SparseAttentionIndexer", "SparsePagedAttention", "VarlenCausalConvWithState"),
            "VarlenNGramHashMapping",
        )
    } | {":LinearAttention"}
    attention = {f"{MS}:{name}" for name in ("DecoderMaskedMultiHeadAttention", "SparseAttention")}
    conv = {":CausalConvWithState"}
    assert open_rows["shapes"] == rare | attention | conv
    assert open_rows["demands"] == rare | attention | {f"{MS}:Attention", ":Scatter"}
    assert open_rows["grids"] == rare | conv | {f"{MS}:CausalConvWithState", ":Scatter"}


def test_operators_that_move_have_a_rule_of_axes() -> None:
    assert {("", name) for name in MOVES} == where(lambda row: row.moves).keys()
    assert all(row.moves for row in where(lambda row: row.keeps_all).values())


def test_quantization_reads_the_table() -> None:
    assert {name for name, _ in RULES} == {name for (_, name), row in OPERATORS.items() if row.grids is not None}
    assert OPERATORS["", "Range"].grids is Grids.OUTPUTS


def test_a_node_finds_its_row_under_both_names_of_the_standard() -> None:
    assert of(ir.node("Add", [], domain="ai.onnx")) is OPERATORS["", "Add"]
    assert key_of(ir.node("Add", [], domain="ai.onnx")) == ("", "Add")
    unknown = of(ir.node("Add", [], domain="mine"))
    assert unknown.dtype is None and not unknown.uses()


def test_what_an_operand_is_for_comes_from_every_column_that_names_it() -> None:
    assert OPERATORS[MS, "GroupQueryAttention"].uses() == {5: "mask", 6: "mask", 10: "mask", 9: "angle"}
    assert OPERATORS["", "TensorScatter"].uses() == {2: "slot"}
    assert OPERATORS["", "Sin"].uses() == {0: "angle"} and OPERATORS["", "Where"].truth == ALL
