"""Encodings files: lossless both ways, converted into each other, and hostile ones refused with the line or name."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_llm_passes.ir.quantization import (
    FORMATS,
    Encoding,
    EncodingsInvalid,
    EncodingTable,
    Evidence,
    Kind,
    parse_encodings,
    print_encodings,
    read_encodings,
)

K, W = "present.0.key", "w"
V0_ACT = {
    "bitwidth": 8,
    "dtype": "int",
    "is_symmetric": "False",
    "max": 2.14,
    "min": -0.41,
    "offset": -41,
    "scale": 0.01,
}
V0_PARAM = V0_ACT | {"is_symmetric": "True", "max": 1.27, "min": -1.28, "offset": -128}
V1_ACT = {"name": K, "enc_type": "PER_TENSOR", "dtype": "INT", "bw": 8, "is_sym": False, "scale": [0.01]}
V1_ACT |= {"offset": [-41]}
V1_PARAM = {"name": W, "enc_type": "PER_CHANNEL", "dtype": "INT", "bw": 8, "is_sym": True, "scale": [0.01, 0.02]}
V1_PARAM |= {"offset": [-128, -128]}
V1_BLOCKS = V1_PARAM | {"name": "wl", "enc_type": "LPBQ", "compressed_bw": 4, "block_size": 32}
V1_BLOCKS |= {"per_block_int_scale": [3, 5, 1, 16]}
ARRAY = {"data": [-1.5], "dtype": "float32", "CLS": "numpy.array"}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "aimet-0.6.1": {
        "version": "0.6.1",
        "activation_encodings": {K: [V0_ACT], "h": [{"bitwidth": 16, "dtype": "float"}]},
        "param_encodings": {W: [V0_PARAM, V0_PARAM | {"scale": 0.02, "min": -2.56, "max": 2.54}]},
        "quantizer_args": {"activation_bitwidth": 16, "quant_scheme": "min_max"},
    },
    "qnn-overrides": {"activation_encodings": {K: [V0_ACT]}, "param_encodings": {W: [V0_PARAM]}},
    "aimet-1.0.0": {
        "version": "1.0.0",
        "activation_encodings": [V1_ACT, {"name": "h", "enc_type": "PER_TENSOR", "dtype": "FLOAT", "bw": 16}],
        "param_encodings": [V1_PARAM, V1_BLOCKS],
        "quantizer_args": {},
        "excluded_layers": [],
    },
    "aimet-2.0.0": {
        "producer": {"package": "aimet-onnx", "version": "2.42.0"},
        "version": "2.0.0",
        "encodings": [
            {"name": K, "output_dtype": "uint8", "y_scale": 0.01, "y_zero_point": 41},
            {"name": W, "output_dtype": "int8", "y_scale": [0.01, 0.02], "axis": 0},
            {"name": "wb", "output_dtype": "int4", "y_scale": [[0.01, 0.02]], "axis": 1, "block_size": 32},
            {
                "name": "wl",
                "output_dtype": "int4",
                "per_block_int_scale": [[3, 5]],
                "per_channel_float_scale": [[0.001]],
                "axis": 1,
                "block_size": 32,
            },
        ],
    },
    "aimet-2.1.0": {
        "version": "2.1.0",
        "encodings": [
            {
                "name": "wl",
                "output_dtype": "int4",
                "axis": 1,
                "block_size": 32,
                "y_scale": {"x": [[3, 5], [2, 1]], "x_scale": [0.001, 0.002], "axis": 0},
            }
        ],
    },
    "ort": {
        "CLS": "TensorsData",
        "data": {
            K: {"lowest": ARRAY, "highest": ARRAY | {"data": 2.5}, "CLS": "TensorData"},
            "h": {"lowest": ARRAY, "highest": ARRAY, "bins": 2, "hist": ARRAY, "CLS": "TensorData"},
        },
        "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
        "smooth_quant": False,
    },
    "kv-scales": {"scales": {"k_scales": [0.1, [0.1, 0.2]], "v_scales": [0.3, 0.4]}, "layer_ids": [0, 3]},
}
ENCODERS = [name for name in FORMATS if name not in ("ort", "kv-scales")]


@pytest.mark.parametrize("form", DOCUMENTS)
def test_a_file_comes_back_as_it_was(form: str) -> None:
    table = parse_encodings(json.dumps(DOCUMENTS[form]))
    assert table.file_format == form
    assert json.loads(print_encodings(table, form)) == DOCUMENTS[form]


@pytest.mark.parametrize("form", DOCUMENTS)
def test_the_native_form_holds_every_other(form: str) -> None:
    table = parse_encodings(json.dumps(DOCUMENTS[form]))
    again = parse_encodings(print_encodings(table))
    assert (again.encodings, again.ranges) == (table.encodings, table.ranges)


def test_offsets_are_counted_on_the_unsigned_grid() -> None:
    for form in ("aimet-0.6.1", "aimet-1.0.0"):
        table = parse_encodings(json.dumps(DOCUMENTS[form]))
        assert (table.encodings[K].zero_point, table.encodings[K].signed) == ((41,), False)
        assert table.encodings[K].span() == (((0 - 41) * 0.01,), ((255 - 41) * 0.01,))
        assert set(table.encodings[W].zero_point) == {0}  # offset -128
        assert table.encodings[W].signed


def test_onnxruntime_reads_what_is_written(tmp_path: Path) -> None:
    from onnxruntime.quantization.calibrate import load_tensors_data

    path = tmp_path / "ranges.json"
    path.write_text(print_encodings(EncodingTable(ranges={K: Evidence(-1.5, 2.25)}), "ort"), encoding="utf-8")
    loaded = load_tensors_data(path)
    data = loaded[0] if isinstance(loaded, tuple) else loaded
    assert [float(bound[0]) for bound in data[K].range_value] == [-1.5, 2.25]


def test_what_onnxruntime_writes_is_read(tmp_path: Path) -> None:
    import numpy as np
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData, save_tensors_data

    bounds = np.array([-0.1], np.float32), np.array([0.3], np.float32)
    path = tmp_path / "ranges.json"
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, {K: bounds}), path)
    table = read_encodings(path)
    assert (table.ranges[K].low, table.ranges[K].high) == tuple(float(b[0]) for b in bounds)
    assert json.loads(print_encodings(table, "ort")) == json.loads(path.read_text(encoding="utf-8"))


scales = st.floats(1e-30, 1e30, allow_subnormal=False)


@st.composite
def tables(draw: st.DrawFn) -> EncodingTable:
    table = EncodingTable()
    for index in range(draw(st.integers(1, 4))):
        bits, signed = draw(st.sampled_from((4, 8, 16))), draw(st.booleans())
        count = draw(st.integers(0, 3))
        shape = (count,) if count else ()
        low = -(1 << (bits - 1)) if signed else 0
        zeros = tuple(draw(st.integers(low, low + (1 << bits) - 1)) for _ in range(count or 1))
        table.encodings[f"t{index}"] = Encoding(
            tuple(draw(scales) for _ in zeros),
            zeros,
            bits,
            signed=signed,
            symmetric=draw(st.booleans()),
            shape=shape,
            axis=draw(st.integers(0, 3)) if shape else None,
            kind=draw(st.sampled_from(Kind)),
        )
    return table


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(ENCODERS))
def test_any_table_survives_any_format(table: EncodingTable, form: str) -> None:
    assert parse_encodings(print_encodings(table, form)).encodings == table.encodings


def edited(form: str, old: str, new: str) -> str:
    text = json.dumps(DOCUMENTS[form], indent=1)
    assert old in text
    return text.replace(old, new, 1)


HOSTILE = {
    "nan": (edited("aimet-1.0.0", "0.01", "NaN"), "NaN is no number", "line 11"),
    "infinity": (edited("ort", "-1.5", "-Infinity"), "-Infinity is no number", "line "),
    "1e400": (edited("aimet-0.6.1", "2.14", "1e400"), "1e400 is no number", "line 9"),
    "long integer": (edited("aimet-0.6.1", "-41", "-" + "4" * 40), "is no number", "line "),
    "no json": (edited("aimet-1.0.0", '"bw": 8,', '"bw": 8'), "is no JSON", "line "),
    "deep": ("[" * 100_000, "nested without end", ""),
    "name twice in an object": (edited("aimet-0.6.1", '"h"', f'"{K}"'), "stands twice", "line "),
    "name twice in a list": (edited("aimet-1.0.0", '"h"', f'"{K}"'), f"'{K}' stands twice", ""),
    "name in both sections": (edited("aimet-0.6.1", '"w"', f'"{K}"'), "both sections", K),
    "negative scale": (edited("aimet-2.0.0", "0.01", "-0.01"), "scale -0.01", K),
    "zero scale": (edited("kv-scales", "0.3", "0"), "scale 0.0", "layer 0 value"),
    "text for a number": (edited("aimet-1.0.0", "0.01", '"0.01"'), "no finite number", K),
    "truth for a number": (edited("aimet-2.0.0", "0.01", "true"), "no finite number", K),
    "half an offset": (edited("aimet-1.0.0", "-41", "-41.5"), "no whole number", K),
    "huge width": (edited("aimet-1.0.0", '"bw": 8', '"bw": 9000000'), "9000000 bits", K),
    "misspelt field": (edited("aimet-1.0.0", '"offset"', '"ofset"'), "unknown field 'ofset'", K),
    "missing field": (edited("aimet-1.0.0", '"bw": 8,', ""), "lacks 'bw'", K),
    "missing layer": (edited("kv-scales", "0.4", "0.4, 0.5"), "v_scales misses layers", ""),
    "layer twice": ('{"scales":{"k_scales":[1,1],"v_scales":[1,1]},"layer_ids":[2,2]}', "names a layer twice", ""),
    "ragged blocks": (edited("aimet-2.1.0", "[\n      3,\n      5\n     ]", "[3]"), "ragged", "wl"),
    "float blocks": (edited("aimet-2.1.0", '"x_scale"', '"input_dtype": "float8", "x_scale"'), "input_dtype", "wl"),
    "unknown version": (edited("aimet-2.0.0", '"version": "2.0.0"', '"version": "9.0"'), "unknown version", ""),
    "another schema": ('{"format":"onnx-llm-passes/encodings","schema_version":7,"tensors":{}}', "schema", ""),
    "a list": ("[1, 2]", "no encodings file", ""),
    "empty object": ("{}", "no encodings file", ""),
    "range the wrong way round": (
        '{"format":"onnx-llm-passes/encodings","schema_version":1,"tensors":{"x":{"range":[2,1]}}}',
        "wrong way round",
        "'x'",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_the_line_or_name(case: str) -> None:
    text, wanted, place = HOSTILE[case]
    with pytest.raises(EncodingsInvalid) as caught:
        parse_encodings(text, where="enc.json")
    assert wanted in str(caught.value)
    assert place in str(caught.value)
    assert "enc.json" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_of_100_mb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(EncodingsInvalid, match="too large"):
        read_encodings(path)


def test_a_name_that_stands_twice_among_many_is_found_at_once() -> None:
    names = [f'"k{index}": []' for index in range(60_000)]
    before = time.process_time()
    with pytest.raises(EncodingsInvalid, match="'k59999' stands twice"):
        parse_encodings('{"activation_encodings": {' + ", ".join([*names, names[-1]]) + "}}")
    assert time.process_time() - before < 5


def test_side_notes_of_many_tensors_are_read_at_once() -> None:
    table = EncodingTable({f"t{i}": Encoding((1.0, 2.0), (0, 0), 8, shape=(2,), axis=0) for i in range(20_000)})
    text = print_encodings(table, "aimet-1.0.0")
    before = time.process_time()
    assert parse_encodings(text).encodings == table.encodings
    assert time.process_time() - before < 10
    with pytest.raises(EncodingsInvalid, match="unknown field 'nobody'") as caught:
        parse_encodings(text.replace('"onnx_llm_passes": {', '"onnx_llm_passes": {"nobody": {},'))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(("content", "wanted"), [(None, "no such file"), (b"\xff\xfe{}", "cannot be read")])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, wanted: str) -> None:
    path = tmp_path / "enc.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EncodingsInvalid, match=wanted):
        read_encodings(path)


def test_what_a_format_cannot_hold_is_refused_by_name() -> None:
    blocks = parse_encodings(json.dumps(DOCUMENTS["aimet-2.0.0"]))
    with pytest.raises(EncodingsInvalid, match="'wb' has scales of blocks"):
        print_encodings(blocks, "aimet-0.6.1")
    half = parse_encodings(json.dumps(DOCUMENTS["aimet-1.0.0"]))
    with pytest.raises(EncodingsInvalid, match="'h' stays a float"):
        print_encodings(half, "aimet-2.0.0")


def test_side_notes_are_checked_like_the_rest() -> None:
    document = DOCUMENTS["aimet-1.0.0"] | {"onnx_llm_passes": {W: {"axis": "first"}}}
    with pytest.raises(EncodingsInvalid, match="'w'"):
        parse_encodings(json.dumps(document))
    with pytest.raises(EncodingsInvalid, match="unknown field 'nobody'"):
        parse_encodings(json.dumps(DOCUMENTS["aimet-1.0.0"] | {"onnx_llm_passes": {"nobody": {}}}))
