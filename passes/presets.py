"""Presets are pipelines with parameters, one table row each, expanded in place wherever a pass may stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ir.core.errors import UnknownNameError, UsageError
from .syntax import MAX_PASSES, Atom, PassSpec, Value, parse_specs

MAX_DEPTH = 8  # presets inside presets


@dataclass(frozen=True)
class Preset:
    """A caption, parameters with defaults, and a template in which ``option=$parameter`` is filled in.

    A parameter's default is text as it would be written after the equals sign; None leaves the option to its pass.
    ``at_target`` has those that another target changes, ``forms`` the templates of values of ``form`` that need others.
    """

    caption: str
    template: str
    parameters: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    at_target: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, "Mapping[str, str]"])
    forms: Mapping[str, str] = field(default_factory=dict[str, str])

    def template_of(self, given: Mapping[str, Value], where: str) -> str:
        """The template for the parameters that are given; UsageError for one that it does not take."""
        form = _word(given.get("form"))
        if form not in self.forms:
            return self.template
        template = self.forms[form]
        for name in given.keys() - {"form"}:
            if f"${name}" not in template:
                raise UsageError(f"form={form} takes no {name}", where=where, hint=f"Leave {name}= out.")
        return template

    def defaults(self, target: str | None) -> dict[str, str | None]:
        """The parameters' defaults for a target."""
        return {**self.parameters, **self.at_target.get(target or "", {})}


_DECODER = (
    # logits last of what changes nodes: a converted mask tells no rows, positions do
    "lower{target=$target missing=leave},"
    "convert-states{to=scatter ops=$ops mask=$mask names=$names},keep-last-logits{symbol=num_logits_to_keep},"
)
_STATES: dict[str, str | None] = {"ops": None, "mask": None, "names": None}
_SIZES: dict[str, str | None] = {
    "prefill": "128",
    "ctx": "4096",
    "batch": None,
    "cache_batch": None,
    "ccl": None,
    "bind": None,
    "static": None,
    "fold": None,
    "kv": None,
    "target": "qaic",
    "form": "auto",
    "flags": None,
    "manifest": None,
}
_RETAINED = {name: {"names": "retained"} for name in ("qaic", "qaic-flat")}
"""Its compiler pairs the output X_RetainedState with the input X, and keeps what it pairs on the device."""
_SAFE = "check-speculation-safe{k=$k dynamic_scales=$dynamic_scales},"
_CLONES = (
    "clone-decode{k=$k prefill=$prefill ctx=$ctx batch=$batch cache_batch=$cache_batch ccl=$ccl bind=$bind "
    "static=$static fold=$fold target=$target form=$form},custom-io{kv=$kv},"
    "emit-manifest{target=$target flags=$flags manifest=$manifest},check"
)
_BRANCHES = (  # one session picks among them: no compiler's manifest speaks of such a graph
    f"{_CLONES.partition(',emit-manifest')[0].replace('form=$form', 'form=graphs')},check,package{{as=branches}}"
)

_TEXT = (
    "lower{target=$target missing=leave},single-shot{positions=$positions},"
    "rename-io{map=pixel_values_RetainedState:image_embeds missing=ignore},",
    "specialize{family=$family batch=$batch lengths=$lengths height=$height width=$width},"
    "custom-io{float=$float},bind,emit-manifest{target=$target}",
)
_ONE_RUN: dict[str, str | None] = {
    "batch": None,
    "height": None,
    "width": None,
    "float": None,
    "positions": None,
    "target": "qaic",
}

