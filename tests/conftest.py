"""What more than one file of tests uses: an option of the test command, and the writer of the documents."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# the same examples each time, however slow the machine
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--update-golden``: write expected results anew instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write the expected results of fixtures anew")


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """``docs/generate.py``, which is no module of the package."""
    path = Path(__file__).resolve().parent.parent / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("docs_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
