"""``onnx-passes generate``: what a program says, proposals verified K at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import UsageError
from . import render
from .ending import guarded
from .options import Debug, FollowLinks, Json, OrtOptimization
from .talk import Talk

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from ..runtime.decode.beside import Beside
    from ..runtime.decode.decoder import Decoder
    from ..runtime.decode.generate import Generated, Settings
    from ..runtime.decode.sampling import Sampling
    from ..runtime.speculate.proposers import Source

SHOWN = 40  # token ids of a text on the terminal; --json has all
BETWEEN = 0.2  # seconds between two lines of progress

Prompts = Annotated[
    Path | None, typer.Option("--prompt-ids", metavar="F", help="JSON list (of lists) of token ids, or .npy.")
]
Said = Annotated[list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A prompt's text; may be repeated.")]
Tokenizer = Annotated[
    Path | None, typer.Option(metavar="F", help="The tokenizer.json of --prompt; else the one beside the program.")
]
ProposerName = Annotated[str, typer.Option(metavar="NAME", help="ngram, suffix, arctic or none.")]
PolicyName = Annotated[str, typer.Option(metavar="NAME", help="How K is chosen: cover or goodput.")]
NGrams = Annotated[str, typer.Option(metavar="MIN,MAX", help="Sizes of n-grams that --proposer ngram looks up.")]
Ks = Annotated[str | None, typer.Option("--k", metavar="K,K…", help="Only these of the program's K.")]
SamplerName = Annotated[str, typer.Option(metavar="NAME", help="Where tokens are drawn: auto, device or host.")]
AdapterName = Annotated[str, typer.Option(metavar="DIR|ID", help="An adapter for lora's inputs, or one of its slots.")]
Bitmask = Annotated[Path | None, typer.Option(metavar="F", help=".npy of int32 words: the tokens that may be said.")]
Context = Annotated[int | None, typer.Option(metavar="N", min=2, help="Context, where the program leaves it open.")]


def generate(
    program: Annotated[Path, typer.Argument(metavar="DIR", help="A program, or an .onnx file.", show_default=False)],
    max_new: Annotated[int, typer.Option(metavar="N", min=1, help="New tokens of a text at most.", show_default=False)],
    prompt_ids: Prompts = None,
    prompt: Said = None,
    tokenizer: Tokenizer = None,
    proposer: ProposerName = "ngram",
    policy: PolicyName = "cover",
    batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Texts at once.")] = None,
    ngram: NGrams = "3,5",
    k: Ks = None,
    ctx: Context = None,
    eos: Annotated[list[int] | None, typer.Option(metavar="ID", min=0, help="A token that ends a text.")] = None,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="0 for greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(metavar="N", min=0, help="Draw from the N likeliest; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(metavar="P", help="Draw from the likeliest of that probability.")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The seed of the draws.")] = 0,
    sampler: SamplerName = "auto",
    adapter: AdapterName = "",
    grammar_bitmask: Bitmask = None,
    ort_optimization: OrtOptimization = "none",
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Generate texts. Greedy tokens are exactly those of decoding one token a run, whatever proposes and chooses.

    With --prompt the text of one prompt is printed as it comes, and texts end where the exporter's configuration
    beside the tokenizer says, unless --eos does. With --json: {"tokens": [[…]], "ended": […], "stats": {…},
    "runtime": {…}}, and "texts" with --prompt.
    """
    from ..runtime.session.isolate import in_child

    def work() -> int:
        from ..runtime.decode.generate import Settings
        from ..runtime.decode.prompts import read_prompts
        from ..runtime.decode.sampling import Sampling
        from ..runtime.session.session import optimized
        from ..runtime.session.settings import optimization_of

        source, chosen = proposers_of(proposer, ngram), policy_of(policy)
        one_of(prompt_ids, prompt, tokenizer)
        loaded = load(program, follow_links)
        talk = Talk.of(loaded, prompt or (), tokenizer, streams=not as_json)
        prompts = talk.prompts if prompt_ids is None else read_prompts(prompt_ids)
        ends, sampling = frozenset(eos or talk.ends), Sampling(temperature, top_k, top_p, seed)
        settings = Settings(max_new, ends, sampling, chosen, _latencies(loaded), batch)
        longest = max(map(len, prompts), default=0)
        with optimized(optimization_of(ort_optimization)):
            beside = beside_of(loaded, sampling, sampler, adapter, grammar_bitmask)
            decoder = open_decoder(loaded, batch, ctx or longest + max_new + 1, ks_of(k), beside)
            tell_saturation(loaded)
            _show(_generate(decoder, prompts, settings, source, talk), as_json, talk)
        return 0

    code = in_child(lambda: guarded(work, debug=lambda: debug), "generating")
    if code:
        raise typer.Exit(code)


def one_of(prompt_ids: Path | None, prompt: list[str] | None, tokenizer: Path | None) -> None:
    """UsageError unless prompts are given one way, and a tokenizer only with text."""
    if (prompt_ids is None) == (not prompt):
        found = "neither" if prompt_ids is None else "both"
        raise UsageError("prompts are token ids or text", found=found, wanted="--prompt-ids F or --prompt TEXT")
    if prompt_ids is not None and tokenizer is not None:
        raise UsageError("token ids need no tokenizer", found=f"--tokenizer {tokenizer}", wanted="--prompt TEXT")


def load(path: Path, follow_links: bool) -> Program:
    """The program of a folder or file."""
    from ..ir.core.gc_off import collector_off
    from ..ir.program.program import Program

    with collector_off():
        return Program.load(path, follow_links=follow_links)


