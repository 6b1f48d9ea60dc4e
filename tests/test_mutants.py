"""Mutated graphs: what `run` accepts computes what the original does, told by code that `verify` has no part in."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.cli.job import Job, execute
from onnx_llm_passes.ir.core.errors import OnnxPassesError

from .builders import BUILDERS
from .convert_graphs import COUNTED
from .mutant_oracle import LIMIT, Graph, original, single_shot, speculative
from .mutants import KINDS
from .quantized_graphs import fused_decoder

IDIOMS: dict[str, Callable[[], ir.Model]] = {**BUILDERS, **COUNTED, "fused": fused_decoder}
SPECULATIVE = "speculative{k=0,2 prefill=8 ctx=32 form=graphs}"  # a file for each clone, which the oracle opens
PIPELINES: dict[str, Callable[[Graph, Path], float | None]] = {
    "single-shot": single_shot,
    SPECULATIVE: speculative,
}
REFUSED = {  # idioms whose unmutated graph has no static form
    "one token": "speculative",
    "scatter compute context": "speculative",
}
ROUNDED = {"cache in half precision": 5e-3, "past rounded": 5e-3, "new rows rounded": 5e-3}
SAMPLE = 40  # one in so many is tried by default


def tried(model: ir.Model, pipeline: str, folder: Path) -> float | None:
    """How far an accepted result is from the mutant; None where it was refused, or onnxruntime does not run it."""
    before = original(model)
    if before is None:
        return None
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    try:
        execute(Job(pipeline, folder / "in" / "model.onnx", folder / "out"))
    except OnnxPassesError as error:
        assert "internal error" not in str(error)
        return None
    return PIPELINES[pipeline](before, folder / "out")


def mutated(idiom: str, kind: str) -> ir.Model | None:
    """The idiom's graph after one kind of mutation; None where there is no place for it."""
    model = IDIOMS[idiom]()
    return model if KINDS[kind](model) else None


def hold(idiom: str, kind: str, folder: Path) -> None:
    for number, pipeline in enumerate(PIPELINES):
        model = mutated(idiom, kind)
        found = tried(model, pipeline, folder / str(number)) if model is not None else None
        assert found is None or found <= ROUNDED.get(kind, LIMIT), f"{idiom}, {kind}, {pipeline}: apart by {found}"


def test_there_are_many_kinds() -> None:
    assert len(KINDS) >= 40


@pytest.mark.slow
def test_many_mutants_are_made_and_load() -> None:
    made = (mutated(idiom, kind) for idiom, kind in PAIRS)
    assert sum(model is not None and original(model) is not None for model in made) >= 1500


TOLD_ALL_THE_SAME = [("tensor scatter", "sum over tokens"), ("tensor scatter", "new rows rolled")]
"""What says where rows are written has no role there, and is told all the same."""


@pytest.mark.parametrize(("idiom", "kind"), TOLD_ALL_THE_SAME)
def test_what_has_no_role_is_told_all_the_same(idiom: str, kind: str, tmp_path: Path) -> None:
    hold(idiom, kind, tmp_path)


HELD_BY_RUNNING = [
    ("append", "positions of the mask"),
    ("append", "the largest of three tokens"),
    ("scatter", "weights summed up"),
]
"""Told by no rule over the structure; docs/verify.md names them."""


@pytest.mark.parametrize(("idiom", "kind"), HELD_BY_RUNNING)
def test_the_proof_by_running_holds_what_no_rule_sees(idiom: str, kind: str, tmp_path: Path) -> None:
    model = mutated(idiom, kind)
    assert model is not None
    (tmp_path / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    with pytest.raises(OnnxPassesError, match=r"^proof by running"):
        execute(Job(SPECULATIVE, tmp_path / "model.onnx", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("idiom", IDIOMS)
def test_unmutated_graphs_are_accepted(idiom: str, pipeline: str, tmp_path: Path) -> None:
    if pipeline.startswith(REFUSED.get(idiom, "nothing")):
        pytest.skip("this graph has no static form, mutated or not")
    model = IDIOMS[idiom]()
    if original(model) is None:
        pytest.skip("it reads rows that onnxruntime has not: INT32_MAX")
    found = tried(model, pipeline, tmp_path)
    assert found is not None
    assert found <= LIMIT


PAIRS = [(idiom, kind) for idiom in IDIOMS for kind in KINDS]


@pytest.mark.parametrize(("idiom", "kind"), [p for p in PAIRS if zlib.crc32("/".join(p).encode()) % SAMPLE == 0])
def test_a_sample_of_mutants_is_equal_or_refused(idiom: str, kind: str, tmp_path: Path) -> None:
    hold(idiom, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("idiom", IDIOMS)
def test_every_mutant_is_equal_or_refused(idiom: str, kind: str, tmp_path: Path) -> None:
    hold(idiom, kind, tmp_path)


CROSSED = ["caches of two layers swapped", "presents of two layers swapped", "key and value leave swapped"]


@pytest.mark.parametrize("kind", CROSSED)
@pytest.mark.parametrize("idiom", ["append", "scatter"])
def test_a_present_named_after_another_past_is_refused(idiom: str, kind: str, tmp_path: Path) -> None:
    """A host that goes by names carries it into the other cache: every run swaps the two."""
    model = mutated(idiom, kind)
    assert model is not None
    found = tried(model, SPECULATIVE, tmp_path)
    assert found is None
