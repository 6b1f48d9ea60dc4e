"""Groups of tensors that share an encoding, the passes that load and tie them, and their refusals."""

from __future__ import annotations

import json
import random
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.encoding import Calibration
from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import (
    Encoding,
    EncodingsInvalid,
    EncodingTable,
    Evidence,
    NoEvidence,
    encoding_groups,
    encoding_of,
    evidence_of,
    print_encodings,
)
from onnx_llm_passes.ir.quantization.carried import put_table, table_of
from onnx_llm_passes.ir.quantization.decide import Choice
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.load_encodings import LoadEncodings
from onnx_llm_passes.passes.tie_states import TieStates

from .builders import BUILDERS
from .renaming import rename_everything

GRAPH = """<ir_version: 10, opset_import: ["" : 18]>
g (float[1,2,P,4] past, float[1,S,8] x) => (float[1,T,8] y, float[1,2,T,4] present)
<int64[4] split = {1, -1, 2, 4}, int64[3] merge = {1, -1, 8}, float[8,8] w = {WEIGHT}> {
   rows = MatMul (x, w)
   heads = Reshape (rows, split)
   new = Transpose <perm = [0, 2, 1, 3]> (heads)
   present = Concat <axis = 2> (past, new)
   back = Transpose <perm = [0, 2, 1, 3]> (present)
   flat = Reshape (back, merge)
   y = Softmax (flat)
}""".replace("WEIGHT", ", ".join(["0.5"] * 64))
INF = float("inf")


def program(ranges: dict[str, tuple[float, float]], encodings: dict[str, Encoding] | None = None) -> Program:
    made = Program(graphs={"g": ir.from_onnx_text(GRAPH)})
    put_table(made, EncodingTable(encodings or {}, {name: Evidence(*bounds) for name, bounds in ranges.items()}))
    return made


def per_channel(axis: int, count: int) -> Encoding:
    shape = tuple(0.01 * (i + 1) for i in range(count))
    return Encoding(shape, (0,) * count, 8, signed=True, symmetric=True, shape=(count,), axis=axis)


def test_a_group_holds_the_state_and_its_moved_copies() -> None:
    (group,) = encoding_groups(ir.from_onnx_text(GRAPH))
    assert group.leader.name == "present"
    assert set(group.names()) == {"past", "present", "new", "heads", "rows", "back", "flat"}
    assert group.axes["back"] == (0, 2, 1, 3)
    assert group.axes["flat"] == (0, 2, None)


SPLIT = """<ir_version: 10, opset_import: ["" : 18]>
g (float[1,P,4] past, float[1,S,12] qkv, bool[1,T,1] seen) => (float[1,T,4] y, float[1,T,4] present)
<int64[3] sizes = {4, 4, 4}, float zero = {0}> {
   query, key, new = Split <axis = 2> (qkv, sizes)
   present = Concat <axis = 1> (past, new)
   valid = Where (seen, present, zero)
   y = Softmax (valid)
}"""


def test_a_group_goes_through_a_fill_with_zero_and_not_back_through_a_cut() -> None:
    """Zero is on every grid; what a Split cuts from holds queries too, which need a grid of their own."""
    (group,) = encoding_groups(ir.from_onnx_text(SPLIT))
    assert set(group.names()) == {"past", "new", "present", "valid"}


@pytest.mark.parametrize("name", BUILDERS)
def test_past_and_present_share_a_group_in_every_idiom(name: str) -> None:
    model = BUILDERS[name]()
    groups = encoding_groups(model)
    for state in find_states(model):
        assert state.input is not None and state.output is not None
        (own,) = [group for group in groups if state.input.name in group.names()]
        assert state.output.name in own.names()
        assert len(own.states) == 1, "keys and values have grids of their own"


@pytest.mark.parametrize("name", ["append", "append dynamo", "scatter", "scatter elements", "tensor scatter"])
def test_a_renamed_graph_has_the_same_groups(name: str) -> None:
    sizes = [len(group.members) for group in encoding_groups(BUILDERS[name]())]
    model = BUILDERS[name]()
    rename_everything(model, random.Random(1))
    assert [len(group.members) for group in encoding_groups(model)] == sizes


