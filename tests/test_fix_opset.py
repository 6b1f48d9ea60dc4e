"""fix-opset: a graph goes down where every node has the same form there, and is refused unchanged where not."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.passes.fix_opset import FixOpset


def test_a_refusal_changes_nothing() -> None:
    model = ir.from_onnx_text("""<ir_version: 11, opset_import: ["" : 24]>
    g (float[N, 4] x, int64[1] axes) => (float[N, 1] y) {
       s = Swish (x)
       y = ReduceMean (s, axes)
    }""")
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(PassRefused, match="ReduceMean has no such form in opset 17"):
        FixOpset(version=17).call(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_another_default_of_an_attribute_is_another_meaning() -> None:
    head = '<ir_version: 8, opset_import: ["" : 13]>'
    model = ir.from_onnx_text(f"{head} g (float[2, 3, 4] x) => (float[2, 3, 4] y) {{ y = Softmax (x) }}")
    with pytest.raises(PassRefused, match="another default of axis"):
        FixOpset(version=12).call(model)
