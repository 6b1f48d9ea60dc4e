"""Pipeline text: parse and print are inverse, presets expand, and what does not fit is named."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_llm_passes.ir.core.errors import OnnxPassesError, UnknownNameError, UsageError
from onnx_llm_passes.passes import pipeline, presets
from onnx_llm_passes.passes.base import Pass
from onnx_llm_passes.passes.options import options_of, parse_options, print_options
from onnx_llm_passes.passes.pipeline import expand_pipeline, parse_pipeline, print_pipeline
from onnx_llm_passes.passes.presets import PRESETS, Preset
from onnx_llm_passes.passes.syntax import MAX_TEXT, Atom, PassSpec, parse_specs, print_specs


class Colour(enum.Enum):
    """An enumeration whose values are what one writes."""

    RED = "red"
    DEEP_BLUE = "deep blue"


@dataclass(frozen=True)
class Everything(Pass):
    """Has an option of each type."""

    name: ClassVar[str] = "everything"

    number: int = 3
    size: float = 0.5
    flag: bool = False
    text: str = "none"
    colour: Colour = Colour.RED
    way: Literal["up", "down"] = "up"
    ints: tuple[int, ...] = ()
    texts: tuple[str, ...] = ("a",)
    map: tuple[tuple[str, str], ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    table: Mapping[str, str] = field(default_factory=dict)
    box: tuple[int, int] = (1, 2)
    place: Path | None = None
    maybe: str | None = "x"
    as_: str = ""


PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTS = st.integers(-(10**17), 10**17)
EVERYTHING = st.builds(
    Everything,
    number=INTS,
    size=st.floats(allow_nan=False),
    flag=st.booleans(),
    text=PLAIN,
    colour=st.sampled_from(Colour),
    way=st.sampled_from(["up", "down"]),
    ints=st.lists(INTS, max_size=4).map(tuple),
    texts=st.lists(PLAIN, max_size=4).map(tuple),
    map=st.lists(st.tuples(PLAIN, PLAIN), max_size=4).map(tuple),
    sizes=st.lists(st.tuples(PLAIN, INTS), max_size=4).map(tuple),
    table=st.dictionaries(PLAIN, PLAIN, max_size=4),
    box=st.tuples(INTS, INTS),
    place=st.none() | PLAIN.filter(lambda text: text and "\0" not in text).map(Path),
    maybe=st.none() | PLAIN,
    as_=PLAIN,
)
ATOMS = st.builds(Atom, PLAIN, quoted=st.booleans())
VALUES = st.lists(st.lists(ATOMS, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple)
NAMES = st.text(st.sampled_from("abc-_09$."), min_size=1, max_size=8)
SPECS = st.builds(PassSpec, NAMES, st.dictionaries(NAMES, VALUES, max_size=3).map(lambda d: tuple(d.items())))


def read(text: str) -> Everything:
    """An instance out of written options."""
    spec = parse_specs(f"everything{{{text}}}")[0]
    return Everything(**parse_options(Everything, dict(spec.options), where="pass 'everything'"))


@given(EVERYTHING)
def test_options_print_and_parse_back(instance: Everything) -> None:
    text = print_specs([PassSpec("everything", print_options(instance))])
    spec = parse_specs(text)[0]
    assert Everything(**parse_options(Everything, dict(spec.options), where="")) == instance


@given(st.lists(SPECS, min_size=1, max_size=4))
def test_specs_print_and_parse_back(specs: list[PassSpec]) -> None:
    text = print_specs(specs)
    again = parse_specs(text)
    assert print_specs(again) == text
    assert [strip_quotes(spec) for spec in again] == [strip_quotes(spec) for spec in specs]


def strip_quotes(spec: PassSpec) -> object:
    """A spec without telling how its atoms were written."""
    return spec.name, [(key, [[atom.text for atom in item] for item in value]) for key, value in spec.options]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        specs = parse_specs(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse_specs(print_specs(specs)) == specs


@pytest.mark.parametrize(
    "text",
    ["{" * 100_000, "a{x=" + '"' * 99_999, "a," * 50_000, "a{" + "x=1 " * 50_000, 'a{x="' + "\\" * 99_999, "a" * 9_999],
)
def test_hostile_text_is_refused_at_once(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(UsageError):
        parse_specs(text)
    assert time.perf_counter() - began < 5


def test_text_has_a_bound() -> None:
    with pytest.raises(UsageError, match="too long"):
        parse_specs("a" * (MAX_TEXT + 1))


def test_the_example_of_the_design_is_read() -> None:
    specs = parse_specs('a,b{x=1 y=2,3 map=old:new,old2:new2 s="any text"},c')
    assert [spec.name for spec in specs] == ["a", "b", "c"]
    written = {name: [[atom.text for atom in item] for item in value] for name, value in specs[1].options}
    assert written == {
        "x": [["1"]],
        "y": [["2"], ["3"]],
        "map": [["old", "new"], ["old2", "new2"]],
        "s": [["any text"]],
    }


def test_spaces_and_line_ends_between_passes_do_not_matter() -> None:
    assert parse_specs(" a ,\n  b { x=1\n  y=2 } ") == parse_specs("a,b{x=1 y=2}")


def test_escapes_are_a_quote_and_a_backslash() -> None:
    assert read(r'text="a\"b\\c"').text == 'a"b\\c'
    with pytest.raises(UsageError, match="closing quote"):
        read(r'text="a\n"')


def test_defaults_are_not_printed() -> None:
    assert print_options(Everything()) == ()
    assert print_pipeline(parse_pipeline("ir-checker{full_check=false}")) == "ir-checker"
    assert print_pipeline(parse_pipeline("ir-checker{full_check=true}")) == "ir-checker{full_check=true}"


def test_none_is_nothing_and_quoted_none_is_text() -> None:
    assert read("maybe=none").maybe is None
    assert read('maybe="none"').maybe == "none"


def test_a_trailing_underscore_of_a_field_is_not_written() -> None:
    assert read("as=branches").as_ == "branches"
    assert "as" in [option.name for option in options_of(Everything)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("number=three", "option 'number': bad value; found three; wanted an integer"),
        ("number=", "found nothing; wanted an integer"),
        ("number=1,2", "found 1,2; wanted an integer"),
        ("number=99999999999999999999", "wanted an integer"),
        ("size=nan", "wanted a number"),
        ("flag=yes", "wanted true or false"),
        ("colour=green", "wanted one of red, deep blue"),
        ("way=left", "wanted one of up, down"),
        ("ints=1,x", "wanted integers separated by commas"),
        ("text=a,b", "Quote a value that holds a comma"),
        ("text=a:b", "Quote a value that holds a colon"),
        ("map=a", "wanted pairs text:text separated by commas"),
        ("map=a:b:c", "A name that holds a colon needs quotes"),
        ("sizes=a:b", "wanted pairs text:integer separated by commas"),
        ("table=a:b,a:c", "'a' stands twice"),
        ("box=1", "wanted integer,integer"),
        ('place=""', "wanted a path or none"),
        ("nmber=1", "unknown option 'nmber'. Did you mean 'number'"),
        ("number=1 number=2", "option 'number' stands twice"),
    ],
)
def test_what_does_not_fit_is_named(text: str, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert wanted in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "a,",
        ",a",
        "a,,b",
        "a{",
        "a}",
        "a{x}",
        "a{x=1",
        "a{=1}",
        "a{x=1,}",
        "a b",
        'a{x="1"y=2}',
        "a{x=1}{y=2}",
    ],
)
def test_text_that_is_no_pipeline_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(UsageError, match=r"at character \d+"):
        parse_specs(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("strip-state", "Did you mean 'strip-states'"),
        ("single_shot", "Did you mean 'single-shot'"),
        ("rename-io{mop=a:b}", "unknown option 'mop'. Did you mean 'map'? Its options are map, dims, missing."),
        ("single-shot{layer=1}", "preset 'single-shot': unknown parameter 'layer'. Did you mean 'layers'?"),
        ("ir-topological-sort{x=1}", "It has no options."),
    ],
)
def test_unknown_names_are_answered_with_near_ones(text: str, wanted: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse_pipeline(text)
    assert wanted in str(caught.value)


def test_an_option_without_default_must_be_given() -> None:
    with pytest.raises(UsageError, match="pass 'surgeon': option 'script' must be given; wanted a path"):
        parse_pipeline("surgeon")


def test_a_preset_expands_in_place() -> None:
    assert expand_pipeline("single-shot") == "strip-states,simplify"
    assert expand_pipeline("ir-checker,single-shot,ir-checker") == "ir-checker,strip-states,simplify,ir-checker"


def test_a_presets_parameters_reach_its_passes() -> None:
    text = "single-shot{layers=0,1 kinds=key positions=any}"
    assert expand_pipeline(text) == "strip-states{layers=0,1 kinds=key positions=any},simplify"
    with pytest.raises(UsageError, match="pass 'strip-states', option 'positions': bad value; found some"):
        expand_pipeline("single-shot{positions=some}")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole(name: str) -> None:
    preset = PRESETS[name]
    assert preset.caption
    assert "." not in preset.caption
    parse_pipeline(name)
    used = {f"${parameter}" for parameter in preset.parameters}
    assert used == {part for part in preset.template.replace("}", " ").replace("=", " ").split() if part[0] == "$"}


def test_a_presets_default_is_used_and_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Preset("Checks", "ir-checker{full_check=$full},ir-checker{full_check=true}", {"full": "true"})
    monkeypatch.setitem(presets.PRESETS, "double", row)
    assert expand_pipeline("double") == "ir-checker{full_check=true},ir-checker{full_check=true}"
    assert expand_pipeline("double{full=false}") == "ir-checker,ir-checker{full_check=true}"


def test_a_preset_that_holds_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "ring", Preset("Turns", "ring,ring"))
    with pytest.raises(UsageError, match="nested too deep"):
        parse_pipeline("ring")


def test_a_refusal_of_the_pass_itself_names_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> Pass:
        raise ValueError("no two alike")

    monkeypatch.setattr(pipeline, "parse_options", lambda *_, **__: {})
    monkeypatch.setattr(pipeline, "get_pass", lambda _: broken)
    with pytest.raises(OnnxPassesError, match="pass 'ir-checker': no two alike"):
        parse_pipeline("ir-checker")
