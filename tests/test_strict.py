"""The reader of hostile text files: what breaks a rule is refused with its line and the limit, whatever the kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_llm_passes.ir.core.encoding import EncodingsInvalid
from onnx_llm_passes.ir.core.errors import InputError, OnnxPassesError
from onnx_llm_passes.ir.core.specialization import ManifestInvalid
from onnx_llm_passes.ir.manifests import strict as manifests
from onnx_llm_passes.ir.serialization import encoding_fields as encodings
from onnx_llm_passes.ir.serialization.strict import StrictReader
from onnx_llm_passes.ir.serialization.strict_json import MAX_DEPTH, MAX_DIGITS

READERS = {"manifest": manifests.READER, "encodings": encodings.READER}
BROKEN_JSON = {
    "no json": ('{"a": 1,\n "b" 2}', "line 2: is no JSON"),
    "nothing": ("", "line 1: is no JSON"),
    "nan": ('{"NaN": "NaN",\n "b": "x\\" NaN",\n "c": NaN}', "line 3: NaN is no number"),
    "infinity": ("[1,\n-Infinity]", "line 2: -Infinity is no number"),
    "overflow": ('{"1e400": 0,\n\n "b": 1e400}', 'line 3: 1e400 is no number; found "b"; wanted a finite number'),
    "too many digits": (f"[\n-{'7' * (MAX_DIGITS + 1)}]", "line 2: -7777"),
    "more digits than Python reads": (f"[\n{'7' * 10_000}]", "line 2: 7777"),
    "key twice": ('{"a": {"b": 1},\n "b": 2,\n "a": 3}', "line 3: 'a' stands twice"),
    "key twice within": ('{"a": "a", "x": [{"b": 1,\n "c": "b",\n "b": 2}]}', "line 3: 'b' stands twice"),
    "key twice, once escaped": ('{"a": 1,\n "\\u0061" : 2}', "line 2: 'a' stands twice"),
    "levels": ("[\n" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"line {MAX_DEPTH + 1}: is nested without end"),
    "levels without end": ("[\n" * 1_000_000, f"wanted at most {MAX_DEPTH} levels"),
}
BROKEN_YAML = {
    "no yaml": ("a: 1\nb: [", "line 2: is no YAML"),
    "no character": ("a: \x07", "line 1: is no YAML"),
    "alias": ("a: &x 1\nb: *x", "line 2: holds an alias; found *x"),
    "key twice": ("a: 1\nb:\n  c: 1\n  c: 2", "line 4: 'c' stands twice"),
    "key no text": ("a: 1\n[b]: 2", "line 2: a key is no text"),
    "documents": ("a: 1\n---\nb: 2", "holds several documents"),
    "levels": ("[" * 100_000, f"wanted at most {MAX_DEPTH} levels"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("text", "wanted"), BROKEN_JSON.values(), ids=BROKEN_JSON)
def test_json_that_breaks_a_rule_is_refused_with_its_line(reader: StrictReader, text: str, wanted: str) -> None:
    with pytest.raises(reader.invalid) as refused:
        reader.load_json(text, where="file")
    assert wanted in str(refused.value)
    assert str(refused.value).startswith("file, line ")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("text", "wanted"), BROKEN_YAML.values(), ids=BROKEN_YAML)
def test_yaml_that_breaks_a_rule_is_refused_with_its_line(reader: StrictReader, text: str, wanted: str) -> None:
    with pytest.raises(reader.invalid) as refused:
        reader.load_yaml(text, where="file")
    assert wanted in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_keeps_the_rules_is_read() -> None:
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    text = f'{{"a": {{"a": [1.5, -{"9" * MAX_DIGITS}, true, null, "NaN", "a"]}}, "b": {deep}}}'
    found = manifests.load_json(text, where="")
    assert found["a"]["a"] == [1.5, -int("9" * MAX_DIGITS), True, None, "NaN", "a"]


def test_each_kind_has_its_errors_and_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    for reader, error in (
        (manifests.READER, InputError),
        (StrictReader("x", ManifestInvalid, max_bytes=9), InputError),
    ):
        with pytest.raises(error, match=f"is too large for .*; wanted at most {reader.max_bytes}$"):
            reader.read_text(path)
    assert encodings.READER.read_text(path)
    with pytest.raises(EncodingsInvalid, match="no such file"):
        encodings.READER.read_text(tmp_path / "nothing")
    with pytest.raises(OnnxPassesError, match="is too large for x; found 10 characters"):
        StrictReader("x", ManifestInvalid, max_bytes=9).load_json("[" * 10, where="")
