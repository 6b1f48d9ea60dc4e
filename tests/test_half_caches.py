"""Caches of half precision in a float graph: the casts between write and read stay when the cache goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .mutants import KINDS
from .test_mutants import IDIOMS, PIPELINES, tried


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("idiom", ["scatter index 0", "scatter elements", "append plain"])
def test_a_half_cache_is_stripped_and_cloned(idiom: str, pipeline: str, tmp_path: Path) -> None:
    model = IDIOMS[idiom]()
    assert KINDS["cache in half precision"](model)
    found = tried(model, pipeline, tmp_path)
    assert found is not None
    assert found < 5e-3
