"""Contracts: what they ask, how they adapt feeds and answers, how renames and clones compose, how they are stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from onnx_llm_passes.ir.core.errors import InputError, UsageError
from onnx_llm_passes.ir.program.contract import Contract, ContractBroken, Side, port
from onnx_llm_passes.ir.program.contracts.adapters import AdapterInputs, AdapterSlots, Source, WeightsFolded
from onnx_llm_passes.ir.program.contracts.chain import Chain, renamed
from onnx_llm_passes.ir.program.contracts.half import HalfPrecision
from onnx_llm_passes.ir.program.contracts.heads import HiddenTapped, Pooled, SelectedWords
from onnx_llm_passes.ir.program.contracts.interface import (
    CastIO,
    FixedSwitch,
    Grid,
    IntegersNarrowed,
    QuantizedIO,
    RenamedIO,
)
from onnx_llm_passes.ir.program.contracts.logits import BestTokens, LastRows
from onnx_llm_passes.ir.program.contracts.lowered import OperatorsLowered, RightPadded, WholePast
from onnx_llm_passes.ir.program.contracts.padding import SpareRows, WholeChunks
from onnx_llm_passes.ir.program.contracts.positions import (
    AnyPositions,
    CacheRowPositions,
    ConsecutivePositions,
    KeysOfRun,
    OrderedPositions,
    ZeroPosition,
)
from onnx_llm_passes.ir.program.contracts.registry import BUILT_IN, read_contract, register_contract
from onnx_llm_passes.ir.program.contracts.sampling import SampledTokens
from onnx_llm_passes.ir.program.contracts.sizes import (
    Assumption,
    Claims,
    CloneOf,
    LayerCut,
    Packed,
    SizesBound,
    SplitInto,
)
from onnx_llm_passes.ir.program.contracts.states import LayoutChanged, StatesRemoved, StaticPast
from onnx_llm_passes.ir.program.contracts.unknown import UnknownContract
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.cases import LENGTHS
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

EXAMPLES: tuple[Contract, ...] = (
    AdapterInputs(("q",), ("q.A",), ("q.B",), ((32, 16),), "FLOAT16", 8, ("q.A_RetainedState",)),
    AdapterSlots("lora_ids", "ids", (Source("one", "adapters/one", "00"),), ("q",)),
    WeightsFolded((Source("one", "adapters/one", "00"),), ("q",), "FLOAT"),
    AnyPositions("p"),
    Assumption("a sentence"),
    BestTokens("ids", "logits", 3, "values", graphs=("prefill",), step=4),
    CacheRowPositions("p"),
    CastIO(("ids",), (), "INT32"),
    IntegersNarrowed(("ids",), ("best",), largest=4096),
    Claims(prefill=True, ks=(0, 4)),
    CloneOf(graph="decode_k4", base="model", role="decode", k=4),
    ConsecutivePositions("p"),
    FixedSwitch("use_cache", True),
    HalfPrecision("float16", 2e-3),
    LastRows("logits", 2, how="by attention mask", source="mask", tokens="ids"),
    LayerCut(graph="layer1", base="model", layer=1, hidden="h", result="r"),
    SplitInto(graph="model", parts=("embed", "head"), handed=("h",)),
    LayoutChanged(("past",), ("present",), before="append", after="scatter"),
    OperatorsLowered(2e-6),
    OrderedPositions("p"),
    Packed(graph="model", parts=("prefill", "decode")),
    HiddenTapped("low", "sum", "normed", 3, 7),
    Pooled("vector", "rows", "mean", "l2", 64, "int8", "vector_scale", "by attention mask", "mask", inside=True),
    QuantizedIO(("past",), (Grid("INT8", (0.5,)),)),
    RenamedIO((("a", "b"),)),
    RightPadded("mask"),
    SampledTokens(
        "next_tokens",
        "logits",
        64,
        ("top_ks",),
        ("top_ks",),
        (("batch", 1),),
        "ids",
        1,
        also=("probs",),
        also_kinds=("probs",),
    ),
    SelectedWords("score", "logits", (9693, 2152), "probability"),
    SizesBound({"seq": 4}),
    StatesRemoved(("past",), ("present",)),
    SpareRows(("past",), 128),
    StaticPast(("past",)),
    WholeChunks(32, graphs=("prefill",)),
    WholePast("present"),
    ZeroPosition("start"),
    KeysOfRun("b", "a"),
)


def run(text: str, program: Program) -> Program:
    PassManager(parse_pipeline(text)).run(program)
    return program


def test_every_kind_has_an_example_and_no_two_share_a_name() -> None:
    assert {type(example) for example in EXAMPLES} == set(BUILT_IN)
    assert len({cls.kind for cls in BUILT_IN}) == len(BUILT_IN)


@pytest.mark.parametrize("contract", EXAMPLES, ids=lambda contract: contract.kind)
def test_a_contract_comes_back_out_of_json(contract: Contract) -> None:
    entry = json.loads(json.dumps(contract.to_json()))
    again = read_contract(entry)
    assert (again, again.step) == (contract, contract.step)
    assert contract.sentence()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"kind": "best-tokens", "ids": 3, "logits": "y"}, "ids"),
        ({"kind": "best-tokens", "ids": "x"}, "logits"),
        ({"kind": "ordered-positions", "input": "p", "run": "rm"}, "run"),
        ({"kind": "cast-io", "dtype": "NOTHING"}, "no element type"),
        ({"kind": "quantized-io", "ports": ["a"], "grids": []}, "one grid each"),
        ({"kind": "quantized-io", "ports": ["a"], "grids": [{"dtype": "FLOAT", "scale": [1.0]}]}, "no integers"),
        ({"kind": ["x"]}, "no kind"),
        ({"kind": "foreign", "graphs": "all"}, "graphs"),
        ({}, "no kind"),
    ],
)
def test_an_entry_that_is_none_is_refused_in_one_line(entry: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        read_contract(entry)
    assert "\n" not in str(caught.value)


# --- what they ask, and what they make of feeds and outputs


@pytest.mark.parametrize(
    ("contract", "good", "bad"),
    [
        (OrderedPositions("p"), [0, 1, -1], [1, 0, -1]),
        (AnyPositions("p"), [1, -1, 0], [0, 2, -1]),
        (ZeroPosition("p"), [0, 0, 0], [0, 1, 0]),
        (ConsecutivePositions("p"), [5, 6, 7], [5, 6, -1]),
        (CacheRowPositions("p"), [5, 6, -1], [5, 7, -1]),
        (FixedSwitch("p", True), [1, 1, 1], [1, 0, 1]),
        (StatesRemoved(("p",)), [0, 0, 0], [0, 1, 0]),
    ],
    ids=lambda item: item.kind if isinstance(item, Contract) else "",
)
def test_feeds_that_break_a_contract_are_named_and_can_be_made_to_keep_it(
    contract: Contract, good: list[int], bad: list[int]
) -> None:
    contract.holds({"p": np.array([good])})
    contract.holds({"q": np.array([bad])})
    broken = {"p": np.array([good, bad]) if not isinstance(contract, FixedSwitch) else np.array([bad])}
    with pytest.raises(ContractBroken, match=r"input 'p'"):
        contract.holds(broken)
    contract.holds(contract.constrained(broken))


def test_the_row_that_breaks_a_contract_is_named() -> None:
    with pytest.raises(ContractBroken, match="input 'p', row 1"):
        OrderedPositions("p").holds({"p": np.array([[0, 1], [1, 0]])})


def test_a_grid_rounds_to_even_and_saturates() -> None:
    grid = Grid("INT8", (0.5, 1.0), axis=0)
    found = grid.quantized(np.array([[0.25, 0.75, 200.0], [0.5, 1.5, -200.0]], np.float32))
    assert found.tolist() == [[0, 2, 127], [0, 2, -128]]
    assert found.dtype == np.int8


def test_feeds_go_through_the_contracts_in_order() -> None:
    links = [
        FixedSwitch("flag", True),
        RenamedIO((("ids", "flag"),)),  # a name that was gone is given again
        CastIO(("flag",), (), "INT32"),
        StatesRemoved(("past",), ("present",)),
    ]
    chain = Chain.of([*links], "model")
    feeds = {"flag": np.array([False]), "ids": np.array([[1, 2]]), "past": np.ones(2)}
    feeds = chain.constrained(feeds)
    chain.check(feeds)
    adapted = chain.adapt_inputs(feeds)
    assert list(adapted) == ["flag"] and adapted["flag"].dtype == np.int32
    assert list(chain.expected({"logits": np.ones(1), "present": np.ones(1)}, feeds)) == ["logits"]


def test_ids_are_expected_in_place_of_logits_and_compared_in_the_rows_that_are_kept() -> None:
    chain = Chain.of([LastRows("y", 1, tokens="x"), BestTokens("ids", "y"), RenamedIO((("ids", "best"),))], "g")
    feeds, logits = {"x": np.zeros((1, 3), np.int64)}, np.array([[[0, 1], [1, 0], [0, 1.0]]])
    expected = chain.expected({"y": logits}, feeds)
    assert {name: array.tolist() for name, array in expected.items()} == {"best": [[1, 0, 1]]}
    ours, theirs = chain.comparable("best", expected["best"], np.array([[1]]), feeds)
    assert (ours.tolist(), theirs.tolist()) == ([1], [1])
    assert chain.output_before("best") == "y"


# --- renames, graphs


def test_a_rename_reaches_the_contracts_before_it() -> None:
    held = [LastRows("y", 1, source="mask"), BestTokens("ids", "y")]
    found = renamed(held, {"ids": "best", "mask": "m"}, {"x", "mask", "ids"}, 2)
    assert found == [RenamedIO((("ids", "best"), ("mask", "m"))), LastRows("y", 1, source="m"), BestTokens("best", "y")]
    assert [contract.step for contract in found] == [2, 0, 0]


def test_a_rename_to_a_name_that_is_gone_stays_behind_the_contract_that_speaks_of_it() -> None:
    held = [OrderedPositions("p"), BestTokens("ids", "y")]
    found = renamed(held, {"ids": "y"}, {"p", "ids"}, 2)
    assert found == [*held, RenamedIO((("ids", "y"),))]
    assert Chain.of(found, "g").output_before("y") == "y"


def test_a_rename_does_not_pass_what_is_not_known() -> None:
    held = [OrderedPositions("x"), UnknownContract("foreign", {"kind": "foreign"}), OrderedPositions("p")]
    found = renamed(held, {"x": "z", "p": "q"}, {"x", "p"}, 3)
    assert [type(contract) for contract in found] == [OrderedPositions, UnknownContract, RenamedIO, OrderedPositions]
    assert found[3] == OrderedPositions("q")


def test_contracts_on_a_graph_hold_of_its_clones_and_no_others() -> None:
    links: list[Contract] = [
        OrderedPositions("p", graphs=("decoder",)),
        OrderedPositions("q", graphs=("encoder",)),
        CloneOf(graph="prefill", base="decoder", role="prefill", step=1),
        CloneOf(graph="decode", base="decoder", role="decode", step=1),
        BestTokens("ids", "y", graphs=("decode",), step=2),
        Packed(graph="all", parts=("prefill", "decode"), step=3),
    ]
    kinds = {name: [link.kind for link in Chain.of(links, name).links] for name in ("prefill", "all")}
    assert kinds["prefill"] == ["ordered-positions", "clone-of"]
    assert kinds["all"] == ["ordered-positions", "clone-of", "clone-of", "best-tokens", "packed"]
    assert Chain.of(links, "all").sources == ("decoder",)
    assert Chain.of(links, "all", since=2).sources == ("prefill", "decode")


def test_what_was_recorded_before_the_original_was_saved_holds_of_it_and_changes_nothing() -> None:
    original, result = (run("single-shot", Program({"model": scatter_decoder()})) for _ in range(2))
    run("rename-io{map=position_ids:pos,logits:scores}", result)
    chain = Chain.between(original, result, "model")
    feeds = {"input_ids": np.array([[1, 2]]), "position_ids": np.array([[1, 0]])}
    assert set(chain.adapt_inputs(feeds)) == {"input_ids", "pos"}
    with pytest.raises(ContractBroken, match="input 'position_ids', row 0"):
        chain.check(feeds)
    assert OrderedPositions("pos") in result.contracts
    assert verify(original, result).equal


# --- token ids renamed, with one graph and with several


@pytest.mark.parametrize("first", ["single-shot,", ""])
def test_token_ids_may_be_renamed(first: str, tmp_path: Path) -> None:
    result = run(f"{first}argmax-tail,rename-io{{map=token_ids:ids}}", Program({"model": append_decoder()}))
    result.save(tmp_path / "out")
    report = verify(Program({"model": append_decoder()}), Program.load(tmp_path / "out"))
    assert report.equal and report.runs, report.first_difference
    index = json.loads((tmp_path / "out" / "program.json").read_text())
    assert [entry["ids"] for entry in index["contracts"] if entry["kind"] == "best-tokens"] == ["ids"]
    assert not any("token_ids" in sentence for sentence in index["assumptions"])


@pytest.mark.parametrize(
    "text",
    [
        "clone-decode{k=2 ctx=24 prefill=8 fold=true},argmax-tail,rename-io{map=token_ids:ids}",
        "argmax-tail,clone-decode{k=2 ctx=24 prefill=8},rename-io{map=token_ids:ids}",
    ],
)
def test_token_ids_of_several_graphs_may_be_renamed(text: str, tmp_path: Path) -> None:
    result = run(text, Program({"model": append_decoder()}))
    result.save(tmp_path / "out")
    again = Program.load(tmp_path / "out")
    report = verify(Program({"model": append_decoder()}), again)
    assert report.equal and report.runs, report.first_difference
    assert again.contracts == result.contracts
    names = {contract.ids for contract in again.contracts if isinstance(contract, BestTokens)}
    assert names == {"ids"}
    assert not any("token_ids" in sentence for sentence in again.assumptions)


def test_token_ids_may_take_the_name_of_a_state_that_is_gone() -> None:
    gone = next(value.name or "" for value in append_decoder().graph.outputs if value.name != "logits")
    result = run(f"single-shot,argmax-tail,rename-io{{map=token_ids:{gone}}}", Program({"model": append_decoder()}))
    assert [contract.kind for contract in result.contracts] == ["states-removed", "renamed-io", "best-tokens"]
    report = verify(Program({"model": append_decoder()}), result)
    assert report.equal and report.runs, report.first_difference


# --- third parties


@register_contract
@dataclass(frozen=True)
class Halved(Contract):
    """Half as many rows."""

    kind: ClassVar[str] = "test-halved"

    output: str = port(Side.BOTH)


def test_a_registered_class_is_read_and_its_names_are_renamed() -> None:
    found = read_contract(Halved("y", step=2).to_json())
    assert (found, found.renamed({"y": "z"})) == (Halved("y"), Halved("z"))


def test_a_kind_is_one_class() -> None:
    with pytest.raises(UsageError, match="two classes have the kind"):

        @register_contract
        @dataclass(frozen=True)
        class Other(Contract):
            kind: ClassVar[str] = "ordered-positions"


def test_a_contract_of_a_package_that_is_not_installed_is_kept_and_nothing_is_verified(tmp_path: Path) -> None:
    program = Program({"model": append_decoder()}, contracts=[Halved("logits")])
    program.save(tmp_path / "out")
    index = tmp_path / "out" / "program.json"
    index.write_text(index.read_text().replace("test-halved", "of-somebody"), encoding="utf-8")
    loaded = Program.load(tmp_path / "out")
    report = verify(Program({"model": append_decoder()}), loaded)
    assert report.verdict is Verdict.NOT_RUN
    assert report.notes == ["not verified: contract of-somebody is of a package that is not installed"]
    loaded.save(tmp_path / "again")
    kept = json.loads((tmp_path / "again" / "program.json").read_text())["contracts"]
    assert kept == json.loads(index.read_text())["contracts"]


# --- an index of an earlier version


def test_an_index_of_version_1_is_refused_with_the_pipeline_to_run_again(tmp_path: Path) -> None:
    run("single-shot", Program({"model": append_decoder()})).save(tmp_path / "out")
    index = tmp_path / "out" / "program.json"
    old = {**json.loads(index.read_text()), "schema_version": 1}
    del old["contracts"]
    index.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(InputError, match="onnx-passes run 'strip-states,simplify'") as caught:
        Program.load(tmp_path / "out")
    assert "\n" not in str(caught.value)
    run("single-shot", Program({"model": append_decoder()})).save(tmp_path / "out", force=True)
    assert Program.load(tmp_path / "out").contracts


def test_every_contract_says_itself_what_is_compared_under_it() -> None:
    assert [cls.kind for cls in BUILT_IN if not vars(cls).get("compared")] == []
    unseen = [cls.kind for cls in BUILT_IN if "unseen" not in vars(cls)]
    assert unseen == ["claims", "hidden-tapped", "renamed-io"]  # nothing is hidden under these


def test_the_page_of_verify_has_a_row_for_each_contract_and_the_sizes_that_are_played() -> None:
    page = (Path(__file__).parent.parent / "docs" / "verify.md").read_text(encoding="utf-8")
    assert [cls.kind for cls in BUILT_IN if f"| `{cls.kind}` | " not in page or cls.compared not in page] == []
    assert f"lengths {', '.join(map(str, LENGTHS))} where" in page


def test_integers_of_a_grid_mean_the_numbers_that_they_stand_for() -> None:
    chain = Chain.of((QuantizedIO(("past",), (Grid("INT8", (0.5, 0.25), (0, 4), 1),)), RenamedIO((("past", "kv"),))))
    integers = np.array([[[2], [8]]], np.int8)
    ((name, numbers),) = chain.restored({"kv": integers}).items()
    assert (name, numbers.tolist()) == ("past", [[[1.0], [1.0]]])
    assert np.array_equal(chain.adapt_inputs({"past": numbers})["kv"], integers)
