"""A recipe says by rules which tensors take how many bits; it is read from YAML or JSON, or shipped by name."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..core.errors import InputError, UnknownNameError
from ..interface.projections import Part
from ..serialization.strict import StrictReader
from .clip import split_method
from .recipes import RECIPES

VERSION = 1
ROLES = tuple(part.value for part in Part)
_LAYERS = re.compile(r"(last|[0-9]{1,6})(?:-(last|[0-9]{1,6}))?")
_GRANULARITY = r"^(tensor|channel|block [1-9][0-9]{0,5})$"


class RecipeInvalid(InputError):
    """A recipe that is none, or whose rules contradict each other or take nothing."""


READER = StrictReader("a recipe", RecipeInvalid, RecipeInvalid, max_bytes=1 << 20)


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 4 else value


def _texts(value: object) -> object:
    """One text, or a number, is a list of one; a text with commas one of several."""
    items = value if isinstance(value, list) else str(value).split(",")  # pyright: ignore[reportUnknownVariableType]
    return [str(item).strip() for item in items]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _spans(value: object) -> object:
    texts: Any = _texts(value)
    bad = next((text for text in texts if not _LAYERS.fullmatch(text)), None)
    if bad is not None:
        raise ValueError(f"layers are numbers, ranges as 0-3, or last; found {bad!r}")
    return texts


def _roles(value: object) -> object:
    texts: Any = _texts(value)
    bad: str | None = next((text for text in texts if text not in ROLES), None)
    if bad is not None:
        near = difflib.get_close_matches(bad, ROLES, 1)
        raise ValueError(f"unknown role {bad!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    return texts


def _method(value: object) -> object:
    try:
        split_method(str(value))
    except UnknownNameError:
        raise ValueError("minmax, mse, entropy, or percentile as in 'percentile 99.9'") from None
    return str(value)


Texts = Annotated[list[str], BeforeValidator(_texts, json_schema_input_type=str | list[str]), Field(min_length=1)]
Layers = Annotated[
    list[str], BeforeValidator(_spans, json_schema_input_type=int | str | list[int | str]), Field(min_length=1)
]
Roles = Annotated[
    list[Literal[ROLES]],  # pyright: ignore[reportInvalidTypeForm]
    BeforeValidator(_roles, json_schema_input_type=str | list[Literal[ROLES]]),  # pyright: ignore[reportInvalidTypeForm]
    Field(min_length=1),
]
Bits = Annotated[Literal[4, 8, 16, "float"], BeforeValidator(_number)]
CacheBits = Annotated[Literal[8, 16, "float"], BeforeValidator(_number)]
Symmetry = Literal["symmetric", "asymmetric"]
Method = Annotated[str, BeforeValidator(_method)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def given(self) -> dict[str, Any]:
        """What the rule says, by name; what it leaves open is what earlier rules said."""
        return self.model_dump(exclude_none=True)


class Weights(_Part):
    """What a rule says of weights."""

    bits: Bits | None = Field(None, description="Bits of a number, or float: not quantized.")
    symmetry: Symmetry | None = Field(None, description="symmetric by default.")
    granularity: str | None = Field(
        None, pattern=_GRANULARITY, description="tensor, channel (default), or block N: N inputs of a channel."
    )
    method: Annotated[Literal["minmax", "mse"], Field(description="How the range is chosen.")] | None = None


class Activations(_Part):
    """What a rule says of computed tensors."""

    bits: Bits | None = Field(None, description="Bits of a number, or float: not quantized.")
    symmetry: Symmetry | None = Field(None, description="asymmetric by default.")
    method: Method | None = Field(
        None, description="minmax, mse, entropy, percentile [P]; by default what the calibration was asked for."
    )


class Caches(_Part):
    """What a rule says of carried states and everything that holds their numbers; their grids are symmetric."""

    bits: CacheBits | None = Field(None, description="Bits of a number, or float: not quantized.")
    method: Method | None = Field(None, description="As for activations.")


class Where(_Part):
    """Which tensors a rule takes: those of which everything given is true."""

    layers: Layers | None = Field(None, description="Numbers, ranges as 0-3, last.")
    roles: Roles | None = Field(None, description="Any of these; embedding tables are taken by that role alone.")
    operators: Texts | None = Field(None, description="Types of the operators that read a weight, or make a tensor.")
    names: Texts | None = Field(None, description="Names of tensors or of those operators; * and ? stand for any.")


class Rule(_Part):
    """One rule: where it holds, and what it says of weights, activations and caches there."""

    where: Where = Where()  # pyright: ignore[reportCallIssue]
    weights: Weights | None = None
    activations: Activations | None = None
    caches: Caches | None = None
    optional: Annotated[bool, BeforeValidator(lambda v: {"true": True, "false": False}.get(str(v).lower(), v))] = Field(
        False, description="It may take no tensor; else that is an error."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        parts = (self.weights, self.activations, self.caches)
        if not any(part is not None and part.given() for part in parts):
            raise ValueError("says nothing of weights, activations or caches")
        return self

    def kinds(self) -> dict[str, dict[str, Any]]:
        """What it says, by kind of tensor."""
        parts = {"weights": self.weights, "activations": self.activations, "caches": self.caches}
        return {kind: part.given() for kind, part in parts.items() if part is not None}


class Recipe(_Part):
    """Rules in order: a later one changes what it says of the tensors that it takes, and nothing else."""

    recipe: Annotated[Literal[1], BeforeValidator(_number)] = Field(description="The version of this layout.")
    about: str | None = Field(None, description="One sentence on what it is for.")
    rules: list[Rule] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        seen: dict[str, tuple[int, object]] = {}
        for number, rule in enumerate(self.rules, 1):
            for kind, said in rule.kinds().items():
                key = f"{kind} {rule.where.model_dump_json()}"
                before, bits = seen.setdefault(key, (number, said.get("bits")))
                if "bits" in said and bits is not None and bits != said["bits"]:
                    raise ValueError(
                        f"rules {before} and {number} contradict each other: {kind} of the same place have {bits} and "
                        f"{said['bits']} bits"
                    )
        return self


def load_recipe(name: str) -> Recipe:
    """The shipped recipe of that name, else the file; RecipeInvalid says the rule and the field that is wrong."""
    if name in RECIPES:
        return parse_recipe(RECIPES[name], where=name)
    if not Path(name).is_file() and not Path(name).suffix:
        raise UnknownNameError("recipe", name, RECIPES, hint="Or the path of a file of rules (.yaml, .json).")
    return parse_recipe(READER.read_text(Path(name)), where=name)


def parse_recipe(text: str, *, where: str = "recipe") -> Recipe:
    """A recipe out of YAML or JSON."""
    load = READER.load_json if text.lstrip().startswith("{") else READER.load_yaml
    document = load(text, where=where)
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ", ".join([where, *(_step(step) for step in first["loc"] if step != "function-before")])
        message = first["msg"].removeprefix("Value error, ")
        found = repr(first.get("input"))[:80] if first["type"] != "value_error" else None
        raise RecipeInvalid(message, where=place, found=found, hint=_hint(message)) from None


def _step(step: int | str) -> str:
    return f"rule {step + 1}" if isinstance(step, int) else step


def _hint(message: str) -> str:
    return f"Roles are {', '.join(ROLES)}." if "role" in message else "`onnx-passes recipe --schema` has the layout."


def recipe_schema() -> str:
    """The JSON Schema of a recipe, for editors and for whoever writes recipes by a program."""
    schema = Recipe.model_json_schema(mode="validation")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1) + "\n"
