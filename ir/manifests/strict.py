"""Reading JSON and YAML that may be hostile: bounded, nothing twice, no NaN, no aliases, one line where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn, cast

from ..core.specialization import ManifestInvalid

if TYPE_CHECKING:
    import yaml

MAX_TEXT = 16 << 20
MAX_DEPTH = 32
MAX_NODES = 1 << 20


def load_json(text: str, *, where: str) -> Any:
    """The value that ``text`` holds; ManifestInvalid for anything that is not plain JSON with each key once."""
    _check_size(text, where)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid("cannot be read as JSON", where=where, found=_reason(error)) from None


def load_list(text: str, key: str, *, where: str) -> list[object]:
    """The list of a file that holds ``{key: [ … ]}`` and nothing else; ManifestInvalid for any other."""
    data: object = load_json(text, where=where)
    kind = type(data).__name__
    fields = cast("dict[str, object]", data) if isinstance(data, dict) else {}
    found = fields.get(key)
    if len(fields) != 1 or not isinstance(found, list):
        raise ManifestInvalid(
            f"holds no {key}, or more than that",
            where=where,
            found=", ".join(map(repr, fields))[:120] or kind,
            wanted=f'{{"{key}": [ … ]}}',
        )
    return cast("list[object]", found)


def dump_json(value: object) -> str:
    """JSON as the target compiler's own writer lays it out: four spaces, keys sorted, no space around separators."""
    return json.dumps(value, indent=4, separators=(",", ":"), sort_keys=True, allow_nan=False)


def load_yaml(text: str, *, where: str) -> Any:
    """Mappings, lists and texts that ``text`` holds, no scalar turned into a number; ManifestInvalid as for JSON."""
    import yaml

    _check_size(text, where)
    try:
        _check_events(text, where)
        return _plain(yaml.compose(text, Loader=yaml.SafeLoader), where)  # pyright: ignore[reportUnknownMemberType]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ManifestInvalid("cannot be read as YAML", where=where, found=_reason(error)) from None


def _check_size(text: str, where: str) -> None:
    if len(text) > MAX_TEXT:
        raise ManifestInvalid("is too large", where=where, found=f"{len(text)} characters", wanted=f"≤ {MAX_TEXT}")


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nesting without end"
    return " ".join(str(error).split())[:160]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} stands twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_events(text: str, where: str) -> None:
    """Refuses what could make composing endless: aliases, deep nesting, very many nodes, several documents."""
    import yaml

    depth = documents = 0
    parsed = yaml.parse(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    for count, event in enumerate(cast("Iterator[yaml.Event]", parsed)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ManifestInvalid("holds an alias", where=where, found=f"*{event.anchor}")
        if depth > MAX_DEPTH or count > MAX_NODES or documents > 1:
            raise ManifestInvalid("is nested too deeply, or too long", where=where)


def _plain(node: Any, where: str) -> Any:
    import yaml

    if node is None or isinstance(node, yaml.ScalarNode):
        return None if node is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, where) for item in node.value]
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = _plain(key, where)
        if not isinstance(name, str) or name in found:
            raise ManifestInvalid("a key stands twice or is no text", where=where, found=repr(name)[:80])
        found[name] = _plain(value, where)
    return found