def beside_of(program: Program, sampling: Sampling, sampler: str, adapter: str, bitmask: Path | None) -> Beside:
    """What runs are fed beside texts; UsageError where the program cannot take it."""
    from ..ir.core.errors import UnknownNameError
    from ..runtime.decode.beside import Beside, read_bitmask

    if sampler not in ("auto", "device", "host"):
        raise UnknownNameError("sampler", sampler, ["auto", "device", "host"])
    found = Beside.of(program, sampling, adapter, read_bitmask(bitmask) if bitmask is not None else None)
    if sampler != "auto" and found.draws is (sampler == "host"):
        where = "in the graph" if found.draws else "on the host"
        hint = "" if found.draws else "Run sample-tail on it to draw in the graph."
        raise UsageError(f"this program's tokens are drawn {where}", found=f"--sampler {sampler}", hint=hint)
    return found


def open_decoder(
    program: Program, batch: int | None, ctx: int, ks: tuple[int, ...] | None, beside: Beside | None = None
) -> Decoder:
    """The program's graphs, ready to decode."""
    from ..ir.core.gc_off import collector_off
    from ..runtime.decode.decoder import Decoder

    with collector_off():
        return Decoder(program, rows=batch, ctx=ctx, ks=ks, beside=beside)


def tell_saturation(program: Program) -> None:
    """Notes where integer kernels cut sums off that the program needs, and where drafts change what is said."""
    from ..ir.proof.whole_run import scales_of_runs
    from ..runtime.session.settings import saturation_note

    if any(scales_of_runs(model) for model in program.graphs.values()):
        note = "scales are taken over all tokens of a run: with K > 0 tokens are not exactly those of plain decoding"
        render.tell_all("note", [note])

    if note := saturation_note([program]):
        render.tell_all("note", [note])


def proposers_of(name: str, ngram: str) -> Source:
    """What opens the proposers; UsageError for n-gram sizes that are none."""
    from ..runtime.speculate.proposers import NGram, open_proposers

    if name != "ngram":
        return open_proposers(name)
    sizes = numbers(ngram, "--ngram")
    if len(sizes) != 2:
        raise UsageError("--ngram takes two sizes, like --ngram 3,5", found=ngram)
    NGram(*sizes)
    return lambda: NGram(*sizes)


def policy_of(name: str) -> Any:
    """The policy of that name."""
    from ..ir.core.errors import UnknownNameError
    from ..runtime.speculate.policies import Policy

    known = [policy.value for policy in Policy]
    if name not in known:
        raise UnknownNameError("policy", name, known)
    return Policy(name)


def ks_of(text: str | None) -> tuple[int, ...] | None:
    """The Ks that ``--k`` names."""
    return None if text is None else tuple(sorted(set(numbers(text, "--k"))))


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers between commas."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UsageError(f"{option} takes whole numbers between commas", found=repr(text))
    return [int(part) for part in parts]


def progress() -> Callable[[int, int], None] | None:
    """A line on a terminal's stderr that counts tokens; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    last = [0.0]

    def tell(done: int, total: int) -> None:
        if (now := time.monotonic()) - last[0] > BETWEEN:
            last[0] = now
            typer.echo(f"\r{done} of at most {total} tokens", nl=False, err=True)

    return tell


def _generate(decoder: Decoder, prompts: list[list[int]], settings: Settings, source: Source, talk: Talk) -> Generated:
    from ..runtime.decode.generate import generate as run
    from ..runtime.speculate.policies import Policy

    if settings.policy is Policy.GOODPUT and not all(k in settings.cost for k in decoder.ks):
        render.tell_all("note", ["the program has no latencies: K covers. `onnx-passes suggest-k` measures them."])
    on_step = progress() if talk.stream is None else None
    try:
        found = run(decoder, prompts, settings, source, on_step, talk.on_tokens)
        return replace(found, texts=talk.texts(found.tokens))
    finally:
        decoder.close()
        if on_step is not None:
            typer.echo("\r\033[K", nl=False, err=True)


def _latencies(program: Program) -> dict[int, float]:
    from ..runtime.suggest.costs import known_costs

    return known_costs(program)


def _show(found: Generated, as_json: bool, talk: Talk) -> None:
    from ..runtime.session.settings import runtime_record

    stats, ran = found.stats.as_json(), runtime_record()
    if as_json:
        render.tell_all("warning", talk.strange(found.tokens))
        render.show_json({**found.to_dict(), "runtime": ran})
        return
    talk.finish()
    render.tell_all("warning", talk.strange(found.tokens))
    for number, (tokens, ended) in enumerate(zip(found.tokens, found.ended, strict=True)):
        if found.texts:
            talk.show(number, ended, found.texts[number])
            continue
        rest = f" … {len(tokens) - SHOWN} more" if len(tokens) > SHOWN else ""
        render.show(f"{number} ({ended}): {' '.join(map(str, tokens[:SHOWN]))}{rest}")
    render.show()
    render.show(
        f"{render.count(stats['tokens'], 'token')} in {render.count(stats['steps'], 'step')}, "
        f"{stats['tokens_per_step']:.2f} tokens a text and step, "
        f"{stats['accepted']} of {stats['proposed']} proposals accepted, "
        f"{stats['steps_without_proposal']} steps without one"
    )
    chosen = ", ".join(f"{k}: {times}" for k, times in stats["chosen_k"].items())
    spent = ", ".join(f"{part} {milliseconds:.0f} ms" for part, milliseconds in stats["ms"].items())
    render.show(f"K {chosen or 'none'}; optimization {ran['optimization']}; {spent}")
