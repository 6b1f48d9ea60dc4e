"""Writes the generated parts of README.md and docs/ from code and real runs; ``--check`` only says what is stale."""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import onnx.printer
import typer

import onnx_llm_passes
from onnx_llm_passes.ir.quantization.recipe import recipe_schema
from onnx_llm_passes.ir.quantization.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
STUB, PICTURE = ROOT / "__init__.pyi", ROOT / "docs" / "rooms.svg"
SCHEMA = ROOT / "docs" / "recipe.schema.json"
BLOCK = re.compile(r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = (  # what the README shows: pass, fixture, and what it says over it
    ("strip-states", "append", "A cache that grows"),
    ("strip-states", "scatter-function", "A cache that is written in place at positions, by a local function"),
    ("simplify", "reshape-target", "Shape arithmetic whose result is known, whatever the sizes"),
    ("rename-io", "input-and-output", 'With `map=ids:input_ids,logits:"the scores"`'),
)
UNSTEADY = frozenset({"seconds", "sha256", "digest", "packages", "tool", "bytes"})
SIZE = re.compile(r"\(\d[\d.]* [kMG]?B\)")  # of a written file: another release of a library may change it by a little
MEASURE = re.compile(r"(│ [^\n:]+: +)-?[\d.]+(e-?\d+)?")  # of quantized numbers: another processor rounds other sums
WORDS = "the river bank money water loan fish boat or interest stream credit answer deposit flow wave"
RATE = re.compile(r"\d+ texts/s")  # of this machine, at that moment
LONGEST_LIST = 4
DEMO = "onnx-passes-demo"


def output(command: str, folder: Path) -> str:
    """Standard error, then standard output, of one onnx-passes command run in ``folder``; it must succeed."""
    arguments = [sys.executable, "-m", "onnx_llm_passes", *shlex.split(command)]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`onnx-passes {command}` ended with {done.returncode}: {done.stderr}")
    return done.stderr + done.stdout


def shell(command: str, folder: Path) -> str:
    """One command with its output, as a terminal shows both."""
    return fenced("console", f"$ onnx-passes {command}\n{output(command, folder)}")


def fenced(language: str, text: str) -> str:
    """A Markdown code block."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def short_json(data: Any) -> str:
    """JSON with lists of more than two entries cut, so that a page shows the form and not the model."""
    return json.dumps(_cut(data), indent=2, ensure_ascii=False)


def _cut(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _cut(value) for key, value in data.items()}
    if isinstance(data, list) and len(data) > LONGEST_LIST:
        return [*map(_cut, data[: LONGEST_LIST - 1]), f"… {len(data) - LONGEST_LIST + 1} more"]
    return [_cut(item) for item in data] if isinstance(data, list) else data


def steady(data: Any) -> Any:
    """What differs from machine to machine (seconds, digests, versions) as an ellipsis."""
    if isinstance(data, dict):
        return {key: "…" if key in UNSTEADY else steady(value) for key, value in data.items()}
    return [steady(item) for item in data] if isinstance(data, list) else data


def passes() -> str:
    """Every preset and pass with docstring and options, out of ``list``."""
    from onnx_llm_passes.cli.list import describe_all, describe_one

    listed = describe_all()
    own = [row["name"] for row in listed["passes"] if row["origin"] == "onnx-llm-passes"]
    sections = [_preset(describe_one(row["name"])) for row in listed["presets"]]
    return "\n".join(sections + [_pass(describe_one(name)) for name in own])


def _preset(data: dict[str, Any]) -> str:
    return f"## {data['name']} (preset)\n\n{data['doc']}.\n\nExpands to `{data['pipeline']}`.\n\n{_options(data)}"


def _pass(data: dict[str, Any]) -> str:
    # a docstring is reStructuredText with double backquotes and `::` blocks; both read as Markdown after two changes
    text = data["doc"].replace("``", "`").replace("::\n", ":\n")
    return f"## {data['name']}\n\n{text}\n\n{_options(data)}"


def _options(data: dict[str, Any]) -> str:
    if not data["options"]:
        return "It takes no options.\n"
    rows = [
        f"| `{option['name']}` | {option['takes']} | {_code(option['default'])} | {option['doc']} |"
        for option in data["options"]
    ]
    return "\n".join(["| option | takes | default | |", "|---|---|---|---|", *rows, ""])


def _code(default: str | None) -> str:
    return "must be given" if default is None else f"`{default}`" if default else "empty"


def commands() -> str:
    """Every subcommand with arguments and options, out of the parser itself."""
    from onnx_llm_passes.cli.app import PROGRAM, app

    parts: list[str] = []
    for name, command in vars(typer.main.get_command(app))["commands"].items():
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        arguments = [_argument(p) for p in shown if p.param_type_name == "argument"]
        parts.append(f"## {name}\n\n`{' '.join([PROGRAM, name, *arguments, '[OPTIONS]'])}`\n\n{command.help}\n")
        parts.append("\n".join(["| argument or option | |", "|---|---|", *map(_parameter, shown), ""]))
    return "\n".join(parts)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{parameter.metavar or parameter.name.upper()}` | {parameter.help or ''} |"
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    return f"| `{', '.join(parameter.opts)}{value}` | {parameter.help or ''} |"


def diffs() -> str:
    """What each pass does to a graph of its fixtures, as a diff."""
    parts: list[str] = []
    for number, (name, case, said) in enumerate(SHOWN):
        title = f"### {name}\n\n" if number == 0 or SHOWN[number - 1][0] != name else ""
        parts.append(f"{title}{said}:\n\n{_diff(name, case)}")
    return "\n".join(parts)


def _diff(name: str, case: str) -> str:
    text = (ROOT / "tests/fixtures" / name / f"{case}.txt").read_text(encoding="utf-8")
    before, after = (_body(part) for part in re.split(r"^# --- (?:before|after)\n", text, flags=re.MULTILINE)[1:])
    lines = difflib.ndiff(before, after)
    return fenced("diff", "\n".join(line.rstrip() for line in lines if not line.startswith("?")))


def _body(text: str) -> list[str]:
    """A graph as onnx prints it, an input, output or constant a line; versions, node names and functions left out."""
    printed = onnx.printer.to_text(onnx.parser.parse_model(text))
    printed = printed[printed.index(">\n") + 2 :].split("\n}")[0]
    head, _, nodes = re.sub(r" \{\n", "\n{\n", printed, count=1).partition("\n{\n")
    signature, _, constants = head.partition("\n")
    inputs, _, outputs = signature.partition(" => ")
    lines = ["(", *_values(inputs), ") => (", *_values(outputs), ") {", *_constants(constants)]
    for node in nodes.splitlines():
        named = re.sub(r"^ *\[[^]]*\] ", "   ", node)
        lines.append(re.sub(r"(\w+): \w+ = ", r"\1=", named))
    return [*lines, "}"]


def _constants(text: str) -> list[str]:
    found = re.findall(r"(\S+) (\S+) = +(\{[^}]*\})", text.strip().strip("<>"))
    return [f"   {kind} {name} = {values if len(values) < 32 else '{…}'}" for kind, name, values in found]


def _values(text: str) -> list[str]:
    inside = text[text.index("(") + 1 : text.rindex(")")]
    return [f"   {value}" for value in re.split(r", (?![^\[]*\])", inside)]


def stub() -> str:
    """The public names as type checkers and editors read them: ``__init__.pyi``."""
    homes: dict[str, list[str]] = {}
    for name, module in sorted(onnx_llm_passes._all_homes().items()):
        homes.setdefault(module, []).append(name)
    lines = [f"from .{module} import {_in_lines(names)}" for module, names in sorted(homes.items())]
    listed = "".join(f'    "{name}",\n' for name in sorted(onnx_llm_passes.__all__))
    head = '"""The public names for type checkers and editors; `pytest --update-golden` and `make docs` write it."""'
    return "\n".join([head, "", *lines, "", f"__all__ = [\n{listed}]", ""])


def _in_lines(names: list[str]) -> str:
    return names[0] if len(names) == 1 else "(\n" + "".join(f"    {name},\n" for name in names) + ")"


def conformance() -> str:
    """The sections of conformance cases: what their cases hold, and which function answers."""
    from onnx_llm_passes.runtime.conformance import SECTIONS

    rows = ["| section | about | keys | also | answered by |", "|---|---|---|---|---|"]
    for section in SECTIONS:
        for form in section.forms:
            keys, also = ", ".join(f"`{key}`" for key in form.keys), ", ".join(form.optional)
            rows.append(f"| {section.number} | {section.title} | {keys} | {also} | `{form.functions}` |")
        if not section.forms:
            rows.append(f"| {section.number} | {section.title} | | | not built yet |")
    return "\n".join([*rows, ""])


def targets() -> str:
    """The targets of manifests, with what their files say they are."""
    from onnx_llm_passes.ir.manifests import TARGETS
    from onnx_llm_passes.ir.manifests.deployment import deployment_of

    rows = ["| target | what it writes | `form=auto` | states | a cache may grow |", "|---|---|---|---|---|"]
    for name, module in sorted(TARGETS.items()):
        doc = ast.get_docstring(ast.parse((ROOT / "ir/manifests" / f"{module}.py").read_text(encoding="utf-8"))) or ""
        kind = deployment_of(name)
        states = "on the device: `X`, `X_RetainedState`" if kind.retained else "the host's"
        wanted = f"{kind.form.value} | {states} | {'yes' if kind.grows else 'no'}"
        rows.append(f"| `{name}` | {doc.replace('``', '`')} | {wanted} |")
    return "\n".join([*rows, ""])


def families() -> str:
    """The table of families: what each binds beyond batch, sequence and context."""
    from onnx_llm_passes.ir.specialize.families import ENCODERS, FAMILIES

    rows = ["| family | vision | language | a single program lacks | prefill, context |", "|---|---|---|---|---|"]
    rows += [f"| `{name}` | | | | {row.length} |" for name, row in ENCODERS.items()]
    for name, family in FAMILIES.items():
        lists = (family.vision, family.language, family.dropped if family.vision else ())
        cells = (", ".join(f"`{symbol}`" for symbol in symbols) for symbols in lists)
        rows.append(f"| `{name}` | {' | '.join(cells)} | {', '.join(map(str, family.lengths))} |")
    return "\n".join([*rows, ""])


def recipes() -> str:
    """The shipped recipes as they would be written."""
    return "\n\n".join(f"**{name}**\n\n{fenced('yaml', text)}" for name, text in RECIPES.items())


def fill(text: str, blocks: dict[str, str]) -> str:
    """``text`` with what stands between each pair of markers replaced; KeyError for a marker that nothing fills."""
    return BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]]}{found[3]}", text)


def example(folder: Path) -> dict[str, str]:
    """What the README and the pages show of real runs, on the models that ``demo`` builds."""
    demo = shell("demo", folder)
    model = f"{DEMO}/scatter/original/model.onnx"
    return {
        "demo": demo,
        "inspect": shell(f"inspect {model} --bind batch_size=1 --bind ctx_len=4096", folder),
        "run": shell(f"run single-shot {model} -o out", folder),
        "verify": shell(f"verify {model} out", folder),
        **chat(folder),
        **heads(folder),
        "inspect-json": fenced("json", short_json(json.loads(output(f"inspect {model} --json", folder)))),
        "program-json": fenced(
            "json", short_json(steady(json.loads((folder / "out/program.json").read_text("utf-8"))))
        ),
    }


def chat(folder: Path) -> dict[str, str]:
    """A decoder cloned for speculative decoding, quantized, and a layer of it cut out."""
    model, sizes = f"{DEMO}/append/original/model.onnx", "k=0,4 prefill=32 ctx=128"
    texts = f"{DEMO}/texts.jsonl"  # the demo wrote it
    text = "quantize{file=encodings.json activations=a16 weights=w8 kv=8}"
    layer = "clone-decode{ctx=128},extract-layer{index=1}"
    return {
        "chat": shell(f"run 'speculative{{{sizes}}}' {model} -o chat", folder) + "\n" + shell("check chat", folder),
        "calibrate": shell(f"calibrate {model} --tokens {texts} -o encodings.json", folder)
        + "\n"
        + shell(f"run '{text},clone-decode{{{sizes}}}' {model} -o small", folder),
        "layer": shell(f"run '{layer}' {model} -o layer", folder)
        + "\n"
        + shell(f"verify {model} layer", folder)
        + "\n"
        + shell(f"run '{layer},{text}' {model} -o layer8", folder)
        + "\n"
        + shell(f"compare layer layer8 --tokens {texts} --within {model}", folder),
    }


def heads(folder: Path) -> dict[str, str]:
    """An embedder and a reranker of a decoder, run over texts with a tokenizer of one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(f"[UNK] {WORDS}".split())}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    parts = WORDS.split()
    (folder / "texts.txt").write_text("".join(f"{' '.join(parts[: at + 3])}\n" for at in range(8)), encoding="utf-8")
    pairs = ({"query": parts[0], "document": " ".join(parts[at : at + 4])} for at in range(6))
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    (folder / "template.txt").write_text("answer {document} or {query}\n", encoding="utf-8")
    model = f"{DEMO}/append/original/model.onnx"
    ranker = "reranker{family=sequence-classification prefill=16 batch=2 tokens=9,5}"
    given = "--pairs pairs.jsonl --template template.txt --tokenizer tokenizer.json"
    return {
        "embedder": shell(f"run 'embedder{{kind=last lengths=8,16 batch=4}}' {model} -o vectors", folder)
        + "\n"
        + shell("predict vectors --texts texts.txt --tokenizer tokenizer.json -o vectors.npy", folder),
        "reranker": shell(f"run '{ranker}' {model} -o ranker", folder)
        + "\n"
        + shell(f"predict ranker {given} -o scores.npy", folder),
    }