@pytest.mark.parametrize("name", ["append", "scatter", "append dynamo"])
def test_the_order_of_inputs_and_outputs_decides_nothing(name: str) -> None:
    model = BUILDERS[name]()
    wanted = {group.leader.name: set(group.names()) for group in encoding_groups(model)}
    for ports in (model.graph.inputs, model.graph.outputs):
        shuffled = random.Random(3).sample(list(ports), len(ports))
        assert shuffled != list(ports)
        ports[:] = shuffled
    assert {group.leader.name: set(group.names()) for group in encoding_groups(model)} == wanted


def test_layers_without_a_cache_of_their_own_are_left_out() -> None:
    """Layers may share another's cache, or have none: what pairs there are decides, not a count of layers."""
    model = BUILDERS["append"]()
    gone = [value for value in model.graph.outputs if value.name.startswith("present.0.")]
    for value in gone:
        node = value.producer()
        model.graph.outputs.remove(value)
        past = node.inputs[0]
        node.outputs[0].replace_all_uses_with(node.inputs[1])
        model.graph.remove(node, safe=True)
        if not past.uses():
            model.graph.inputs.remove(past)
    groups = encoding_groups(model)
    assert [group.states[0].layer for group in groups] == [1, 1]
    made = Program(graphs={"g": model})
    put_table(made, EncodingTable({}, {group.leader.name: Evidence(-1.0, 2.0) for group in groups}))
    assert TieStates().run(made).counts["groups"] == 2


def test_the_range_is_the_presents_whatever_the_past_was_watched_with() -> None:
    told = []
    for past in ((INF, -INF), (0.0, 0.0), (-2.0, 1.5)):  # empty, one row of zeros, really carried
        made = program({"past": past, "present": (-2.0, 3.0), "new": (-1.0, 3.0)})
        TieStates().run(made)
        told.append(table_of(made).encodings)
    assert told[0] == told[1] == told[2]
    assert {e.scale for e in told[0].values()} == {(3.0 / 127,)}
    assert {e.zero_point for e in told[0].values()} == {(0,)}
    assert all(e.symmetric and e.signed and e.bits == 8 for e in told[0].values())


def test_sixteen_bits_and_a_second_run_that_changes_nothing() -> None:
    made = program({"present": (-2.0, 1.0)})
    assert TieStates(bits=16).run(made).modified
    assert table_of(made).encodings["past"].scale == (2.0 / 32767,)
    assert not TieStates(bits=16).run(made).modified


@pytest.mark.parametrize(
    ("present", "tensor"),
    [((INF, -INF), "present"), ((0.0, 0.0), "present"), ((-INF, 1.0), "present"), ((float("nan"), 1.0), "present")],
    ids=["empty", "zero span", "infinite", "nan"],
)
def test_no_evidence_is_an_error_that_names_the_tensor(present: tuple[float, float], tensor: str) -> None:
    made = Program(graphs={"g": ir.from_onnx_text(GRAPH)})
    before = dict(made.encodings)
    table = EncodingTable(ranges={"present": Evidence(*present)})
    with pytest.raises(NoEvidence, match=tensor):
        TieStates()._derived(table, encoding_groups(made.graphs["g"]), Choice(8, symmetric=True))
    with pytest.raises(NoEvidence, match=tensor):
        TieStates().run(made)
    assert made.encodings == before


def test_a_default_scale_on_the_past_never_decides() -> None:
    silent = Encoding((1.0,), (0,), 8, signed=True)  # what a quantizer writes for a past that was empty
    good = Encoding((0.02,), (100,), 8)
    made = program({}, {"past": silent, "present": good})
    TieStates().run(made)
    tied = table_of(made).encodings
    assert tied["past"] == tied["present"]
    assert tied["past"].scale[0] == pytest.approx((255 - 100) * 0.02 / 127)
    only_past = program({}, {"past": silent})
    with pytest.raises(NoEvidence, match="present"):
        TieStates().run(only_past)


def test_a_channel_axis_is_followed_through_transpose() -> None:
    made = program({}, {"present": per_channel(1, 2)})
    with pytest.raises(EncodingsInvalid, match=r"'rows'|'flat'"):  # Reshape merges heads and width
        TieStates().run(made)
    (group,) = encoding_groups(made.graphs["g"])
    assert group.adapt(per_channel(1, 2), "back").axis == 2
    assert group.adapt(per_channel(1, 2), "heads").axis == 2
    assert group.adapt(per_channel(1, 2), "past").axis == 1