PRESETS: dict[str, Preset] = {
    "prefill-decode": Preset(
        "A chat model as a prefill and a decode of one token, on one weight file, with their manifest",
        _DECODER + _CLONES.replace("k=$k ", ""),
        {**_SIZES, **_STATES},
        _RETAINED,
        {"branches": _DECODER + _BRANCHES.replace("k=$k ", "")},
    ),
    "classifier": Preset(
        "A classifier or cross-encoder in one run, at the asked lengths, with its manifest",
        _TEXT[0] + _TEXT[1],
        {**_ONE_RUN, "family": "sequence-classification", "lengths": "128"},
    ),
    "embedder": Preset(
        "A text, or picture-and-text, embedder in one run that gives one vector a row, with its manifest",
        _TEXT[0]
        + "pool{kind=$kind from=$from normalize=$normalize dims=$dims quantize=$quantize only=true},simplify,"
        + _TEXT[1],
        {
            **_ONE_RUN,
            "family": "embedding",
            "lengths": "128",
            **dict.fromkeys(("kind", "from", "normalize", "dims", "quantize")),
        },
    ),
    "reranker": Preset(
        "A picture-and-text, or text, reranker in one run that gives one score a row, with its manifest",
        # the sizes are bound last but one: until then the manifest's symbols are the graph's
        _TEXT[0]
        + "keep-last-logits{n=1},select-vocab{tokens=$tokens as=$as optional=true},simplify,"
        + _TEXT[1].replace("$lengths", "$prefill"),
        {**_ONE_RUN, "family": "qwen3_vl", "prefill": "512", "tokens": None, "as": "probability"},
    ),
    "speculative": Preset(
        "A chat model as a prefill and one decode for each number of speculative tokens, on one weight file",
        _DECODER + _SAFE + _CLONES,
        {"k": "0,4", "dynamic_scales": None, **_SIZES, **_STATES},
        _RETAINED,
        {"branches": _DECODER + _SAFE + _BRANCHES},
    ),
    "single-shot": Preset(
        "One run over the whole text, no cache: embedders, rerankers, classifiers, CTC",
        # states first: what computed cache lengths is dead only after it
        "strip-states{layers=$layers kinds=$kinds positions=$positions init=$init},simplify",
        {"layers": None, "kinds": None, "positions": None, "init": None},
    ),
    "quantize": Preset(
        "Calibrated ranges become grids: states tied, activations and weights quantized, caches as integers",
        # tied before pairs stand anywhere: an untied past would be rounded to nothing without a word
        "load-encodings{file=$file ctx=$ctx},tie-states{bits=$kv recipe=$recipe},"
        "insert-qdq{recipe=$recipe activations=$activations weights=$weights per_channel=$per_channel keep=$keep "
        "variant=$variant rules=$rules},kv-io{bits=$kv recipe=$recipe}",
        {"file": "encodings.json"}
        | dict.fromkeys("recipe ctx kv activations weights per_channel keep variant rules".split()),
    ),
}


def expand(specs: Sequence[PassSpec], *, depth: int = 0) -> list[PassSpec]:
    """Replaces each preset by its passes; raises UsageError for an unknown parameter or presets nested too deep."""
    if depth > MAX_DEPTH:
        raise UsageError("presets are nested too deep", found=", ".join(spec.name for spec in specs), wanted=MAX_DEPTH)
    result: list[PassSpec] = []
    for spec in specs:
        inner = [spec] if spec.name not in PRESETS else expand(_fill(spec, PRESETS[spec.name]), depth=depth + 1)
        result.extend(inner)
        if len(result) > MAX_PASSES:
            raise UsageError("the pipeline has too many passes", wanted=f"at most {MAX_PASSES}")
    return result


def _fill(spec: PassSpec, preset: Preset) -> list[PassSpec]:
    given = dict(spec.options)
    for name in given:
        if name not in preset.parameters:
            hint = f"Its parameters are {', '.join(preset.parameters)}." if preset.parameters else "It takes none."
            raise UnknownNameError("parameter", name, preset.parameters, where=f"preset {spec.name!r}", hint=hint)
    target = _word(given.get("target")) or preset.parameters.get("target")
    template = preset.template_of(given, f"preset {spec.name!r}")
    values = {name: given.get(name, _parse_default(text)) for name, text in preset.defaults(target).items()}
    return [PassSpec(part.name, tuple(_filled(part.options, values))) for part in parse_specs(template)]


def _word(value: Value | None) -> str:
    """The one word of a value; empty where it has none or several."""
    match value:
        case ((Atom(text),),):
            return text
        case _:
            return ""


def _parse_default(text: str | None) -> Value | None:
    return None if text is None else parse_specs(f"x{{y={text}}}")[0].options[0][1]


def _filled(options: Sequence[tuple[str, Value]], values: Mapping[str, Value | None]) -> list[tuple[str, Value]]:
    result: list[tuple[str, Value]] = []
    for option, written in options:
        parameter = _parameter(written)
        value = values[parameter] if parameter is not None else written
        if value is not None:
            result.append((option, value))
    return result


def _parameter(value: Value) -> str | None:
    """The parameter that a template's value stands for, None where it is a value of its own."""
    match value:
        case ((Atom(text, quoted=False),),) if text.startswith("$"):
            return text[1:]
        case _:
            return None
