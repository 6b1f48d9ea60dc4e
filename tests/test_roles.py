"""What each input is, found by structure: renaming every input changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.interface.roles import Role, find_roles, find_tables
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.rewrite.bind_sizes import make_static, static_facts
from onnx_llm_passes.ir.states import find_states
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.blocks import Tiny, decoder, embed, lm_head, rotary
from onnx_llm_passes.runtime.samples.samples import add_mask, append_decoder, last_token, scatter_decoder
from onnx_llm_passes.runtime.samples.writer import BOOL, FLOAT, INT64, Writer

from .builders import BUILDERS
from .convert_graphs import COUNTED
from .cross_graphs import cross_decoder

ONE = Tiny(layers=1)
NAMES = {
    "input_ids": Role.TOKEN_IDS,
    "position_ids": Role.POSITIONS,
    "attention_mask": Role.ATTENTION_MASK,
    "encoder_attention_mask": Role.ENCODER_MASK,
    "batch_index": Role.BATCH_INDEX,
    "beam_idx": Role.BATCH_INDEX,
    "num_logits_to_keep": Role.LOGITS_TO_KEEP,
    "pixel_values": Role.PIXELS,
    "image_idx": Role.IMAGE_INDEX,
    "image_grid_thw": Role.IMAGE_GRID,
    "comp_ctx_lengths": Role.CONTEXT_LENGTHS,
    "encoder_hidden_states": Role.FEATURES,
    "input_features": Role.FEATURES,
    "audio_features": Role.FEATURES,
    "use_cache_branch": Role.BRANCH,
    "write_indices": Role.OTHER,
}


def roles_of(model: ir.Model) -> dict[str, Role]:
    return find_roles(model, find_states(model))


def roles_when_renamed(model: ir.Model) -> dict[str, Role]:
    """Roles by the old names, of a graph whose inputs are called x0, x1 …"""
    names = [value.name or "" for value in model.graph.inputs]
    for number, value in enumerate(model.graph.inputs):
        value.name = f"x{number}"
    return dict(zip(names, roles_of(model).values(), strict=True))


def expected(names: list[str]) -> dict[str, Role]:
    return {name: NAMES.get(name, Role.STATE) for name in names}


@pytest.mark.parametrize("name", BUILDERS)
def test_renaming_every_input_changes_no_role(name: str) -> None:
    model = BUILDERS[name]()
    wanted = expected([value.name or "" for value in model.graph.inputs])
    assert roles_of(model) == wanted
    assert roles_when_renamed(model) == wanted


@pytest.mark.parametrize("own_mask", [False, True])
@pytest.mark.parametrize("past", [True, False])
def test_a_mask_of_cross_attention_is_an_encoders(past: bool, own_mask: bool) -> None:
    model = cross_decoder(past=past, own_mask=own_mask)
    wanted = expected([value.name or "" for value in model.graph.inputs])
    assert Role.ENCODER_MASK in wanted.values()
    assert roles_of(model) == wanted
    assert roles_when_renamed(model) == wanted


def real_models() -> list[Path]:
    folder = os.environ.get("ONNX_PASSES_MODELS")
    return sorted(Path(folder).glob("*/*.onnx")) if folder else []


@pytest.mark.parametrize("path", real_models(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_exports_keep_their_roles_when_renamed(path: Path) -> None:
    model = ir.load(path)
    names = [value.name or "" for value in model.graph.inputs]
    assert roles_when_renamed(model) == expected(names)


def test_real_exports_are_there() -> None:
    if not real_models():
        pytest.skip("ONNX_PASSES_MODELS names no folder of exported models")
    assert real_models()


def head(w: Writer, x: ir.Value) -> ir.Model:
    w.output("logits", lm_head(w, x, ONE), ["b", "s", ONE.vocab])
    return w.model()


def attended(w: Writer, x: ir.Value, mask: object = None) -> ir.Value:
    """One layer without a cache; ``mask`` turns scores into masked scores."""
    positions = w.constant(np.arange(5)[None])
    keep = mask or (lambda scores, keys: scores)
    return decoder(w, x, rotary(w, positions, 8), cache=lambda _, k, v: (k, v), mask=keep, config=ONE)  # type: ignore[arg-type]


def role(model: ir.Model, at: int = 0) -> Role:
    return list(roles_of(model).values())[at]


def test_a_bool_mask_of_four_dimensions() -> None:
    w = Writer()
    ids, mask = w.input("a", INT64, ["b", 5]), w.input("b", BOOL, ["b", 1, 5, 5])
    x = attended(w, embed(w, ids, ONE), lambda scores, keys: add_mask(w, scores, keys, mask))
    assert role(head(w, x), 1) is Role.ATTENTION_MASK


def test_tokens_of_an_encoder_and_of_a_decoder_look_up_one_table() -> None:
    w = Writer()
    first, second = w.input("a", INT64, ["b", "s"]), w.input("b", INT64, ["b", "t"])
    rows = w.op("ReduceMean", embed(w, first, ONE), [1], keepdims=1)
    w.output("hidden", w.op("Add", rows, embed(w, second, ONE)), ["b", "t", ONE.hidden])
    assert list(roles_of(w.model()).values()) == [Role.TOKEN_IDS, Role.TOKEN_IDS]


def test_sound_is_features_and_a_flat_picture_is_pixels() -> None:
    w = Writer()
    sound, picture = w.input("a", FLOAT, ["b", "samples"]), w.input("b", FLOAT, ["patches", 16])
    w.output("rows", w.op("Conv", w.unsqueeze(sound, 1), w.weight("taps", 4, 1, 3)), ["b", 4, "n"])
    square = w.op("Reshape", picture, [-1, 1, 4, 4])
    w.output("cells", w.op("Conv", square, w.weight("kernel", 4, 1, 4, 4)), ["patches", 4, 1, 1])
    assert list(roles_of(w.model()).values()) == [Role.FEATURES, Role.PIXELS]


def test_an_additive_float_mask() -> None:
    w = Writer()
    ids, mask = w.input("a", INT64, ["b", 5]), w.input("b", FLOAT, ["b", 1, 5, 5])
    x = attended(w, embed(w, ids, ONE), lambda scores, keys: w.op("Add", scores, mask))
    assert role(head(w, x), 1) is Role.ATTENTION_MASK


def test_hidden_states_in_place_of_tokens_are_embeddings() -> None:
    w = Writer()
    x = w.input("a", FLOAT, ["b", 5, ONE.hidden])
    assert role(head(w, attended(w, x))) is Role.EMBEDDINGS


def test_an_input_whose_length_chooses_logits() -> None:
    w = Writer()
    ids, keep = w.input("a", INT64, ["b", 5]), w.input("b", INT64, ["n", 1])
    x = attended(w, embed(w, ids, ONE))
    start = w.op("Neg", w.unsqueeze(w.size(keep, 0), 0))
    assert role(head(w, w.op("Slice", x, start, [99], [1])), 1) is Role.LOGITS_TO_KEEP


def test_an_input_whose_length_cuts_the_mask() -> None:
    w = Writer()
    ids, cut = w.input("a", INT64, ["b", 5]), w.input("b", INT64, ["n"])
    length = w.op("Shape", cut)
    x = attended(w, embed(w, ids, ONE), lambda scores, keys: w.op("Slice", scores, [0], length, [3]))
    w.output("last", last_token(w, x, ids), ["b", 1, ONE.hidden])
    assert role(w.model(), 1) is Role.CONTEXT_LENGTHS


def test_images_through_a_convolution_and_through_a_projection() -> None:
    w = Writer()
    image, patches = w.input("a", FLOAT, ["b", 3, "h", "w"]), w.input("b", FLOAT, ["n", 48])
    w.output("one", w.op("Conv", image, w.weight("conv", 8, 3, 4, 4), strides=[4, 4]), ["b", 8, "i", "j"])
    w.output("two", w.op("MatMul", patches, w.weight("proj", 48, 8)), ["n", 8])
    assert set(roles_of(w.model()).values()) == {Role.PIXELS}


def test_encoder_states_projected_more_than_once_are_features() -> None:
    w = Writer()
    hidden = w.input("a", FLOAT, ["b", "t", 32])
    for name in ("k", "v"):
        w.output(name, w.op("MatMul", hidden, w.weight(name, 32, 16)), ["b", "t", 16])
    assert role(w.model()) is Role.FEATURES


def test_token_ids_of_two_tables_of_one_size_are_told_by_name() -> None:
    w = Writer()
    places, ids = w.input("position_ids", INT64, ["b", "s"]), w.input("input_ids", INT64, ["b", "s"])
    x = w.op("Add", embed(w, ids, ONE), w.op("Gather", w.weight("wpe", ONE.vocab, ONE.hidden), places))
    assert roles_of(head(w, x)) == {"position_ids": Role.POSITIONS, "input_ids": Role.TOKEN_IDS}


def test_a_name_that_contradicts_the_element_type_says_nothing() -> None:
    w = Writer()
    odd = w.input("input_ids", FLOAT, ["b"])
    w.output("y", w.op("Neg", odd), ["b"])
    assert role(w.model()) is Role.OTHER


def test_tables_tell_how_many_ids_there_are() -> None:
    assert find_tables(BUILDERS["append"]()) == {"input_ids": 128}
    assert find_tables(BUILDERS["scatter"]()) == {"input_ids": 128, "position_ids": 256}


def one_token(model: ir.Model, pipeline: str) -> ir.Model:
    """The one graph that the pipeline makes of a decoder, read from its own bytes."""
    program = PassManager(parse_pipeline(pipeline)).run(Program({"model": model}))
    (name,) = program.names
    return ir.from_proto(ir.to_proto(program.graph(name)))


ONE_TOKEN = (
    "clone-decode{k=0 ctx=128},argmax-tail",
    "argmax-tail,clone-decode{k=0 ctx=128}",
    "clone-decode{k=0 ctx=64}",
)


@pytest.mark.parametrize("pipeline", ONE_TOKEN)
@pytest.mark.parametrize("build", [append_decoder, scatter_decoder])
def test_roles_stay_where_a_decode_takes_and_gives_one_token(build: Callable[[], ir.Model], pipeline: str) -> None:
    before = roles_of(build())
    after = roles_of(one_token(build(), pipeline))
    assert after == {name: role for name, role in before.items() if name in after}
    assert after["input_ids"] is Role.TOKEN_IDS


def test_roles_stay_when_one_token_is_bound_by_hand() -> None:
    model = append_decoder()
    before = roles_of(model)
    sizes = {"batch_size": 1, "sequence_length": 1, "past_sequence_length": 31}
    make_static(model, sizes, static_facts(model, sizes, where=""), where="")
    assert roles_of(model) == before
    assert roles_of(one_token(model, "argmax-tail")) == before


def counter(through: str) -> ir.Model:
    """A one-element input, and an output of its type and shape: how many of a run's tokens were images, added up.

    By integers, or by a float on the way.
    """
    w = Writer()
    at, ids = w.input("a", INT64, [1, 1]), w.input("b", INT64, [1, "s"])
    images = w.op("Cast", w.op("Equal", ids, w.constant(np.array([7]))), to=INT64)
    path = at if through == "integers" else w.op("Cast", w.op("Cast", at, to=FLOAT), to=INT64)
    w.output("next", w.op("Add", path, w.op("ReduceSum", images, w.constant(np.array([1])))), [1, 1], INT64)
    return w.model()


def test_a_counter_counts_in_integers() -> None:
    assert role(counter("integers")) is Role.IMAGE_INDEX
    assert role(counter("floats")) is not Role.IMAGE_INDEX


@pytest.mark.parametrize("shape", [[1], [1, 1], ["b", 1]])
def test_what_each_run_adds_one_to_is_a_state_and_no_image_index(shape: list[int | str]) -> None:
    w = Writer()
    at = w.input("a", INT64, shape)
    w.output("next", w.op("Add", at, w.constant(np.array([1]))), shape, INT64)
    assert role(w.model()) is Role.STATE


def test_positions_that_look_up_a_stored_mask_choose_no_adapter() -> None:
    program = Program(graphs={"g": COUNTED["stored triangle"]()})
    model = PassManager(parse_pipeline("convert-states{to=scatter}")).run(program).graphs["g"]
    assert find_roles(model, find_states(model))["position_ids"] is Role.POSITIONS
