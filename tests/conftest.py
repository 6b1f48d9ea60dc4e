"""Options of the test command that more than one file of tests uses."""

from __future__ import annotations

import pytest
from hypothesis import settings

# the same examples each time, however slow the machine
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--update-golden``: write expected results anew instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write the expected results of fixtures anew")
