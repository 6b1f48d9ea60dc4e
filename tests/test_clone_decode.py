"""clone-decode: names, sizes, files that share nodes and weights, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.onnx_cpp2py_export import shape_inference as native

from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError, UsageError
from onnx_llm_passes.ir.core.specialization import SpecRole
from onnx_llm_passes.ir.program.clone import Clone
from onnx_llm_passes.ir.program.program import Origin, Program
from onnx_llm_passes.ir.rewrite.bind_sizes import bound_in
from onnx_llm_passes.ir.rewrite.scalar_ranges import squeeze_ranges
from onnx_llm_passes.passes.clone_decode import CloneDecode
from onnx_llm_passes.passes.keep_last_logits import KeepLastLogits
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline, print_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import verify

from .convert_graphs import COUNTED


def cloned(model: ir.Model | None = None, **options: Any) -> Program:
    program = Program({"model": model or append_decoder()})
    CloneDecode(**{"ctx": 64, "k": (0, 1, 4), "prefill": 16, **options}).run(program)
    return program


def shapes(graph: onnx.GraphProto) -> dict[str, list[int | str]]:
    infos = (*graph.input, *graph.output, *graph.value_info)
    return {
        i.name: [d.dim_value if d.HasField("dim_value") else d.dim_param for d in i.type.tensor_type.shape.dim]
        for i in infos
    }


def saved(program: Program, out: Path, name: str, **options: Any) -> onnx.ModelProto:
    program.save(out, **options)
    return onnx.load(out / f"{name}.onnx", load_external_data=False)


def test_k_is_sorted_and_each_stands_once() -> None:
    assert CloneDecode(ctx=9, k=(4, 0, 4, 1)).k == (0, 1, 4)
    assert (
        print_pipeline(parse_pipeline("clone-decode{ctx=9 k=4,0,4 bind=a:3}")) == "clone-decode{ctx=9 k=0,4 bind=a:3}"
    )


def test_one_graph_a_role_and_k() -> None:
    program = cloned()
    assert program.names == ["prefill", "decode_k0", "decode_k1", "decode_k4"]
    found = [(s.name, s.graph, s.role, s.k, s.binding["sequence_length"]) for s in program.specializations]
    assert found == [
        ("prefill", "prefill", SpecRole.PREFILL, None, 16),
        ("decode_k0", "decode_k0", SpecRole.DECODE, 0, 1),
        ("decode_k1", "decode_k1", SpecRole.DECODE, 1, 2),
        ("decode_k4", "decode_k4", SpecRole.DECODE, 4, 5),
    ]


def test_without_k_there_is_one_decode() -> None:
    program = cloned(k=(), prefill=None)
    assert [(s.name, s.role, s.k) for s in program.specializations] == [("decode", SpecRole.DECODE, None)]


def test_a_growing_cache_leaves_room_for_the_new_rows() -> None:
    program = cloned()
    by_name = {s.name: s.binding for s in program.specializations}
    assert by_name["decode_k4"]["past_sequence_length"] == 64 - 5
    assert by_name["prefill"]["past_sequence_length"] == 64 - 16


def test_a_written_cache_has_the_whole_context() -> None:
    model = scatter_decoder()
    KeepLastLogits(symbol="num_logits_to_keep").call(model)
    program = cloned(model)
    assert {s.binding["ctx_len"] for s in program.specializations} == {64}
    assert [s.logits_rows for s in program.specializations] == [1, 1, 2, 5]


def test_prefill_as_long_as_a_decode_loses_nothing() -> None:
    assert cloned(prefill=5).names == ["prefill", "decode_k0", "decode_k1", "decode_k4"]
    assert cloned(prefill=1, k=(0,)).names == ["prefill", "decode_k0"]


def test_batch_index_runs_prefills_of_one_row() -> None:
    model = scatter_decoder(batch_index=True)
    program = cloned(model, k=(0,), batch=3)
    sizes = {s.name: (s.binding["batch_size"], s.binding["full_batch_size"]) for s in program.specializations}
    assert sizes == {"prefill": (1, 3), "decode_k0": (3, 3)}
    more = cloned(scatter_decoder(batch_index=True), k=(0,), batch=3, cache_batch=5)
    assert {s.binding["full_batch_size"] for s in more.specializations} == {5}
    assert [value.name for value in program.graph("prefill").graph.inputs].count("batch_index") == 1


def test_attended_contexts_are_a_second_axis() -> None:
    model = scatter_decoder(compute_context=True)
    program = cloned(model, k=(0,), ccl=(32, 16, 32))
    assert program.names == ["prefill_ccl16", "decode_k0_ccl16", "prefill_ccl32", "decode_k0_ccl32"]
    with pytest.raises(PassRefused, match="ccl does nothing"):
        cloned(ccl=(16,))


def test_files_share_nodes_and_weights(tmp_path: Path) -> None:
    program = cloned()
    program.save(tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.data")) == ["weights.data"]
    loaded = {name: onnx.load(tmp_path / f"{name}.onnx", load_external_data=False) for name in program.names}
    nodes = {tuple(node.SerializeToString() for node in model.graph.node) for model in loaded.values()}
    tensors = {tuple(t.SerializeToString() for t in model.graph.initializer) for model in loaded.values()}
    assert len(nodes) == len(tensors) == 1
    assert {name: model.graph.name for name, model in loaded.items()} == {name: name for name in program.names}


def test_a_clone_is_no_copy_of_the_graph() -> None:
    program = cloned()
    assert list(program.graphs) == ["model"]
    assert isinstance(program.clones["decode_k4"], Clone)
    own = program.graph("decode_k4")
    assert own is not program.graphs["model"]
    assert [str(d) for d in own.graph.inputs[0].shape or ()] == ["1", "5"]
    assert [str(d) for d in program.graphs["model"].graph.inputs[0].shape or ()] == ["batch_size", "sequence_length"]


def test_every_shape_is_static_and_as_onnx_infers_it(tmp_path: Path) -> None:
    model = saved(cloned(), tmp_path, "decode_k4")
    mine = shapes(model.graph)
    assert all(isinstance(size, int) for shape in mine.values() for size in shape)
    del model.graph.value_info[:]
    inferred = onnx.ModelProto.FromString(native.infer_shapes(model.SerializeToString(), False, False, True))
    theirs = {name: shape for name, shape in shapes(inferred.graph).items() if all(isinstance(d, int) for d in shape)}
    assert len(theirs) > 50
    assert {name: mine[name] for name in theirs} == theirs


def test_without_shapes_only_declared_ones_are_written(tmp_path: Path) -> None:
    assert not saved(cloned(), tmp_path, "decode_k4", fill_shapes=False).graph.value_info


def test_declared_types_keep_what_else_they_say(tmp_path: Path) -> None:
    model = append_decoder()
    value = next(iter(model.graph)).outputs[0]
    value.metadata_props["note"] = "kept"
    value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
    node = next(node for node in model.graph if node.op_type == "Shape")
    node.outputs[0].metadata_props["note"] = "kept"
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape(["rank"])
    infos = saved(cloned(model, bind={}), tmp_path, "prefill").graph.value_info
    assert [p.value for i in infos if i.name == node.outputs[0].name for p in i.metadata_props] == ["kept"]


def test_a_value_info_that_lies_gives_way(tmp_path: Path) -> None:
    model = append_decoder()
    node = next(n for n in model.graph if n.op_type == "MatMul" and n.inputs[1] and n.inputs[1].is_initializer())
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([7, 7, 7])
    program = cloned(model)
    file = saved(program, tmp_path, "decode_k1")
    assert shapes(file.graph)[node.outputs[0].name or ""][:2] == [1, 2]
    own = next(v for n in program.graph("decode_k1").graph for v in n.outputs if v.name == node.outputs[0].name)
    assert [str(d) for d in own.shape or ()][:2] == ["1", "2"]
    ort.InferenceSession(tmp_path / "decode_k1.onnx")


def test_the_file_is_the_graph_that_a_copy_would_be(tmp_path: Path) -> None:
    program = cloned()
    model = saved(program, tmp_path, "decode_k4")
    own = ir.to_proto(program.graph("decode_k4"))
    assert [n.op_type for n in model.graph.node] == [n.op_type for n in own.graph.node]
    assert [i.SerializeToString() for i in model.graph.input] == [i.SerializeToString() for i in own.graph.input]
    assert {e.key: e.value for e in model.metadata_props} == {e.key: e.value for e in own.metadata_props}


def test_a_loaded_clone_tells_what_it_was_bound_to(tmp_path: Path) -> None:
    program = cloned()
    program.save(tmp_path)
    loaded = Program.load(tmp_path)
    assert loaded.names == program.names
    assert (
        loaded.bound["decode_k4"] == bound_in(loaded.graphs["decode_k4"]) == dict(program.clones["decode_k4"].binding)
    )
    index = json.loads((tmp_path / "program.json").read_text())
    assert index["graphs"][3]["inputs"][0]["shape"] == [1, 5]
    assert index["graphs"][3]["symbols"] == []


def test_the_same_program_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [saved(cloned(), tmp_path / name, "decode_k4").SerializeToString() for name in "ab"]
    assert files[0] == files[1]


def test_symbols_stay_where_that_is_wanted(tmp_path: Path) -> None:
    model = saved(cloned(static=False), tmp_path, "decode_k4")
    assert shapes(model.graph)["input_ids"] == ["batch_size", "sequence_length"]
    assert not bound_in(Program.load(tmp_path).graphs["decode_k4"])


def test_folding_gives_each_clone_less_to_do(tmp_path: Path) -> None:
    plain, folded = cloned(), cloned(fold=True)
    assert not folded.clones
    assert len(folded.graphs["decode_k4"].graph) < len(plain.graphs["model"].graph) * 0.7
    assert {value.name for value in folded.graphs["decode_k4"].graph.inputs} == {
        v.name for v in plain.graphs["model"].graph.inputs
    }
    folded.save(tmp_path)
    assert len(list(tmp_path.glob("*.data"))) == 1


def test_what_edits_the_base_edits_its_clones(tmp_path: Path) -> None:
    program = cloned()
    parse_pipeline("rename-io{map=input_ids:tokens}")[0].run(program)
    assert saved(program, tmp_path, "decode_k4").graph.input[0].name == "tokens"


def test_unshared_clones_can_be_edited_one_by_one() -> None:
    program = cloned()
    program.unshare()
    assert list(program.graphs) == ["prefill", "decode_k0", "decode_k1", "decode_k4"]
    assert not program.clones
    tensors = [model.graph.initializers["lm_head.weight"].const_value for model in program.graphs.values()]
    assert all(tensor is tensors[0] for tensor in tensors)


def test_static_files_load_though_functions_give_range_one_dimensional_operands(tmp_path: Path) -> None:
    model = scatter_decoder()
    KeepLastLogits(symbol="rows").call(model)
    program = Program({"model": model})
    assert CloneDecode(ctx=64, k=(0, 4), prefill=16).run(program).counts["squeezed"] > 0
    program.save(tmp_path)
    for name in program.names:
        ort.InferenceSession(tmp_path / f"{name}.onnx")


RANGES = {
    "constant": ("l = Constant <value = int64[1] {4}> ()", 1),
    "element of a shape": ("at = Constant <value = int64[1] {0}> () sh = Shape (x) l = Gather (sh, at)", 1),
    "scalar constant": ("l = Constant <value = int64 {4}> ()", 0),
    "scalar of a shape": (
        "at = Constant <value = int64 {0}> () sh = Shape (x) g = Gather (sh, at) l = Cast <to = 7> (g)",
        0,
    ),
    "squeezed": ("at = Constant <value = int64[1] {0}> () sh = Shape (x) g = Gather (sh, at) l = Squeeze (g)", 0),
}


@pytest.mark.parametrize("body", RANGES)
@pytest.mark.parametrize("where", ["main", "function"])
def test_only_operands_that_are_no_scalars_are_squeezed(body: str, where: str) -> None:
    lines, expected = RANGES[body]
    ends = "zero = Constant <value = int64 {0}> () one = Constant <value = int64 {1}> ()"
    nodes = f"{lines} {ends} y = Range (zero, l, one)"
    head = '<ir_version: 10, opset_import: ["" : 18, "f" : 1]>'
    text = {
        "main": f"{head} g (float[4] x) => (int64[n] y) {{ {nodes} }}",
        "function": f"{head} g (float[4] x) => (int64[n] z) {{ z = f.count (x) }}"
        f'<domain: "f", opset_import: ["" : 18]> count (x) => (y) {{ {nodes} }}',
    }[where]
    model = ir.from_onnx_text(text)
    assert squeeze_ranges(model, "here") == expected
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    assert session.run(None, {"x": np.zeros(4, np.float32)})[0].tolist() == [0, 1, 2, 3]


def test_the_models_own_speculator_overrides_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "speculator_config.json").write_text('{"num_speculative_tokens": 3}')
    program = Program({"model": append_decoder()}, origins=(Origin("model", tmp_path / "model.onnx", ""),))
    report = CloneDecode(ctx=64, k=(0, 1, 3, 4)).run(program)
    assert program.names == ["decode_k0", "decode_k3"]
    assert report.warnings == (
        "the model's own speculator_config.json proposes 3 tokens, which overrides K=1, K=4: dropped",
    )


@pytest.mark.parametrize("text", ['{"num_speculative_tokens": "3"}', "[3]", "{", '{"num_speculative_tokens": -1}'])
def test_a_config_that_says_nothing_sound_is_no_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    program = Program({"model": append_decoder()}, origins=(Origin("model", tmp_path / "model.onnx", ""),))
    assert CloneDecode(ctx=64, k=(1,)).run(program).warnings == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": (64,)}, ["K does not fit the context", "K=64", "< 64"]),
        ({"prefill": 65}, ["a prefill does not fit the context", "65"]),
        ({"prefill": 4, "target": "qaic"}, ["prefill=4", "K + 1 = 5"]),
        ({"bind": {"past_sequence_length": 7}}, ["attention_mask[1]", "found 23", "wanted 64"]),
    ],
)
def test_refused_before_anything_changes(options: dict[str, Any], words: list[str]) -> None:
    model = append_decoder()
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(PassRefused) as error:
        cloned(model, **options)
    assert all(word in str(error.value) for word in words)
    assert ir.to_proto(model).SerializeToString() == before


def test_a_longer_k_than_the_prefill_is_fine_where_no_target_forbids_it() -> None:
    assert "decode_k4" in cloned(prefill=4).names
    assert "decode_k4" in cloned(prefill=4, target="ort").names


def test_too_few_rows_of_logits_are_refused() -> None:
    with pytest.raises(PassRefused, match="logits of 1 rows, and K=1 checks 2"):
        cloned(scatter_decoder())


def test_a_fixed_dimension_is_refused_and_named() -> None:
    model = append_decoder()
    for value in model.graph.inputs[:3]:
        value.shape = ir.Shape([2, *(value.shape or ())[1:]])
    with pytest.raises(PassRefused, match=r"input_ids\[0\] \(batch\) is 2"):
        cloned(model)
    assert cloned(model, batch=2).names


def test_a_symbol_that_nothing_decides_is_asked_for() -> None:
    model = append_decoder()
    extra = ir.Value(name="extra", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["width"]))
    model.graph.inputs.append(extra)
    with pytest.raises(PassRefused, match="bind=width:SIZE"):
        cloned(model)
    assert cloned(model, bind={"width": 3}).specializations[0].binding["width"] == 3
    assert cloned(model, static=False).names


def test_a_graph_without_states_is_refused() -> None:
    model = append_decoder()
    parse_pipeline("strip-states")[0].run(Program({"model": model}))
    with pytest.raises(PassRefused, match="no graph carries a state"):
        cloned(model)


@pytest.mark.parametrize(
    "options", [{"k": (-1,)}, {"ctx": 0}, {"batch": 0}, {"ccl": (0,)}, {"fold": True, "static": False}]
)
def test_usage(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        cloned(**options)


def test_weights_of_a_sparse_file_are_not_read(tmp_path: Path) -> None:
    """A data file that is one hole, larger than the disk's free space: reading or copying it would show."""
    model = append_decoder()
    value = model.graph.initializers["lm_head.weight"]
    shape = [int(d) for d in value.shape or () if isinstance(d, int)]
    folder = tmp_path / "in"
    folder.mkdir()
    with (folder / "big.data").open("wb") as file:
        file.truncate(1 << 42)
    value.const_value = ir.ExternalTensor(
        "big.data", (1 << 42) - int(np.prod(shape)) * 4, int(np.prod(shape)) * 4, ir.DataType.FLOAT,
        shape=ir.Shape(shape), name="lm_head.weight", base_dir=str(folder),
    )  # fmt: skip
    done = cloned(model).save(tmp_path)
    assert done.referred == 1 << 42
    assert (folder / "big.data").stat().st_blocks == 0
    references = {
        tuple((entry.key, entry.value) for entry in tensor.external_data)
        for name in ("prefill", "decode_k4")
        for tensor in onnx.load(tmp_path / f"{name}.onnx", load_external_data=False).graph.initializer
        if tensor.name == "lm_head.weight"
    }
    assert len(references) == 1


