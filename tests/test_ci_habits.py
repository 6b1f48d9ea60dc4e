"""What holds for every file of the project: floors, sizes, captions, packaging. Kept by this test, not by memory."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FLOORS = ("ir", "passes", "runtime", "api", "cli")
MAX_FILE, MAX_FUNCTION = 350, 60
FEEDERS = (
    *(f"runtime/decode/{name}.py" for name in "caches kv_cache step host decoder prompt_reader inputs".split()),
    "runtime/session/in_place.py",
    "runtime/calibrate/feed.py",
    "runtime/verify/layer_play.py",
)
MAX_FEEDERS = 1_940  # lines; no number to grow into: what is taken out lowers it, and a file that is split is listed


def sources(*folders: str) -> list[Path]:
    """The Python files below ``folders``, as paths from the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported(path: Path, tree: ast.AST) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and path from the root of every module of this package that ``path`` imports, late imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parts[: len(path.parts) - node.level]
            yield node.lineno, (*base, *(node.module or "").split("."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onnx_llm_passes."):
            yield node.lineno, tuple((node.module or "").split(".")[1:])


CODE = sources(*FLOORS)


@pytest.mark.parametrize("path", CODE, ids=str)
def test_nothing_imports_upwards(path: Path) -> None:
    """ir < passes < runtime < api < cli, late imports included."""
    rank = FLOORS.index(path.parts[0])
    upwards = [
        (line, ".".join(target))
        for line, target in imported(path, parsed(path))
        if target[0] in FLOORS and FLOORS.index(target[0]) > rank
    ]
    assert upwards == []


def test_the_code_that_feeds_decoders_does_not_grow() -> None:
    """A second description of a step or of a cache would show here first."""
    assert sum(len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FEEDERS) <= MAX_FEEDERS


@pytest.mark.parametrize("path", sources("passes"), ids=str)
def test_a_pass_uses_no_private_name_of_another_module(path: Path) -> None:
    """What two passes need sinks into ir/."""
    private = [
        (node.lineno, alias.name)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert private == []


@pytest.mark.parametrize("path", sources(*FLOORS, "tests", "bench", "docs"), ids=str)
def test_every_file_has_a_caption(path: Path) -> None:
    """The first line says in one sentence what the file is."""
    first = (ROOT / path).read_text(encoding="utf-8").splitlines()[:1]
    assert first
    assert first[0].startswith(('"""', "#!"))
    assert ast.get_docstring(parsed(path))


@pytest.mark.parametrize("path", CODE, ids=str)
def test_files_and_functions_stay_small(path: Path) -> None:
    """A file that outgrows this is two files; a function is two functions."""
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE
    long = [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("path", sources("cli"), ids=str)
def test_the_command_loads_no_heavy_package_at_the_top(path: Path) -> None:
    """Help and usage errors answer at once: graphs' libraries are imported where they are used."""
    heavy = {"onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnx_graphsurgeon", "rich", "numpy", "networkx", "jinja2"}
    at_top = {
        name.split(".")[0]
        for node in parsed(path).body
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert at_top & heavy == set()


def test_the_package_list_is_the_folders() -> None:
    """A sub-package missing from pyproject is left out of the wheel without a word."""
    folders = {path.parent for path in CODE if path.name == "__init__.py"}
    wanted = {"onnx_llm_passes", *(".".join(("onnx_llm_passes", *folder.parts)) for folder in folders)}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == wanted


def test_every_folder_with_code_is_a_package() -> None:
    """A folder without __init__.py would not be shipped."""
    folders = {path.parent for path in CODE}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").exists()] == []


def test_only_two_python_files_at_the_root() -> None:
    """Any other would become a module of the package."""
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]


def test_the_two_setup_commands_stand_in_the_readme() -> None:
    """Exactly the two that a stranger runs, and the server runs the second."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("pip install . && onnx-passes demo\n") == 1
    assert readme.count('pip install -e ".[test]" && pytest\n') == 1
    assert 'pip install --quiet --disable-pip-version-check -e ".[test]" && pytest\n' in (ROOT / ".ci/run").read_text()


def test_every_make_target_explains_itself() -> None:
    """`make` prints them all."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line for line in text.splitlines() if line and line[0].islower() and ":" in line.split("=")[0]]
    assert len(targets) >= 10
    assert [line for line in targets if " ## " not in line] == []
