"""The truth table of layouts: what each row says, and that graphs of the layout do what it says."""

from __future__ import annotations

from dataclasses import fields

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.shapes.infer import propagate
from onnx_llm_passes.ir.states import TRAITS, Layout, Pairing, State, Traits, find_states

from .builders import BUILDERS

HOLDS: dict[str, str] = {
    "changes": "append scatter fused delta window recurrent",
    "keeps_rows": "append scatter fused delta window",
    "keeps_every_row": "append scatter fused delta",
    "gains_rows": "append fused delta",
    "longer_output": "append fused",
    "keeps_size": "scatter recurrent fixed",
    "shows_axis": "append scatter delta window",
    "rewinds": "append scatter fused delta fixed",
}
"""Trait -> the layouts that have it."""


@pytest.mark.parametrize("layout", Layout)
def test_a_layout_has_the_traits_of_its_row(layout: Layout) -> None:
    for trait in fields(Traits):
        assert getattr(TRAITS[layout], trait.name) is (layout.value in HOLDS[trait.name].split()), trait.name


@pytest.mark.parametrize("name", BUILDERS)
def test_outputs_have_the_sizes_that_the_traits_say(name: str) -> None:
    model = BUILDERS[name]()
    facts = propagate(model)
    for state in find_states(model):
        assert state.input is not None
        assert state.output is not None
        assert state.axis is not None
        past, present = facts.shape(state.input), facts.shape(state.output)
        assert past is not None
        assert present is not None
        assert (past[state.axis] == present[state.axis]) is state.traits.keeps_size
        assert state.gains_row_per_token is state.traits.longer_output
        assert state.is_written is not state.traits.longer_output
        assert state.is_movable
        assert not state.takes_padding


def attention(op: str, past: int | str = "past", **attributes: int) -> State:
    """The key of one fused attention."""
    rows = ir.Value(name="key", shape=ir.Shape([1, 2, past, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node(op, [rows], attributes, domain="com.microsoft")
    return State(Layout.FUSED, Pairing.BOTH, input=rows, axis=2, update=node)


def test_a_fused_buffer_is_told_by_its_operator_and_its_fixed_length() -> None:
    growing, fixed = attention("GroupQueryAttention"), attention("GroupQueryAttention", 32)
    other = attention("MultiHeadAttention", 32)
    assert [s.shares_buffer for s in (growing, fixed, other)] == [True, True, False]
    assert [s.is_written for s in (growing, fixed, other)] == [False, True, False]
    assert [s.takes_shared_buffer for s in (growing, fixed, other)] == [True, True, False]


def test_a_ring_gains_no_row_and_is_no_buffer_of_the_context() -> None:
    ring = attention("GroupQueryAttention", 8, sliding_window_cache=1, local_window_size=8)
    assert ring.is_ring
    assert ring.window == 8
    assert not ring.gains_row_per_token
    assert not ring.is_buffer
    assert not ring.takes_shared_buffer


def test_a_recurrence_inside_an_operator_keeps_no_rows_and_takes_padding_in() -> None:
    conv = State(Layout.FUSED, recurrent=True)
    assert not conv.keeps_rows
    assert conv.takes_padding
    assert not State(Layout.FUSED).takes_padding
    assert [State(layout).takes_padding for layout in (Layout.WINDOW, Layout.RECURRENT, Layout.FIXED)] == [
        True,
        True,
        False,
    ]


def test_one_buffer_serves_where_nothing_reads_the_past_but_its_shape() -> None:
    model = BUILDERS["tensor scatter"]()
    state = find_states(model)[0]
    assert state.one_buffer
    read = ir.node("Relu", [state.input])
    model.graph.append(read)
    assert not state.one_buffer
