"""Runs fixtures: a case is a text file with a graph before a pass and the graph, or the error, after it.

``tests/fixtures/<pass>/<case>.txt``; a case whose file name begins with ``noop-`` proves that the pass leaves the graph
alone. Header lines, each ``# key: value``, then the sections::

    # title: what the case shows                      (must be given)
    # options: map=x:ids                              as inside the braces of a pipeline; none by default
    # given: specialize{family=raw symbols=N:2}       passes that run before it, for what they leave in the program
    # run: bit-equal                                  (default) or  tolerance=2e-6  or  no, because ...
    # symbols: N=2 past=0                             sizes of symbols; others get small sizes of their own
    # inputs: ids=ints:8 past=zeros mask=ones         how inputs are filled; also  arange, normal
    # again: changes                                  what a second run does: nothing (default), changes, refused
    # says: part of a note or warning that the pass gives
    # --- before
    <ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) { y = Relu (x) }
    # --- after                                       or  # --- error  followed by parts of the message, one a line
    ...

``pytest --update-golden`` writes all sections anew, ``before`` as onnx prints it too, so that the two can be diffed.
Checked for every case: the text after, structure,
onnx's checker, that added nodes carry the pass's name, that both graphs compute the same on onnxruntime, and what a
second run does; for an error that nothing was changed. Where a pass changes inputs, outputs or rows, the contracts that
it recorded say what the graph after is fed and what it must give.

ONNX text holds types, initializers (fp16 and bf16 as bit patterns: ``float16[1] h = {15872}`` is 1.5), bodies,
functions, domains, node names ``[name] y = Relu (x)``, quoted names, model metadata. It does not hold metadata of nodes
and values, quantization annotations, documentation, defaults of function attributes, 4-bit initializers, and reads a
float through its decimal form; what a case needs of these is tested in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.program.contracts.chain import Chain
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.symbolic import dims
from onnx_llm_passes.passes.instruments import VerifyEach
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.syntax import parse_specs
from onnx_llm_passes.runtime.verify.observe import observing

KEYS = {"title", "options", "given", "run", "symbols", "inputs", "again", "says"}
SIZES = (2, 3, 5, 7, 4, 6)  # for symbols that a case does not size
SEED = 0
UPDATE = "`pytest --update-golden tests/test_fixtures.py`"
Arrays = dict[str, np.ndarray]


class CaseError(AssertionError):
    """A fixture file that is not a case."""


@dataclass(frozen=True)
class Case:
    """One fixture as written; ``after`` is None where an error is expected."""

    path: Path
    before: str
    after: str | None
    error: tuple[str, ...] = ()
    header: Mapping[str, str] = field(default_factory=dict)

    @property
    def pass_name(self) -> str:
        """The folder's name."""
        return self.path.parent.name

    @property
    def pipeline(self) -> str:
        """The pass with the case's options, as pipeline text."""
        options = self.header.get("options", "")
        return f"{self.pass_name}{{{options}}}" if options else self.pass_name

    def words(self, key: str) -> dict[str, str]:
        """A header line of pairs ``a=1 b=x:2`` as a mapping."""
        text = self.header.get(key, "")
        options = parse_specs(f"x{{{text}}}")[0].options
        return {name: ":".join(atom.text for atom in value[0]) for name, value in options}


def find_cases(root: Path) -> list[Path]:
    """Every fixture file, those that must not fire first within their pass."""
    return sorted(
        root.glob("*/*.txt"), key=lambda path: (path.parent.name, not path.name.startswith("noop-"), path.name)
    )


