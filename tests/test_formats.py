"""Target files: written as their goldens, read back, hostile ones refused in one line that names the item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_llm_passes.ir.core.errors import InputError, OnnxPassesError
from onnx_llm_passes.ir.core.specialization import ManifestInvalid, Specialization, SpecRole
from onnx_llm_passes.ir.manifests import TARGETS, GraphInterface, get_target
from onnx_llm_passes.ir.manifests.custom_io_yaml import PRECISIONS, read_custom_io, write_custom_io
from onnx_llm_passes.ir.manifests.qaic import compiled_sizes
from onnx_llm_passes.ir.manifests.strict import dump_json, load_json, load_yaml, read_text

from .manifest_tools import GRAPHS, emitted

GOLDEN = Path(__file__).parent / "golden" / "formats"


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("graph", sorted(GRAPHS))
def test_files_are_as_they_were(graph: str, target: str, request: pytest.FixtureRequest) -> None:
    files = emitted(graph, target).artifacts
    folder = GOLDEN / f"{graph}-{target}"
    if request.config.getoption("--update-golden"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    kept = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")}
    assert files == kept, f"{folder} holds other files: pytest --update-golden tests/test_formats.py writes them"


@pytest.mark.parametrize("target", ["qaic", "ort"])
@pytest.mark.parametrize("graph", sorted(GRAPHS))
def test_a_file_with_names_reads_back(graph: str, target: str) -> None:
    program = emitted(graph, target)
    found = get_target(target).read(program.artifacts[get_target(target).file], where="here")
    assert [(i.name, i.binding) for i in found] == [(i.name, i.binding) for i in program.specializations]


@pytest.mark.parametrize("graph", sorted(GRAPHS))
def test_a_flat_file_reads_back_with_names_of_its_own(graph: str) -> None:
    program = emitted(graph, "qaic-flat")
    found = get_target("qaic-flat").read(program.artifacts["specializations.json"], where="here")
    assert [i.binding for i in found] == [i.binding for i in program.specializations]
    assert len({i.name for i in found}) == len(found)


@pytest.mark.parametrize("target", ["qnn", "tensorrt"])
def test_files_of_shapes_read_back_as_shapes(target: str) -> None:
    program = emitted("append", target)
    found = get_target(target).read(program.artifacts[get_target(target).file], where="here")
    (name,) = {key for key in found[1].binding if key.startswith("input_ids") and key.endswith("[1]")}
    assert [item.binding[name] for item in found] == [8, 1, 4]


def test_the_named_layout_byte_for_byte() -> None:
    one = Specialization(name="Prefill", role=SpecRole.PREFILL, binding={"seq_len": 8, "batch_size": 1})
    text = get_target("qaic").write(GraphInterface("g", (one,)))["specializations.json"]
    assert text == (
        '{\n    "specializations":[\n        {\n            "name":"Prefill",\n            "symbols":{\n'
        '                "batch_size":"1",\n                "seq_len":"8"\n            }\n        }\n    ]\n}'
    )


def test_the_custom_io_layout_byte_for_byte() -> None:
    text = write_custom_io({"past_key.0": "mxint8", "past_key.0_RetainedState": "mxint8"})
    assert text == (
        " - IOName: past_key.0\n   Precision: mxint8\n\n - IOName: past_key.0_RetainedState\n   Precision: mxint8\n\n"
    )


@given(
    st.dictionaries(st.text(min_size=1, max_size=20).filter(str.isprintable), st.sampled_from(PRECISIONS), max_size=4)
)
def test_custom_io_reads_back_whatever_the_names(entries: dict[str, str]) -> None:
    assert read_custom_io(write_custom_io(entries)) == entries


def test_the_flat_form_cannot_say_two_with_the_same_symbols() -> None:
    both = (Specialization(name="a", binding={"s": 1}, k=0), Specialization(name="b", binding={"s": 1}, k=1))
    with pytest.raises(ManifestInvalid, match=r"'b'.*'a'"):
        get_target("qaic-flat").write(GraphInterface("g", both))


# hostile files

NESTED = "[" * 10_000_000
HOSTILE_JSON = [
    NESTED,
    '{"specializations":' + NESTED,
    "[1]",
    "NaN",
    '{"specializations": NaN}',
    '{"specializations": [], "specializations": []}',
    '{"specializations": [{"a": "1", "a": "2"}]}',
    '{"specializations": {}}',
    '{"specializations": [[]]}',
    '{"specializations": [{"name": "A"}]}',
    '{"specializations": [{"name": 1, "symbols": {}}]}',
    '{"specializations": [{"name": "A", "symbols": {"x": NaN}}]}',
    '{"specializations": [{"name": "A", "symbols": {"x": 1e3}}]}',
    '{"specializations": [{"name": "A", "symbols": {"x": "1"}, "more": 1}]}',
    '{"specializations": [{"x": "0x10"}]}',
    '{"specializations": [{"x": ' + "9" * 10_000 + "}]}",
    '{"specializations": [], "more": 1}',
    "",
    '{"specializations"',
]


@pytest.mark.parametrize("text", HOSTILE_JSON, ids=lambda text: f"{text[:60]}…{len(text)}")
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_hostile_files_are_refused_in_one_line(target: str, text: str) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        get_target(target).read(text, where="file")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        NESTED,
        "- " * 200_000,
        "&a [*a, *a]",
        " - IOName: x\n   IOName: y\n   Precision: float16\n",
        " - IOName: x\n   Precision: float16\n\n - IOName: x\n   Precision: float16\n",
        " - IOName: x\n   Precision: int4\n",
        " - IOName: x\n",
        "x: 1",
        "--- []\n--- []",
        "!!python/object/apply:os.system [echo]",
    ],
    ids=lambda text: f"{text[:50]}…{len(text)}",
)
def test_hostile_yaml_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        read_custom_io(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_yaml_scalars_stay_texts() -> None:
    assert load_yaml("a: 1\nb: [yes, .nan, 0x1]", where="") == {"a": "1", "b": ["yes", ".nan", "0x1"]}


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_json_reads_back(value: Any) -> None:
    assert load_json(dump_json(value), where="") == value


@given(JSON_VALUES)
def test_no_wrong_shape_breaks_a_reader(value: Any) -> None:
    for wrapped in (value, {"specializations": value}, {"specializations": [value]}, {"profiles": [value]}):
        for target in sorted(TARGETS):
            try:
                found = get_target(target).read(dump_json(wrapped), where="file")
            except OnnxPassesError:
                continue
            assert all(isinstance(item, Specialization) for item in found)


def test_a_missing_manifest_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        compiled_sizes(read_text(tmp_path / "specializations.json"), where="")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no text"):
        read_text(tmp_path / "bytes.json")
