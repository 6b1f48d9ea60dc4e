"""lora on exporters' models: every mode against weights that numpy changed, where ONNX_PASSES_MODELS names them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.lora import Lora, Mode
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.runtime.decode.cases import Padding, make_case
from onnx_llm_passes.runtime.decode.inputs import build_inputs
from onnx_llm_passes.runtime.session.session import Session
from onnx_llm_passes.runtime.session.subject import Subject

from .adapter_tools import Tensors, added, matrices, write_peft

MODELS = os.environ.get("ONNX_PASSES_MODELS")
pytestmark = pytest.mark.skipif(MODELS is None, reason="ONNX_PASSES_MODELS names no folder of exported models")
CLOSE = 1e-6
LAYERS = range(2)
LLAMA = {
    "q": (64, 64),
    "k": (64, 32),
    "v": (64, 32),
    "o": (64, 64),
    "gate": (64, 128),
    "up": (64, 128),
    "down": (128, 64),
}


@dataclass(frozen=True)
class Exported:
    """Where the weight of layer and kind lies: its node's name, and the first of its columns."""

    path: str
    node: Callable[[int, str], tuple[str, int]]
    widths: dict[str, tuple[int, int]]
    module: Callable[[int, str], str]


def _block(kind: str) -> str:
    return "self_attn" if kind in "qkvo" else "mlp"


def _llama(layer: int, kind: str) -> str:
    return f"model.layers.{layer}.{_block(kind)}.{kind}_proj"


def _scripted(prefix: str) -> Callable[[int, str], tuple[str, int]]:
    return lambda layer, kind: (f"{prefix}/model/layers.{layer}/{_block(kind)}/{kind}_proj/MatMul", 0)


def _dynamo(layer: int, kind: str) -> tuple[str, int]:
    number = 7 * layer + list(LLAMA).index(kind)
    return f"node_linear_{number}" if number else "node_linear", 0


def _packed(layer: int, kind: str) -> tuple[str, int]:
    block, name = ("attn", "qkv") if kind in "qkv" else ("attn", "o") if kind == "o" else ("mlp", kind)
    return f"/model/layers.{layer}/{block}/{name}_proj/MatMul", {"k": 64, "v": 96}.get(kind, 0)


def _gpt2(layer: int, kind: str) -> str:
    return (
        f"transformer.h.{layer}.{'attn' if kind in ('c_attn', 'o') else 'mlp'}.{'c_proj' if kind in 'o down' else kind}"
    )


def _gemm(layer: int, kind: str) -> tuple[str, int]:
    block, name = _gpt2(layer, kind).split(".")[-2:]
    return f"/transformer/h.{layer}/{block}/{name}/Gemm", 0


GPT2 = {"c_attn": (64, 192), "o": (64, 64), "c_fc": (64, 256), "down": (256, 64)}
ATTENTION = {kind: LLAMA[kind] for kind in "qv"}
EXPORTED = (
    Exported("optimum-llama/model.onnx", _scripted(""), LLAMA, _llama),
    Exported("optimum-qwen3/model.onnx", _scripted(""), LLAMA, _llama),
    Exported("optimum-mistralsw/model.onnx", _scripted(""), ATTENTION, _llama),
    Exported("torch-ts-qwen2/model.onnx", _scripted("/m"), LLAMA, _llama),
    Exported("hf-dyn-llama/decode.onnx", _dynamo, LLAMA, _llama),
    Exported("torch-flat-llama/model.onnx", _dynamo, LLAMA, _llama),
    Exported("genai-llama-fp32-cpu/model.onnx", _packed, LLAMA, _llama),
    Exported("genai-mistralsw-fp32-cpu/model.onnx", _packed, ATTENTION, _llama),
    Exported("optimum-gpt2/model.onnx", _gemm, GPT2, _gpt2),
)  # fmt: skip


def load(path: Path) -> Program:
    return Program.load(path)


def changed(path: Path, exported: Exported, tensors: Tensors, scale: float) -> bytes:
    """The exported file with scale · BA added to its weights by numpy, every weight inside."""
    model = onnx.load(path)
    inits = {init.name: init for init in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    for layer in LAYERS:
        for kind in exported.widths:
            name, low = exported.node(layer, kind)
            init = inits[nodes[name].input[1]]
            weight = numpy_helper.to_array(init).astype(np.float64)
            delta = added(tensors, exported.module(layer, kind), scale)
            weight[:, low : low + delta.shape[1]] += delta
            init.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), init.name))
    return model.SerializeToString()