def read_case(path: Path) -> Case:
    """Reads one fixture; raises CaseError for a missing or doubled section, an unknown header line, or text outside."""
    head, *rest = re.split(r"^# --- *(\w+) *$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = list(zip(rest[::2], (text.strip() for text in rest[1::2]), strict=True))
    names = [name for name, _ in sections]
    if names not in (["before", "after"], ["before", "error"]):
        raise CaseError(f"{path}: sections are {names}, wanted before, then after or error")
    texts = dict(sections)
    empty = [name for name, text in sections if not text]
    if empty and empty != ["after"]:
        raise CaseError(f"{path}: section {empty[0]} is empty")
    header = _read_header(path, head)
    return Case(path, texts["before"], texts.get("after"), tuple(texts.get("error", "").splitlines()), header)


def _read_header(path: Path, text: str) -> dict[str, str]:
    header: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        match = re.fullmatch(r"# (\w+): *(.+)", line.rstrip())
        if match is None or match[1] not in KEYS or match[1] in header:
            raise CaseError(f"{path}: header line {line!r} is not one of {sorted(KEYS)}, each once")
        header[match[1]] = match[2]
    if "title" not in header:
        raise CaseError(f"{path}: the line '# title: …' is missing")
    return header


def check_case(path: Path, *, update: bool = False) -> None:
    """Runs one fixture and checks all of it; with ``update`` first writes what comes out."""
    case = read_case(path)
    if case.after is None:
        check_error(case, update=update)
    else:
        check_change(case, update=update)


def check_error(case: Case, *, update: bool) -> None:
    """The pass refuses with the expected words and leaves the graph as it was."""
    model = load(case.before, case)
    text = canonical(model)
    try:
        run_pass(case, model)
    except OnnxPassesError as error:
        message = str(error)
    else:
        raise AssertionError(f"{case.path}: no error; the pass gave\n{canonical(model)}")
    if update:
        write_case(case, text, "error", message)
        return
    for part in case.error:
        assert part.strip() in message, f"{case.path}: {part!r} is not in {message!r}; {UPDATE} writes what is said"
    assert canonical(model) == text, f"{case.path}: the refused pass changed the graph"


def check_change(case: Case, *, update: bool) -> None:
    """The pass makes the graph expected, valid, equal when run, and is done with one run."""
    original, model = load(case.before, case), load(case.before, case)
    program = run_pass(case, model)
    record = program.history[-1]
    if update:
        write_case(case, canonical(original), "after", canonical(model))
    else:
        same = canonical(model) == canonical(load(case.after or "", case))
        assert same, f"{case.path}: another graph came out; {UPDATE} writes it, then read the difference"
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    check_tags(case, original, model)
    if case.path.name.startswith("noop-"):
        assert canonical(model) == canonical(original), f"{case.path}: a noop case changed the graph"
        assert not record.counts, f"{case.path}: a noop case counted {record.counts}"
    said = " ".join((*record.notes, *record.warnings))
    assert case.header.get("says", "") in said, f"{case.path}: the pass said {said!r}"
    check_runs(case, original, program)
    check_again(case, model)


def load(text: str, case: Case) -> ir.Model:
    """A graph from its text; raises CaseError where it cannot be read."""
    try:
        return ir.from_onnx_text(text)
    except Exception as error:
        raise CaseError(f"{case.path}: the text is no graph: {error}") from error


def canonical(model: ir.Model) -> str:
    """A graph's text, the same for equal graphs: without what onnx_ir adds when it looks at one.

    That is types of initializers, and names of tensors in attributes.
    """
    proto = ir.to_proto(model)
    _drop_additions(proto.graph)
    return onnx.printer.to_text(proto)


def _drop_additions(graph: onnx.GraphProto) -> None:
    names = {tensor.name for tensor in graph.initializer}
    kept = sorted((info for info in graph.value_info if info.name not in names), key=lambda info: info.name)
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            attribute.t.ClearField("name")
            for body in [attribute.g, *attribute.graphs]:
                _drop_additions(body)


def run_pass(case: Case, model: ir.Model) -> Program:
    """Runs the case's pass, and before it those that are given; the structure verified before and after."""
    given = case.header.get("given")
    passes = [*(parse_pipeline(given) if given else ()), *parse_pipeline(case.pipeline)]
    return PassManager(passes, [VerifyEach()]).run(Program({"model": model}))


def check_tags(case: Case, before: ir.Model, after: ir.Model) -> None:
    """Nodes that the pass added carry its name."""
    known = {node.name for node in before.graph.all_nodes()}
    known |= {node.name for function in before.functions.values() for node in function.all_nodes()}
    for node in after.graph.all_nodes():
        if node.name not in known:
            tag = node.metadata_props.get("pass")
            assert tag == case.pass_name, f"{case.path}: added node {node.name!r} carries pass={tag!r}"


def check_again(case: Case, model: ir.Model) -> None:
    """What a second run of the same pass does is what the header says."""
    text, wanted = canonical(model), case.header.get("again", "nothing")
    try:
        run_pass(case, model)
        found = "nothing" if canonical(model) == text else "changes"
    except OnnxPassesError:
        found = "refused"
    assert found == wanted, f"{case.path}: a second run: {found}, wanted {wanted}"


def check_runs(case: Case, before: ir.Model, program: Program) -> None:
    """Both graphs give on onnxruntime what the recorded contracts say, bit for bit or within what the header allows.

    The contracts adapt the inputs of the graph before and what it answers; without one both graphs have the same.
    """
    run = case.header.get("run", "bit-equal")
    if re.fullmatch(r"no, because .+", run):
        return
    match = re.fullmatch(r"bit-equal|tolerance=(\S+)", run)
    if match is None:
        raise CaseError(f"{case.path}: '# run: {run}' is not bit-equal, tolerance=…, or 'no, because …'")
    chain = Chain.of(program.contracts, "model")
    feeds = chain.constrained(make_inputs(case, before))
    chain.check(feeds)
    theirs = execute(observing(before, chain.observed), feeds)
    expected, found = chain.expected(theirs, feeds), execute_adapted(case, program, chain, feeds)
    strange = sorted(set(found) - set(expected))
    assert found and not strange, (
        f"{case.path}: output {strange} is new, and no contract of the pass says what it holds"
    )
    for name, array in found.items():
        old, new = chain.comparable(name, expected[name], array, feeds)
        allowed = max(float(match[1] or 0), chain.tolerance(name, new))
        assert_close(old, new, allowed, f"{case.path}: output {name!r}")


def execute_adapted(case: Case, program: Program, chain: Chain, feeds: Arrays) -> Arrays:
    """What the graph after gives for the adapted inputs; a new input that no contract speaks of is a mistake."""
    (model,) = program.graphs.values()
    adapted = chain.adapt_inputs(feeds)
    names = [value.name or "" for value in model.graph.inputs if not value.is_initializer()]
    missing = [name for name in names if name not in adapted]
    assert not missing, f"{case.path}: input {missing} is new, and no contract of the pass says what it takes"
    return execute(model, {name: adapted[name] for name in names})


def assert_close(expected: np.ndarray, found: np.ndarray, tolerance: float, what: str) -> None:
    """max|a-b| <= tolerance * max|a|, NaN only where both are; a tolerance of 0 wants equal bits."""
    assert expected.dtype == found.dtype and expected.shape == found.shape, (
        f"{what}: {found.dtype}{found.shape}, wanted {expected.dtype}{expected.shape}"
    )
    if not tolerance:
        assert expected.tobytes() == found.tobytes(), f"{what}: bits differ:\n{expected}\n{found}"
        return
    a, b = expected.astype(np.float64), found.astype(np.float64)
    assert np.array_equal(np.isnan(a), np.isnan(b)), f"{what}: NaN in one only"
    gap, size = np.nanmax(np.abs(a - b), initial=0.0), np.nanmax(np.abs(a), initial=0.0)
    assert gap <= tolerance * size, f"{what}: {gap} apart, {tolerance} * {size} allowed"


def execute(model: ir.Model, feeds: Arrays) -> Arrays:
    """Runs a graph on onnxruntime without its optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    proto = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _ints(rng: np.random.Generator, shape: tuple[int, ...], limit: str) -> np.ndarray:
    return rng.integers(0, int(limit or 4), shape)


def _arange(rng: np.random.Generator, shape: tuple[int, ...], _: str) -> np.ndarray:
    return np.broadcast_to(np.arange(shape[-1]), shape)


FILLS: dict[str, Callable[[np.random.Generator, tuple[int, ...], str], np.ndarray]] = {
    "ints": _ints,
    "arange": _arange,
    "zeros": lambda rng, shape, _: np.zeros(shape),
    "ones": lambda rng, shape, _: np.ones(shape),
    "normal": lambda rng, shape, _: rng.normal(size=shape),
    "is": lambda rng, shape, text: np.full(shape, float(text)),
}


def make_inputs(case: Case, model: ir.Model) -> Arrays:
    """An array for every input: its shape from the symbols' sizes, its content from the header or its dtype."""
    rng = np.random.default_rng(SEED)
    sizes = {name: int(size) for name, size in case.words("symbols").items()}
    fills = case.words("inputs")
    feeds: Arrays = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        shape = tuple(_size(case, dim, sizes) for dim in value.shape or ())
        default = "ints:2" if dtype == np.bool_ else "normal" if np.issubdtype(dtype, np.floating) else "ints"
        kind, _, argument = fills.pop(value.name or "", default).partition(":")
        feeds[value.name or ""] = FILLS[kind](rng, shape, argument).astype(dtype)
    if fills:
        raise CaseError(f"{case.path}: '# inputs' names {sorted(fills)}, which the graph does not have")
    return feeds


def _size(case: Case, dim: int | ir.SymbolicDim, sizes: dict[str, int]) -> int:
    """The size of one dimension; symbols seen for the first time get one."""
    parsed = dim if isinstance(dim, int) else dims.parse(str(dim.value or f"anonymous_{len(sizes)}"))
    for symbol in sorted(dims.free_symbols(parsed)):
        sizes.setdefault(symbol, SIZES[len(sizes) % len(SIZES)])
    size = dims.substitute(parsed, sizes)
    if not isinstance(size, int):
        raise CaseError(f"{case.path}: dimension {dim} has no size under {sizes}")
    return size


def is_canonical(case: Case) -> bool:
    """Whether the graph before is as onnx prints it; true where this release prints the one after in another way."""
    if case.after and canonical(load(case.after, case)).strip() != case.after.strip():
        return True
    return canonical(load(case.before, case)).strip() == case.before.strip()


def write_case(case: Case, before: str, name: str, text: str) -> None:
    """Writes the sections of the fixture's file anew; the header stays."""
    head, _, _ = case.path.read_text(encoding="utf-8").partition("# --- before")
    case.path.write_text(f"{head}# --- before\n{before.strip()}\n# --- {name}\n{text.strip()}\n", encoding="utf-8")
