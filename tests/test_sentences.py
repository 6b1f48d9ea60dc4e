"""Facts between passes are types: no module but those named here reads text with a regular expression or a search."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for floor in ("ir", "passes", "runtime", "api", "cli") for path in (ROOT / floor).rglob("*.py"))

PARSERS = {  # module -> the text that it reads with regular expressions: a language of its own, no sentence of ours
    "cli/inspect.py": "names of tensors, to show those of all layers as one",
    "cli/list.py": "docstrings, for `list PASS`",
    "ir/manifests/custom_io_yaml.py": "names that need no quotes in YAML",
    "ir/manifests/layers.py": "names of nodes",
    "ir/manifests/qnn.py": "shapes in a converter's file",
    "ir/rewrite/layer/fewer.py": "numbers in names of tensors, to match parts of layers",
    "ir/proof/placed.py": "places as manifests of a target spell them",
    "ir/proof/sets.py": "numbered names of specializations",
    "ir/quantization/decide.py": "names of tensors, by the patterns of a recipe",
    "ir/quantization/recipe.py": "layers of a recipe, like 0-3 or last",
    "ir/quantization/aimet_v2.py": "element types in a file of encodings",
    "ir/quantization/kv_scales.py": "names in a file of scales",
    "ir/quantization/variants.py": "names of tensors, by the patterns that a user gives",
    "ir/rewrite/bind_sizes.py": "sizes in a graph's metadata",
    "ir/serialization/atomic_folder.py": "names of folders that a killed run left",
    "ir/serialization/strict_json.py": "JSON",
    "ir/specialize/budget.py": "sizes, like 2GB",
    "ir/states/names.py": "names of states",
    "ir/states/suspects.py": "names of inputs that look like states",
    "ir/symbolic/dims.py": "dimensions",
    "passes/captions.py": "docstrings and names of classes, for `list`",
    "passes/failure.py": "the place of an error, so as not to say it twice",
    "passes/options.py": "options of a pass",
    "passes/rename_io.py": "files that passes wrote, which may still hold an old name: they are warned of",
    "passes/syntax.py": "pipeline text, into specs: the one module that does",
    "runtime/conformance/io_names.py": "names in another tool's cases",
    "runtime/conformance/models.py": "names of another tool's cases",
    "runtime/session/session.py": "onnxruntime's messages, to tell a missing kernel and to shorten them",
}
READERS = {"api/run.py", "passes/pipeline.py", "passes/presets.py", "cli/job.py", "cli/list.py"}
"""Who turns pipeline text into passes, to run or to list them; nobody does it to learn what an earlier run did."""

TYPESETTER = "cli/ending.py"  # puts the full stop behind a message that has none

SENTENCES = frozenset(
    "pipeline pass_texts earlier notes note warnings warning assumptions assumption sentence sentences "
    "reason why failed skipped nearest evidence proof record records".split()
)  # what holds sentences for people, and the texts of passes that ran
SEARCHES = frozenset(
    "split rsplit partition rpartition startswith endswith find rfind index removeprefix removesuffix "
    "search match fullmatch findall finditer".split()
)


def module(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def names_in(node: ast.AST) -> set[str]:
    """Names of variables and attributes; what subscripts and calls are given counts as well."""
    found = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    return found | {item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute)}


def imports_regular_expressions(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.Import) and any(alias.name == "re" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "re" and not node.level)
        for node in ast.walk(tree)
    )


def searches(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls of string methods on a sentence, regular expressions given one, and constants looked for in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SEARCHES:
            looked_at = [node.func.value, *node.args] if isinstance(node.func.value, ast.Name) else [node.func.value]
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant | ast.JoinedStr):
            looked_at = [
                side for op, side in zip(node.ops, node.comparators, strict=True) if isinstance(op, ast.In | ast.NotIn)
            ]
        else:
            continue
        if any(names_in(part) & SENTENCES for part in looked_at):
            yield node.lineno, ast.unparse(node)


def parsers_of_pipelines(tree: ast.AST) -> bool:
    called = {
        node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    }
    return bool(called & {"parse_pipeline", "parse_specs", "expand_pipeline"})


TREES = {module(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def test_only_named_modules_use_regular_expressions() -> None:
    users = {name for name, tree in TREES.items() if imports_regular_expressions(tree)}
    assert users == set(PARSERS), "name the module here, with the text that it reads; a fact between passes is a type"


def test_nothing_looks_for_facts_in_sentences() -> None:
    found = {name: hits for name, tree in TREES.items() if (hits := list(searches(tree))) and name != TYPESETTER}
    assert not found, "a fact is a field, not a word in a sentence"


def test_only_named_modules_turn_pipeline_text_into_passes() -> None:
    assert {name for name, tree in TREES.items() if parsers_of_pipelines(tree)} == READERS


@pytest.mark.parametrize(
    "source",
    [
        "any('kernel' in note for note in report.notes)",
        "[part for note in notes for part in note.split(': ')]",
        "_BEST.search(assumption)",
        "re.match('a', program.pipeline)",
        "program.pipeline.startswith('bind')",
        "{record.text.split('{')[0] for record in program.history}",
    ],
)
def test_the_search_sees_what_it_is_for(source: str) -> None:
    assert list(searches(ast.parse(source)))


def test_the_search_leaves_names_alone() -> None:
    assert not list(searches(ast.parse("name.startswith('past'); 'x' in names; notes.append('x in y')")))