def test_one_encoding_in_every_graph_of_the_program() -> None:
    made = program({"present": (-2.0, 3.0)})
    made.graphs["decode"] = made.graphs["g"].clone()
    report = TieStates().run(made)
    assert report.counts["groups"] == 1


def load(tmp_path: Path, text: str, **options: int) -> tuple[Program, object]:
    path = tmp_path / "enc.json"
    path.write_text(text, encoding="utf-8")
    made = Program(graphs={"g": ir.from_onnx_text(GRAPH)})
    return made, LoadEncodings(path, **options).run(made)


def test_load_takes_ranges_and_encodings(tmp_path: Path) -> None:
    table = EncodingTable({"w": per_channel(1, 8)}, {"present": Evidence(-1.0, 2.0), "nobody": Evidence(0.0, 1.0)})
    made, report = load(tmp_path, print_encodings(table))
    assert table_of(made).encodings["w"].axis == 1
    assert "nobody" in report.notes[0]
    TieStates().run(made)
    assert "past" in made.encodings


def test_load_finds_the_axis_that_a_file_does_not_tell(tmp_path: Path) -> None:
    entry = {"name": "w", "enc_type": "PER_CHANNEL", "dtype": "INT", "bw": 8, "is_sym": True}
    entry |= {"scale": [0.1] * 8, "offset": [-128] * 8}
    text = json.dumps({"version": "1.0.0", "activation_encodings": [], "param_encodings": [entry]})
    made, _ = load(tmp_path, text)
    assert table_of(made).encodings["w"].axis == 1  # a square weight: its MatMul tells


def test_load_refuses_an_axis_that_nothing_tells(tmp_path: Path) -> None:
    entry = {"name": "present", "enc_type": "PER_CHANNEL", "dtype": "INT", "bw": 8, "is_sym": True}
    entry |= {"scale": [0.1] * 3, "offset": [-128] * 3}
    text = json.dumps({"version": "1.0.0", "activation_encodings": [entry], "param_encodings": []})
    with pytest.raises(EncodingsInvalid, match=r"'present'.*which axis"):
        load(tmp_path, text)


def test_load_refuses_another_models_file(tmp_path: Path) -> None:
    with pytest.raises(PassRefused, match="nobody"):
        load(tmp_path, print_encodings(EncodingTable(ranges={"nobody": Evidence(0.0, 1.0)})))


def test_load_warns_of_texts_shorter_than_the_deployments_context(tmp_path: Path) -> None:
    table = EncodingTable(ranges={"present": Evidence(0.0, 1.0)}, calibration=Calibration(longest=128))
    assert "128" in load(tmp_path, print_encodings(table), ctx=4096)[1].warnings[0]
    assert not load(tmp_path, print_encodings(table), ctx=128)[1].warnings


def test_cache_scales_are_found_by_layer(tmp_path: Path) -> None:
    path = tmp_path / "kv.json"
    path.write_text('{"scales":{"k_scales":[0.1,0.2],"v_scales":[0.3,0.4]},"layer_ids":[0,1]}', encoding="utf-8")
    made = Program(graphs={"g": BUILDERS["append"]()})
    LoadEncodings(path).run(made)
    TieStates().run(made)
    found = {state.name: table_of(made).encodings[state.name].scale for state in find_states(made.graphs["g"])}
    assert sorted(found.values()) == [(0.1,), (0.2,), (0.3,), (0.4,)]


@pytest.mark.parametrize(("low", "high"), [(1.0, 3.0), (-3.0, -1.0), (-1.0, 3.0)])
def test_every_grid_holds_zero_and_all_that_was_seen(low: float, high: float) -> None:
    """Padding, zero fills and unused rows are zeros: they must come back as such."""
    encoding = encoding_of("x", Evidence(low, high), 8)
    assert 0 <= encoding.zero_point[0] <= 255
    first, last = (bounds[0] for bounds in encoding.span())
    assert first <= min(low, 0.0) + encoding.scale[0]
    assert last >= max(high, 0.0) - encoding.scale[0]
    assert first <= 0.0 <= last


def test_evidence_of_a_grid_is_what_it_covers() -> None:
    assert evidence_of(Encoding((0.5,), (2,), 2)) == Evidence(-1.0, 0.5)