def test_a_past_of_fixed_length_that_nothing_hides_is_warned_of() -> None:
    settings = CloneDecode(ctx=32, k=(0,), prefill=8)
    told = settings.run(Program({"model": append_decoder()})).warnings
    untold = settings.run(Program({"model": next(iter(COUNTED.values()))()})).warnings
    assert not told
    assert len(untold) == 1 and "no input hides rows of 'past_key_values.0.key'" in untold[0]


def test_a_size_of_a_symbol_that_is_nowhere_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"clone-decode, bind: unknown symbol 'nosuch'"):
        CloneDecode(ctx=32, bind={"nosuch": 3}).run(Program({"model": append_decoder()}))


def test_a_folded_clone_has_no_input_that_nothing_reads(tmp_path: Path) -> None:
    """Sizes make the shape of num_logits_to_keep a number: the input goes, as bind takes it away."""
    Program(graphs={"model": append_decoder()}).save(tmp_path / "model")
    result = Program.load(tmp_path / "model")
    PassManager(parse_pipeline("speculative{k=0,2 prefill=8 ctx=32 fold=true}")).run(result)
    for name in result.names:
        inputs = result.graph(name).graph.inputs
        assert [value.name for value in inputs if not value.uses()] == []
        assert "num_logits_to_keep" not in [value.name for value in inputs]
    report = verify(Program.load(tmp_path / "model"), result)
    assert report.equal, report.first_difference
