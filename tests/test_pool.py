"""pool: vectors are numpy's over the original's rows, however texts are padded, and no weight is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, UsageError
from onnx_llm_passes.ir.program.contracts.heads import Pooled
from onnx_llm_passes.ir.program.contracts.registry import read_contract
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .harness import execute, read_case

FIXTURES = Path(__file__).parent / "fixtures"
KINDS = ("last", "cls", "mean", "weighted-mean", "max")
RNG = np.random.default_rng(5)
BATCH, LENGTH, WIDTH = 4, 70, 48
LEFT = np.arange(LENGTH)[None] >= np.array([[0], [30], [69], [7]])
PADDINGS = {
    "full": np.ones((BATCH, LENGTH), bool),
    "left": LEFT,
    "right": LEFT[:, ::-1],
    "ragged": RNG.random((BATCH, LENGTH)) < 0.5,
    "empty row": np.arange(LENGTH)[None] < np.array([[0], [1], [70], [7]]),
}


def encoder(dtype: str = "float", told: str = "attention_mask") -> ir.Model:
    """Rows are an input; the mask, or the positions, only tell which of them count."""
    rows = {"float": "rows", "float16": "rows"}[dtype]
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        g ({dtype}[B,S,{WIDTH}] inputs_embeds, int64[B,S] {told}) => ({dtype}[B,S,{WIDTH}] last_hidden_state)
        <int64[1] two = {{2}}, {dtype} zero = {{0}}>
        {{
           column = Unsqueeze ({told}, two)
           told = CastLike (column, inputs_embeds)
           nothing = Mul (told, zero)
           {rows} = Add (inputs_embeds, nothing)
           last_hidden_state = Identity (rows)
        }}"""
    )


def pooled(model: ir.Model, options: str) -> Program:
    return PassManager(parse_pipeline(f"pool{{{options}}}")).run(Program({"g": model}))


def numpy_pool(rows: np.ndarray, valid: np.ndarray, kind: str) -> np.ndarray:
    """One line after the other, over its valid rows only: nothing of the pass's own way."""
    vectors = np.zeros((len(rows), rows.shape[-1]))
    for line, (hidden, keep) in enumerate(zip(rows.astype(np.float64), valid, strict=True)):
        kept = hidden[keep]
        if len(kept):
            weights = np.arange(1, len(kept) + 1)[:, None]
            vectors[line] = {
                "last": kept[-1],
                "cls": kept[0],
                "mean": kept.mean(axis=0),
                "weighted-mean": (kept * weights).sum(axis=0) / weights.sum(),
                "max": kept.max(axis=0),
            }[kind]
    return vectors


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", ["attention_mask", "position_ids"])
def test_vectors_are_those_of_numpy_over_every_padding(kind: str, padding: str, told: str) -> None:
    valid = PADDINGS[padding]
    rows = RNG.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    mark = valid.astype(np.int64) if told == "attention_mask" else np.where(valid, np.arange(LENGTH), -1)
    given = {"inputs_embeds": rows, told: mark}
    model = with_table(encoder(told=told)) if told == "position_ids" else encoder()
    raw = execute(pooled(model.clone(), f"kind={kind} normalize=none").graphs["g"], given)["sentence_embedding"]
    wanted = numpy_pool(rows, valid, kind)
    if kind in ("last", "cls", "max"):
        assert raw.tobytes() == wanted.astype(np.float32).tobytes()
    assert np.abs(raw - wanted).max() <= 1e-6 * max(np.abs(wanted).max(), 1e-9)
    unit = execute(pooled(model.clone(), f"kind={kind} normalize=l2 dims=32").graphs["g"], given)["sentence_embedding"]
    lengths = np.maximum(np.linalg.norm(wanted[:, :32], axis=1, keepdims=True), 1e-12)
    assert np.abs(unit - wanted[:, :32] / lengths).max() <= 1e-6


def with_table(model: ir.Model) -> ir.Model:
    """Positions are known by what they do: here by turning rows, by nothing."""
    graph = model.graph
    told = next(node for node in graph if node.op_type == "CastLike")
    turned = ir.node("Cos", [told.outputs[0]])
    graph.insert_after(told, turned)
    told.outputs[0].replace_all_uses_with(turned.outputs[0])
    turned.replace_input_with(0, told.outputs[0])
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_is_the_same_to_the_bit_in_any_batch(kind: str) -> None:
    graph = pooled(encoder(), f"kind={kind}").graphs["g"]
    rows = RNG.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    mask = PADDINGS["ragged"].astype(np.int64)
    together = execute(graph, {"inputs_embeds": rows, "attention_mask": mask})["sentence_embedding"]
    for line in range(BATCH):
        feeds = {"inputs_embeds": rows[line : line + 1], "attention_mask": mask[line : line + 1]}
        assert execute(graph, feeds)["sentence_embedding"].tobytes() == together[line].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_that_holds_nan_is_never_seen(kind: str) -> None:
    valid = PADDINGS["empty row"]
    rows = np.where(valid[..., None], 1.5, np.nan).astype(np.float32) * np.ones(WIDTH, np.float32)
    feeds = {"inputs_embeds": rows, "attention_mask": valid.astype(np.int64)}
    found = execute(pooled(encoder(), f"kind={kind}").graphs["g"], feeds)["sentence_embedding"]
    assert np.isfinite(found).all()
    assert not found[0].any()


def test_half_precision_sums_in_float32() -> None:
    rows = np.full((1, 4000, WIDTH), 30, np.float16)  # their sum is beyond half precision
    graph = pooled(encoder("float16"), "kind=mean normalize=none").graphs["g"]
    feeds = {"inputs_embeds": rows, "attention_mask": np.ones((1, 4000), np.int64)}
    (found,) = execute(graph, feeds).values()
    assert found.dtype == np.float16
    assert (found == 30).all()