def everything() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    house = runpy.run_path(str(ROOT / "docs" / "rooms.py"))
    api = runpy.run_path(str(ROOT / "docs" / "api.py"))
    equal = runpy.run_path(str(ROOT / "docs" / "equal.py"))
    with tempfile.TemporaryDirectory() as folder:
        blocks = {
            "passes": passes(),
            "diffs": diffs(),
            "rooms": house["rooms"](),
            "api-functions": api["functions"](),
            "api-results": api["results"](),
            "conformance": conformance(),
            "verify-runs": equal["played"](),
            "verify-contracts": equal["contracts"](),
            "targets": targets(),
            "families": families(),
            "recipes": recipes(),
            "commands": commands(),
            **example(Path(folder)),
        }
    return {STUB: stub(), PICTURE: house["picture"](), SCHEMA: recipe_schema()} | {
        page: fill(page.read_text(encoding="utf-8"), blocks) for page in PAGES
    }


def stale() -> dict[Path, str]:
    """The generated files whose text is not what it should be, with that text."""
    return {page: text for page, text in everything().items() if _told(page.read_text(encoding="utf-8")) != _told(text)}


def _told(text: str) -> str:
    return RATE.sub("", MEASURE.sub(r"\1", SIZE.sub("", text)))


def main() -> int:
    """Writes what is stale, or with ``--check`` names it and returns 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    check = parser.parse_args().check
    old = stale()
    for page, text in old.items():
        sys.stdout.write(f"{page.relative_to(ROOT)} {'is stale: run `make docs`' if check else 'written'}\n")
        if not check:
            page.write_text(text, encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
