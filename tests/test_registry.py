"""The registry: names, captions, who offers a pass, and what goes wrong with strangers' passes."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, UnknownNameError, UsageError
from onnx_llm_passes.passes import registry
from onnx_llm_passes.passes.base import GraphResult, Pass
from onnx_llm_passes.passes.captions import common_ir_passes, first_sentence, kebab
from onnx_llm_passes.passes.options import options_of
from onnx_llm_passes.passes.registry import PASSES, get_pass, list_passes, pass_names


@dataclass(frozen=True)
class Stranger(Pass):
    """Does what strangers do."""

    name: ClassVar[str] = "stranger"

    def call(self, model: ir.Model) -> GraphResult:
        """Leaves the graph alone."""
        return GraphResult(model, False)


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    registry._third_party.cache_clear()
    yield
    registry._third_party.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, **targets: str) -> None:
    """Makes entry points ``name=module:attribute`` as if distributions offered them."""
    module = types.ModuleType("strangers_module")
    module.Stranger, module.number = Stranger, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "strangers_module", module)
    entries = [
        importlib.metadata.EntryPoint(name.replace("_", "-").rstrip("-"), target, registry.GROUP)
        for name, target in targets.items()
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == registry.GROUP else [])


@pytest.mark.parametrize("name", pass_names())
def test_key_is_the_name_of_the_class_and_of_its_file(name: str) -> None:
    cls = get_pass(name)
    assert issubclass(cls, Pass)
    assert cls.name == name
    if name in PASSES:
        assert cls.__module__.rpartition(".")[2] == name.replace("-", "_")


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_has_a_file_of_tests(name: str) -> None:
    path = Path(__file__).with_name(f"test_{name.replace('-', '_')}.py")
    assert "def test_" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pass_names())
def test_every_pass_has_a_caption_and_options_that_can_be_written(name: str) -> None:
    caption = next(listed.caption for listed in list_passes() if listed.name == name)
    assert caption
    assert len(caption) < 150
    assert all(option.wanted and "class" not in option.wanted for option in options_of(get_pass(name)))


def test_captions_read_from_source_are_the_docstrings() -> None:
    for listed in list_passes():
        if listed.name in PASSES:
            assert listed.caption == first_sentence(get_pass(listed.name).__doc__ or "")


def test_every_pass_of_onnx_ir_is_there() -> None:
    from onnx_ir.passes import common

    shipped = {f"ir-{kebab(name.removesuffix('Pass'))}" for name in common.__all__ if name.endswith("Pass")}
    assert shipped == {f"ir-{name}" for name in common_ir_passes()}
    assert {"ir-identity-elimination", "ir-checker", "ir-common-subexpression-elimination"} <= shipped


def test_options_of_a_wrapped_pass_are_its_keywords() -> None:
    found = {option.name: option.default for option in options_of(get_pass("ir-lift-constants-to-initializers"))}
    assert found == {"lift_all_constants": "false", "size_limit": "16"}


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'strip-states'") as caught:
        get_pass("strip_states")
    assert caught.value.exit_code == 2


def test_a_strangers_pass_is_listed_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, stranger="strangers_module:Stranger")
    assert "stranger" in pass_names()
    assert get_pass("stranger") is Stranger


def test_a_strangers_pass_may_not_take_a_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, rename_io="strangers_module:Stranger")
    with pytest.raises(UsageError, match="two packages offer a pass named 'rename-io'"):
        get_pass("rename-io")


def test_two_strangers_may_not_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, stranger="strangers_module:Stranger", stranger_="elsewhere:Stranger")
    with pytest.raises(UsageError, match="two packages offer a pass named 'stranger'"):
        pass_names()


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("module_that_is_not_there:Stranger", "cannot be loaded"),
        ("strangers_module:Nobody", "cannot be loaded"),
        ("strangers_module:number", "is not a pass"),
    ],
)
def test_a_strangers_pass_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, target: str, wanted: str) -> None:
    offer(monkeypatch, other=target)
    with pytest.raises(OnnxPassesError, match=wanted):
        get_pass("other")


def test_a_strangers_pass_of_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, other="strangers_module:Stranger")
    with pytest.raises(OnnxPassesError, match="another name than its entry point"):
        get_pass("other")
