"""narrow-int: decoders take 32-bit integers and compute the same bits; what is fed is held to what was assumed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import UsageError
from onnx_llm_passes.ir.program.contract import ContractBroken
from onnx_llm_passes.ir.program.contracts.interface import IntegersNarrowed
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.shapes.int_bounds import RULES, bounds_of
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.narrow_int import NarrowInt
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.samples.writer import INT64, Writer
from onnx_llm_passes.runtime.verify.verify import verify

CLONES = "speculative{k=0,4 prefill=8 ctx=32 target=ort}"


@pytest.mark.parametrize("decoder", [append_decoder, scatter_decoder])
@pytest.mark.parametrize(
    "pipeline", ["narrow-int", "single-shot,narrow-int", f"{CLONES},narrow-int", f"narrow-int,{CLONES}"]
)
def test_decoders_take_32_bit_integers_and_compute_the_same(decoder: type, pipeline: str) -> None:
    original, program = Program({"model": decoder()}), Program({"model": decoder()})
    PassManager(parse_pipeline(pipeline)).run(program)
    report = verify(original, program)
    assert report.equal, str(report)
    for name in program.names if pipeline.endswith("narrow-int") else ():
        assert not [value.name for value in program.graph(name).graph.inputs if value.dtype is INT64]


def test_token_ids_leave_as_32_bit_integers() -> None:
    program = Program({"model": append_decoder()})
    PassManager(parse_pipeline("argmax-tail,narrow-int")).run(program)
    tokens = next(value for value in program.graphs["model"].graph.outputs if value.name == "token_ids")
    assert tokens.dtype is ir.DataType.INT32
    assert verify(Program({"model": append_decoder()}), program).equal


def test_a_second_run_changes_nothing() -> None:
    program = Program({"model": append_decoder()})
    PassManager([NarrowInt()]).run(program)
    assert not NarrowInt().call(program.graphs["model"]).modified


def test_larger_numbers_than_assumed_break_the_contract() -> None:
    contract = IntegersNarrowed(("ids",), largest=100)
    contract.holds({"ids": np.asarray([[100, -1]])})
    with pytest.raises(ContractBroken, match="larger than integers were narrowed for"):
        contract.holds({"ids": np.asarray([[101]])})
    with pytest.raises(ContractBroken):
        contract.holds({"ids": np.zeros((1, 101), np.int64)})


@pytest.mark.parametrize("largest", [0, 1 << 31])
def test_a_bound_that_int32_does_not_hold_is_refused(largest: int) -> None:
    with pytest.raises(UsageError, match="no bound of 32-bit integers"):
        NarrowInt(largest=largest)


UNARY = ("Abs", "Neg", "Identity", "ReduceSum", "CumSum")
BINARY = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")


@pytest.mark.parametrize("op_type", [*UNARY, *BINARY])
def test_bounds_hold_what_the_operator_gives(op_type: str) -> None:
    random = np.random.default_rng(len(op_type))
    for low, high in ((-5, 7), (0, 9), (-9, -2), (3, 3)):
        w = Writer(opset=18, seed=0)
        a, b = w.input("a", INT64, [4]), w.input("b", INT64, [4])
        extra = [w.constant(0)] if op_type == "CumSum" else [b] if op_type in BINARY else []
        y = w.op(op_type, a, *extra)
        w.output("y", y, [1] if op_type == "ReduceSum" else [4])
        model = w.model()
        divisor = (1, 6) if op_type in ("Div", "Mod") else (low, high)
        found = bounds_of(model, {a: (low, high), b: divisor}, 1 << 10)[y]
        for _ in range(50):
            x, z = random.integers(low, high + 1, 4), random.integers(divisor[0], divisor[1] + 1, 4)
            result = COMPUTED[op_type](x, z)
            assert found[0] <= result.min(), (low, high)
            assert result.max() <= found[1], (low, high)


COMPUTED = {
    "Abs": lambda x, z: np.abs(x),
    "Neg": lambda x, z: -x,
    "Identity": lambda x, z: x,
    "ReduceSum": lambda x, z: x.sum(keepdims=True),
    "CumSum": lambda x, z: np.cumsum(x),
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": lambda x, z: np.trunc(x / z).astype(np.int64),
    "Mod": np.mod,
    "Max": np.maximum,
    "Min": np.minimum,
}


def test_every_rule_of_bounds_is_of_an_operator_of_the_standard() -> None:
    import onnx

    assert not [name for name in RULES if not onnx.defs.has(name, 18, "")]