def feeds(program: Program, batch: int) -> dict[str, np.ndarray]:
    subject = Subject.of(next(iter(program.graphs.values())), "original")
    subject.guess = 16  # the width of a head, which genai leaves open
    return build_inputs(subject, make_case(subject.fixed(0) or batch, subject.fixed(1) or 7, Padding.FULL))


def run(program: Program, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Session(next(iter(program.graphs.values())), "model").run(given)


def far(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(found[n] - a).max() / np.abs(a).max()) for n, a in expected.items() if a.size)


QUICK = ("optimum-llama", "genai-llama-fp32-cpu", "optimum-gpt2")
CASES = [
    pytest.param(exported, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for exported in EXPORTED
    for name in (exported.path.partition("/")[0],)
]


@pytest.fixture(params=CASES)
def exported(request: pytest.FixtureRequest) -> Exported:
    return request.param


def adapters(folder: Path, exported: Exported) -> list[tuple[Path, Tensors, float]]:
    """Two adapters of rank 4: alpha / rank, and alpha / sqrt(rank)."""
    modules = {exported.module(layer, kind): w for layer in LAYERS for kind, w in exported.widths.items()}
    first, second = (matrices(modules, seed=seed, size=0.02) for seed in (1, 2))
    return [
        (write_peft(folder / "one", first, alpha=8), first, 2.0),
        (write_peft(folder / "two", second, alpha=3, use_rslora=True), second, 1.5),
    ]


def test_every_mode_is_what_numpy_makes_of_the_weights(exported: Exported, tmp_path: Path) -> None:
    path = Path(MODELS or "") / exported.path
    made = adapters(tmp_path, exported)
    base = load(path)
    given = feeds(base, batch=3)
    plain = run(base, given)
    truth = [_run_bytes(changed(path, exported, tensors, scale), given) for _, tensors, scale in made]
    assert all(far(plain, other) > 1e-3 for other in truth)  # the adapters do something

    folded = PassManager([Lora(mode=Mode.FOLD, adapters=(made[0][0],))]).run(load(path))
    assert far(truth[0], run(folded, given)) <= CLOSE

    inputs = PassManager([Lora(adapters=(made[0][0],))]).run(load(path))
    assert _bits(run(inputs, given | _zeros(exported, rank=0))) == _bits(plain)
    assert _bits(run(inputs, given | _zeros(exported, rank=3))) == _bits(plain)
    assert far(truth[0], run(inputs, given | _as_inputs(made[0][1], made[0][2]))) <= CLOSE

    slots = PassManager([Lora(mode=Mode.SLOTS, adapters=tuple(item[0] for item in made))]).run(load(path))
    lines = len(next(iter(given.values())))
    together = run(slots, given | {"lora_ids": np.asarray([[0], [1], [2]])[:lines]})
    for line, expected in enumerate([plain, *truth][:lines]):
        alone = run(slots, given | {"lora_ids": np.full((lines, 1), line)})
        assert far(expected, alone) <= CLOSE
        for name in expected:
            assert np.array_equal(together[name][line], alone[name][line]), f"{name}: line {line} depends on others"


def _run_bytes(data: bytes, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))  # pyright: ignore[reportArgumentType]


def _bits(outputs: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in outputs.items()}


def _zeros(exported: Exported, rank: int) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for layer in LAYERS:
        for kind, (width, columns) in exported.widths.items():
            module = exported.module(layer, kind)
            found[f"{module}.lora_A.weight"] = np.ones((width, rank), np.float32)
            found[f"{module}.lora_B.weight"] = np.zeros((rank, columns), np.float32)
    return found


def _as_inputs(tensors: Tensors, scale: float) -> dict[str, np.ndarray]:
    named = {name.removeprefix("base_model.model."): array.T for name, array in tensors.items()}
    return {n: a * np.float32(scale) if "lora_B" in n else np.ascontiguousarray(a) for n, a in named.items()}
