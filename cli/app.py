"""The command and its subcommands; ``run`` is the whole command as a function from arguments to an exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from .calibrate import calibrate
from .check import check
from .compare import compare
from .conformance import conformance
from .demo import demo
from .diff import diff
from .ending import guarded
from .generate import generate
from .inspect import inspect
from .list import list_passes
from .options import Debug
from .predict import predict
from .recipe import recipe
from .run import run_pipeline
from .sensitivity import sensitivity, suggest_bits
from .suggest_k import suggest_k
from .verify import verify

PROGRAM = "onnx-passes"
COMPLETE = "_ONNX_PASSES_COMPLETE"  # the variable of click's shell completion for a program of this name


@dataclass
class Settings:
    """The options of the whole command, whichever subcommand runs."""

    debug: bool = False


app = typer.Typer(
    name=PROGRAM,
    rich_markup_mode=None,  # plain help: no library to load, and shapes in brackets stay as they are
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version('onnx-llm-passes')}")
        raise typer.Exit()


@app.callback()
def command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compiler passes over ONNX for language-model inference graphs.

    Start with `onnx-passes demo`, or `onnx-passes inspect model.onnx` on a model of yours.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


app.command("list", short_help="What passes and presets there are.")(list_passes)
app.command("inspect", short_help="What a model takes, carries and holds.")(inspect)
app.command("run", short_help="Run a pipeline on a model.")(run_pipeline)
app.command("check", short_help="Is every specialization sound for the graph?")(check)
app.command("verify", short_help="Do two models compute the same?")(verify)
app.command("diff", short_help="How do two models differ?")(diff)
app.command("conformance", short_help="Do manifests say what recorded cases say?")(conformance)
app.command("predict", short_help="Which vectors or scores do texts get?")(predict)
app.command("generate", short_help="What does a program say, and how fast?")(generate)
app.command("suggest-k", short_help="Which speculative lengths are worth compiling?")(suggest_k)
app.command("calibrate", short_help="What ranges do the tensors of a model take?")(calibrate)
app.command("recipe", short_help="Which tensors does a recipe give how many bits?")(recipe)
app.command("sensitivity", short_help="Which layers and roles lose most at few bits?")(sensitivity)
app.command("suggest-bits", short_help="Which of them should have 8 bits under a budget?")(suggest_bits)
app.command("compare", short_help="How far is a quantized model from its original?")(compare)
app.command("demo", short_help="See it work on two small models.")(demo)


def run(arguments: Sequence[str]) -> int:
    """Runs the command on ``arguments``; returns its exit code. Everything it says has been printed."""
    if COMPLETE in os.environ:
        return _complete()
    settings = Settings()
    as_json = "--json" in arguments
    return guarded(lambda: _invoke(list(arguments), settings), debug=lambda: settings.debug, as_json=as_json)


def _complete() -> int:
    """What a shell's Tab asks for: the shell calls the command with the words so far in its environment."""
    try:
        typer.main.get_command(app).main(prog_name=PROGRAM, complete_var=COMPLETE)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _invoke(arguments: list[str], settings: Settings) -> int:
    # not click's own main(): it prints boxes, and swallows the interrupt that the user should read about
    root = typer.main.get_command(app)
    with root.make_context(PROGRAM, arguments, obj=settings) as context:
        result = root.invoke(context)
    return result if isinstance(result, int) else 0
