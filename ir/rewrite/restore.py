"""An edit that may be refused half-way gives the graph back as it was: edited once, not tried on a copy first."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import onnx_ir as ir


@contextmanager
def restored_on_failure(model: ir.Model) -> Generator[None]:
    """Edits ``model`` in place; where the edit raises, the model gets an untouched copy of its graph and functions.

    The copy shares tensors with the graph. After a failure values and nodes that the caller holds belong to no graph.
    """
    copy = model.clone()
    opsets = dict(model.graph.opset_imports)
    try:
        yield
    except BaseException:
        model.graph = copy.graph
        model.graph.opset_imports.clear()
        model.graph.opset_imports.update(opsets)
        model.functions.clear()
        model.functions.update(copy.functions)
        model.metadata_props.clear()
        model.metadata_props.update(copy.metadata_props)
        raise
