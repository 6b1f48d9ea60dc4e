"""Versions of onnxruntime that compute an operator wrongly are told, and nothing is compared with them."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_llm_passes.runtime.session import session
from onnx_llm_passes.runtime.session.known_faults import fault_of
from onnx_llm_passes.runtime.session.session import KernelMissing, Session

SOFTCAP = """<ir_version: 11, opset_import: ["" : 24]>
g (float[1, 2, 3, 4] q, bool[3, 3] mask) => (float[1, 2, 3, 4] y) { y = Attention <softcap = 2.0> (q, q, q, mask) }"""
LENGTH = """<ir_version: 11, opset_import: ["" : 24]>
g (float[1, 2, 3, 4] q, int64[1] n) => (float[1, 2, 3, 4] y) { y = Attention <is_causal = 1> (q, q, q, , , , n) }"""


@pytest.mark.parametrize(("text", "wrong", "right"), [(SOFTCAP, "1.26.0", "1.27.0"), (LENGTH, "1.27.1", "1.28.0")])
def test_a_fault_is_told_up_to_the_version_that_mended_it(text: str, wrong: str, right: str) -> None:
    model = ir.from_onnx_text(text)
    assert f"onnxruntime {wrong} computes Attention" in fault_of(model, wrong)
    assert not fault_of(model, right)


def test_a_session_of_such_a_version_counts_as_without_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "fault_of", lambda model, version: fault_of(model, "1.24.4"))
    with pytest.raises(KernelMissing, match="before the soft cap"):
        Session(ir.from_onnx_text(SOFTCAP))
