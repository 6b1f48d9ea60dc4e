"""What all tokens of a run decide together, and lengths used as numbers, are refused without running anything."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.proof.rollback import speculation_findings
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline

from .mutant_edits import FLOAT
from .mutants import KINDS
from .mutants_numbers import over_tokens
from .test_mutants import IDIOMS

CONVERTED = "convert-states{to=scatter},check-speculation-safe{k=2}"
TOGETHER = {
    "new rows reversed": "takes the tokens of a run together",
    "new rows rolled": "takes the tokens of a run together|not understood",
    "sum over tokens": "CumSum",
    "largest over tokens": "ReduceMax",
    "tokens reversed": "Slice",
    "first token everywhere": "Slice",
    "token before": "Slice",
    "mean over tokens": "ReduceMean",
    "positions reversed": "Slice|written to rows",
    "positions from 0 in each run": "ReduceMin|written to rows",
    "rotary by the run": "ReduceMin",
    "softmax over queries": "does not weigh the rows|takes the tokens of a run together",
    "weights normalized over queries": "ReduceSum",
    "hidden rows over the run's norm": "ReduceL2",
    "largest position in the logits": "ReduceMax",
    "number of tokens in the logits": "makes a number of the length",
    "scores scaled by length": "makes a number of the length|enters Log",
}
READS = {
    "read before write": "before the rows of this run are written",
    "softmax over heads": "does not weigh the rows",
    "softmax over the batch": "does not weigh the rows",
    "weights less their mean": "that are hidden",
    "left side of a remainder": "not read as a causal cache",
    "written at max(p - 1, 0)": "are written to rows",
    "written at min(p, 9)": "are written to rows",
}


def mutant(idiom: str, kind: str) -> ir.Model:
    model = IDIOMS[idiom]()
    if not KINDS[kind](model):
        pytest.skip("the graph has no place for it")
    return model


def refused(model: ir.Model, pipeline: str, why: str) -> None:
    with pytest.raises(PassRefused, match=why):
        PassManager(parse_pipeline(pipeline)).run(Program(graphs={"model": model}))


@pytest.mark.parametrize("idiom", IDIOMS)
def test_sound_graphs_take_nothing_together(idiom: str) -> None:
    assert not speculation_findings(IDIOMS[idiom](), 0).problems


@pytest.mark.parametrize("kind", TOGETHER)
@pytest.mark.parametrize("idiom", ["append plain", "scatter elements", "scatter mrope"])
def test_tokens_taken_together_are_refused(idiom: str, kind: str) -> None:
    refused(mutant(idiom, kind), CONVERTED, TOGETHER[kind])


OTHER_WAYS = {
    "products of tokens": lambda op, x: op(
        "Add", x, op("MatMul", op("MatMul", x, op("Transpose", x, perm=[0, 2, 1])), x)
    ),
    "shifted by padding": lambda op, x: op("Add", x, op("Slice", op("Pad", x, [0, 1, 0, 0, 0, 0]), [0], [-1], [1])),
    "mean of all merged": lambda op, x: op(
        "Sub", x, op("ReduceMean", op("Reshape", x, [1, -1, 1]), axes=[1], keepdims=1)
    ),
    "softmax turned": lambda op, x: op(
        "Transpose", op("Softmax", op("Transpose", x, perm=[0, 2, 1]), axis=-1), perm=[0, 2, 1]
    ),
    "number of items": lambda op, x: op("Div", x, op("Cast", op("Size", x), to=FLOAT)),
}


@pytest.mark.parametrize("kind", OTHER_WAYS)
@pytest.mark.parametrize("idiom", ["append plain", "scatter elements"])
def test_other_ways_to_take_tokens_together_are_refused(idiom: str, kind: str) -> None:
    model = IDIOMS[idiom]()
    assert over_tokens(OTHER_WAYS[kind])(model)
    refused(model, CONVERTED, "takes the tokens of a run together|makes a number of the length")


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("idiom", ["scatter elements", "scatter three dims"])
def test_other_reads_of_a_written_cache_are_refused(idiom: str, kind: str) -> None:
    refused(mutant(idiom, kind), CONVERTED, READS[kind])


@pytest.mark.parametrize("kind", ["written at max(p - 1, 0)", "written at min(p, 9)", "written at p / 2"])
def test_an_index_of_tensor_scatter_is_the_first_position(kind: str) -> None:
    refused(mutant("tensor scatter", kind), CONVERTED, "are written to rows")


@pytest.mark.parametrize("kind", ["length of the past in the logits", "log length of the past in the logits"])
def test_the_length_of_a_written_cache_is_no_number(kind: str) -> None:
    refused(mutant("scatter elements", kind), "strip-states", "the length of a cache is used as a number")


def test_the_length_of_a_growing_cache_is_that_of_the_run() -> None:
    """From an empty past: what strip-states makes of it is exact."""
    model = mutant("append plain", "length of the present in the logits")
    PassManager(parse_pipeline("strip-states")).run(Program(graphs={"model": model}))


def test_a_counter_of_runs_is_refused_where_a_run_takes_several_tokens() -> None:
    refused(mutant("scatter elements", "counter of runs"), CONVERTED, "counts runs")


@pytest.mark.parametrize(("sizes", "right"), [("prefill=8", False), ("k=0 prefill=8", False), ("k=0", True)])
def test_one_token_a_run_mixes_nothing(sizes: str, right: bool) -> None:
    """A prefill is a run of several tokens for any K; a decode of one token is what the graph computes."""
    model, pipeline = mutant("append plain", "largest over tokens"), f"clone-decode{{ctx=32 {sizes}}}"
    if right:
        PassManager(parse_pipeline(pipeline)).run(Program(graphs={"model": model}))
    else:
        refused(model, pipeline, "a run of several tokens does not compute what one token a run does.*k=0")
