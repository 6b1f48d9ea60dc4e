"""``verify`` opens its pairs of graphs on the weights where they lie, and compares in their own type what is equal."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.session import memory
from onnx_llm_passes.runtime.session import session as sessions
from onnx_llm_passes.runtime.verify.compare import compare
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

ENTRY = "session.disable_prepacking"


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by what each session that is opened is told of packing."""
    seen: list[str] = []
    made = sessions.session_options

    def watched(*given: Any, **more: Any) -> Any:
        options = made(*given, **more)
        try:
            seen.append(options.get_session_config_entry(ENTRY))
        except RuntimeError:  # what onnxruntime (1.32.0) raises for an entry that nobody made
            seen.append("0")
        return options

    monkeypatch.setattr(sessions, "session_options", watched)
    return seen


def test_pairs_read_weights_where_they_lie_and_other_sessions_pack_them(entries: list[str]) -> None:
    program = Program({"model": append_decoder()})
    result = PassManager(parse_pipeline("strip-states")).run(program.copy())
    assert verify(program, result).verdict is Verdict.EQUAL
    assert entries and set(entries) == {"1"}
    entries.clear()
    sessions.Session(append_decoder())
    assert entries == ["0"]


@pytest.mark.parametrize(("free", "entry"), [("1000 kB", "1"), ("9000000 kB", "0")])
def test_weights_beyond_half_of_the_free_memory_are_never_packed(
    tmp_path: Path, entries: list[str], monkeypatch: pytest.MonkeyPatch, free: str, entry: str
) -> None:
    wide = Tiny(layers=1, hidden=256, heads=4, kv_heads=2, head=64, ffn=688)
    Program({"model": append_decoder(wide)}).save(tmp_path / "model")
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {free}\n", encoding="ascii")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    sessions.Session(Program.load(tmp_path / "model").graphs["model"])
    assert entries == [entry]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.bool_])
def test_equal_arrays_are_compared_without_wide_copies(dtype: type) -> None:
    array = np.ones((1 << 20,), dtype)
    tracemalloc.start()
    try:
        found = compare("y", array, array.copy())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.equal and found.max_abs == 0 and found.integers is (dtype is np.int64)
    assert peak <= array.nbytes + (2 << 20)  # the copy made here, and a truth value a number


def test_what_is_equal_but_for_a_nan_or_infinity_stays_as_it_was() -> None:
    array = np.array([1.0, np.nan, np.inf, -0.0], np.float32)
    other = np.array([1.0, np.nan, np.inf, 0.0], np.float32)
    assert compare("y", array, other).equal
    assert compare("y", array[2:], other[2:]).equal
    assert not compare("y", array, np.array([1.0, 2.0, np.inf, 0.0], np.float32)).equal
