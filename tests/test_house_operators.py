"""Facts of operators stand in one place: no set of operators' names anywhere else, and columns that schemas tell."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx.defs
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from onnx_llm_passes.ir.core.operators import MS, OPERATORS, Key, Operator, walks, where
from onnx_llm_passes.ir.core.operators.caches import CACHES
from onnx_llm_passes.ir.core.operators.control import CONTROL
from onnx_llm_passes.ir.core.operators.numeric import NUMERIC
from onnx_llm_passes.ir.core.operators.products import PRODUCTS
from onnx_llm_passes.ir.core.operators.views import VIEWS

ROOT = Path(__file__).parents[1]
FLOORS = ("ir", "passes", "runtime", "cli")
ROOMS_OF_RULES = ("ir/core/operators/", "ir/shapes/infer/", "ir/shapes/demands/")
"""The table itself, and rooms that hold one rule an operator and nothing else."""

ELSEWHERE: Mapping[str, str] = {
    "runtime/calibrate/watch.py": "the operators that a calibration adds to a graph",
}
"""Files that name several operators for another reason."""

SCHEMAS: dict[Key, Any] = {
    **{(schema.domain, schema.name): schema for schema in ort_state.get_all_operator_schema() if schema.domain == MS},
    **{(schema.domain, schema.name): schema for schema in onnx.defs.get_all_schemas() if not schema.domain},
}
NAMES = {name for _, name in SCHEMAS}


def listed(source: str) -> Iterator[list[str]]:
    """The operators that each set, list, tuple or dict of a file names, where a rule for each is not what it holds."""
    rules: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):
        if node in rules:
            continue
        if is_rule_table(node):
            rules.update(ast.walk(node))
            continue
        found = [name for part in parts(node) for name in part if name in NAMES]
        if len(found) > 1:
            rules.update(ast.walk(node))
            yield found


def parts(node: ast.AST) -> Iterator[list[str]]:
    match node:
        case ast.Set() | ast.Tuple() | ast.List():
            for element in node.elts:
                yield from parts(element) if not isinstance(element, ast.Constant) else [texts(element)]
        case ast.Dict():
            for key in node.keys:
                yield from [] if key is None else parts(key) if not isinstance(key, ast.Constant) else [texts(key)]
        case ast.Constant(value=str(value)) if " " in value and set(value.split()) <= NAMES:
            yield value.split()  # ``"Add Sub".split()``
        case _:
            return


def texts(node: ast.Constant) -> list[str]:
    return node.value.split() if isinstance(node.value, str) else []


def is_rule_table(node: ast.AST) -> bool:
    """True for operator -> function, and for ``dict.fromkeys(operators, function)``."""
    if isinstance(node, ast.Dict):
        pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
        return bool(pairs) and not any(is_literal(value) for _, value in pairs)
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fromkeys"
    return named and len(node.args) == 2 and not is_literal(node.args[1])


def is_literal(node: ast.AST) -> bool:
    return isinstance(node, (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp))


def test_operators_are_listed_in_the_table_alone() -> None:
    found: dict[str, list[list[str]]] = {}
    for path in (path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(ROOMS_OF_RULES) and (lists := list(listed(path.read_text("utf-8")))):
            found[name] = lists
    assert found.keys() == ELSEWHERE.keys(), f"a column or a walk of ir/core/operators says this: {found}"


def test_the_search_for_lists_finds_them() -> None:
    assert list(listed('X = frozenset(("MatMul", "Gemm"))')) == [["MatMul", "Gemm"]]
    assert list(listed('X = {("", "MatMul"): 1, ("", "Gemm"): 0}')) == [["MatMul", "Gemm"]]
    assert list(listed('X = "Add Sub".split()')) == [["Add", "Sub"]]
    assert list(listed('ok = node.op_type in ("Shape", "Size")')) == [["Shape", "Size"]]
    assert not list(listed('X = {"MatMul": rule, "Gemm": other}; y = "Add and Sub"; z = {**a, "Add": f}'))


def test_no_operator_has_two_rows() -> None:
    tables = (NUMERIC, PRODUCTS, VIEWS, CONTROL, CACHES)
    assert sum(len(table) for table in tables) == len(OPERATORS)


# columns that schemas tell --------------------------------------------------------------------------------------------


def attributes(schema: Any) -> set[str]:
    return set(schema.attributes) if isinstance(schema, onnx.defs.OpSchema) else set()


def has_graphs(schema: Any) -> bool:
    kinds = schema.attributes.values() if isinstance(schema, onnx.defs.OpSchema) else ()
    return any(attribute.type == onnx.defs.OpSchema.AttrType.GRAPH for attribute in kinds)


def named(values: Any, *names: str) -> bool:
    return any(value.name in names for value in values)


TOLD: Mapping[str, tuple[Callable[[Key, Any], object], Callable[[Operator], object]]] = {
    "attention": (lambda key, schema: "Attention" in key[1], lambda row: row.attention),
    "bodies": (lambda key, schema: has_graphs(schema), lambda row: row.bodies),
    "ends": (lambda key, schema: not key[0] and named(schema.inputs, "initial_h"), lambda row: row.ends),
    "index_results": (
        lambda key, schema: not key[0] and named(schema.outputs[1:], "Indices", "indices"),
        lambda row: row.index_results,
    ),
    "random": (lambda key, schema: "seed" in attributes(schema), lambda row: row.random),
    "reduces": (lambda key, schema: not key[0] and key[1].startswith("Reduce"), lambda row: row.reduces),
    "skip_norm": (lambda key, schema: named(schema.outputs, "input_skip_bias_sum"), lambda row: row.skip_norm),
}
"""Column -> which schemas say that an operator is such a one, and which rows do."""

STILL_EMPTY: Mapping[str, set[str]] = {
    "attention": set(),
    "bodies": set(),
    "ends": set(),
    "index_results": set(),
    "random": set(),
    "reduces": set(),
    "skip_norm": {"MatMulNBitsMlp", "MatMulNBitsQkv"},  # a norm and the product behind it in one
}
"""Operators whose schema says so and whose row does not: one that gains the row has to be taken off here."""


@pytest.mark.parametrize("column", TOLD)
def test_columns_hold_what_schemas_tell(column: str) -> None:
    told, filled = TOLD[column]
    wanted = {key for key, schema in SCHEMAS.items() if told(key, schema)}
    have = set(where(filled))
    assert {name for _, name in wanted - have} == STILL_EMPTY[column]
    assert have <= wanted, "a row says what no schema does"


def test_walks_pass_nothing_that_no_operator_is_called() -> None:
    for name, names in vars(walks).items():
        if name.isupper() and isinstance(names, frozenset) and name not in ("PAIRS", "SCORES_END"):
            assert names and names <= NAMES | {"Scatter", "SimplifiedLayerNormalization"}, name


def test_a_view_takes_part_in_every_walk_by_its_columns() -> None:
    """What keeps every item passes wherever a Reshape passes: a new view is one row."""
    for name in ("CACHE_TO_PRODUCT", "PRODUCT_TO_SOFTMAX", "MASK_TO_SOFTMAX", "ROWS_TO_CONDITION", "SIZE_CHOSEN"):
        assert getattr(walks, name) >= walks.IN_ORDER, name