def test_int8_steps_and_signs_are_numpys() -> None:
    rows = RNG.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    feeds = {"inputs_embeds": rows, "attention_mask": np.ones((BATCH, LENGTH), np.int64)}
    found = execute(pooled(encoder(), "kind=last normalize=none quantize=int8").graphs["g"], feeds)
    steps, size = found["sentence_embedding"], found["sentence_embedding_scale"]
    assert steps.dtype == np.int8
    assert np.abs(steps * size - rows[:, -1]).max() <= size.max() / 2 * 1.001
    signs = execute(pooled(encoder(), "kind=last quantize=binary").graphs["g"], feeds)["sentence_embedding"]
    assert np.array_equal(signs, np.packbits(rows[:, -1] > 0, axis=1))


def masked() -> ir.Model:
    return ir.from_onnx_text(read_case(FIXTURES / "pool" / "mean.txt").before)


@pytest.mark.parametrize("kind", KINDS)
def test_verify_follows_the_contract_and_sees_another_pooling(kind: str) -> None:
    result = pooled(masked(), f"kind={kind} normalize=none")
    assert verify(Program({"g": masked()}), result).verdict is Verdict.EQUAL
    other = "mean" if kind != "mean" else "max"
    result.contracts = [
        Pooled(**{**vars(link), "pooling": other}) if isinstance(link, Pooled) else link for link in result.contracts
    ]
    assert verify(Program({"g": masked()}), result).verdict is Verdict.DIFFERENT


def test_the_rows_before_a_head_are_pooled_and_the_head_goes() -> None:
    def decoder() -> ir.Model:
        return ir.from_onnx_text(read_case(FIXTURES / "keep-last-logits" / "mask.txt").before)

    result = pooled(decoder(), "kind=last")
    assert [value.name for value in result.graphs["g"].graph.outputs] == ["sentence_embedding"]
    assert "head" not in result.graphs["g"].graph.initializers
    report = verify(Program({"g": decoder()}), result)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert report.runs > 10


def test_a_contract_is_read_back() -> None:
    link = Pooled(output="v", hidden="h", pooling="cls", normalize="l2", dims=8, how="by positions", source="p")
    assert read_contract(link.to_json()) == link


def test_no_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = masked()
    external = ir.ExternalTensor("w.bin", 0, 64, ir.DataType.FLOAT, shape=ir.Shape([8, 2]), name="table")
    model.graph.initializers["table"].const_value = external

    def refuse(*_: object) -> None:
        raise AssertionError("a weight was read")

    for method in ("numpy", "tobytes", "_load"):
        monkeypatch.setattr(ir.ExternalTensor, method, refuse)
    assert pooled(model, "kind=mean").history[-1].counts == {"vectors": 1}


def folder(path: Path, modules: object, pooling: object) -> Path:
    """A model among the files of sentence-transformers."""
    (path / "1_Pooling").mkdir(parents=True)
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / "onnx").mkdir()
    ir.save(masked(), path / "onnx" / "model.onnx")
    return path / "onnx" / "model.onnx"


def listed(*names: str) -> list[dict[str, object]]:
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [
        {"idx": at, "name": str(at), "path": places.get(name, name), "type": f"sentence_transformers.models.{name}"}
        for at, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("modules", "pooling", "kind", "norm"),
    [
        (listed("Transformer", "Pooling", "Normalize"), {"pooling_mode_cls_token": True}, "cls", "l2"),
        (listed("Transformer", "Pooling"), {"pooling_mode_mean_tokens": True}, "mean", "none"),
        (listed("Transformer", "Pooling"), {"pooling_mode_lasttoken": True, "include_prompt": True}, "last", "none"),
        (listed("Transformer", "Pooling"), {"pooling_mode": "weightedmean"}, "weighted-mean", "none"),
    ],
)
def test_files_beside_the_model_decide(tmp_path: Path, modules: object, pooling: object, kind: str, norm: str) -> None:
    program = Program.load(folder(tmp_path / "m", modules, pooling))
    PassManager(parse_pipeline("pool")).run(program)
    (link,) = program.contracts
    assert isinstance(link, Pooled)
    assert (link.pooling, link.normalize) == (kind, norm)
    assert "modules.json" in program.history[-1].notes[0]


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        (listed("Transformer", "Pooling", "Dense"), {"pooling_mode_mean_tokens": True}, "Dense"),
        (listed("Transformer"), {}, "Transformer"),
        (listed("Transformer", "Pooling"), {"pooling_mode_mean_sqrt_len_tokens": True}, "not known"),
        (listed("Transformer", "Pooling"), {"pooling_mode": "attention"}, "not known"),
        (
            listed("Transformer", "Pooling"),
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            "pooling_mode_max_tokens",
        ),
        (listed("Transformer", "Pooling"), {"pooling_mode_mean_tokens": True, "include_prompt": False}, "prompt"),
        (listed("Transformer", "Pooling"), [], "no mode"),
        ({"modules": 1}, {}, "lists no modules"),
        ([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../../etc"}], {}, "outside"),
        ([3], {}, "no type"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, modules: object, pooling: object, said: str) -> None:
    program = Program.load(folder(tmp_path / "m", modules, pooling))
    with pytest.raises(OnnxPassesError, match=said):
        PassManager(parse_pipeline("pool")).run(program)


def test_dims_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one dimension"):
        pooled(masked(), "kind=last dims=0")
