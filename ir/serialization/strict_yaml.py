"""YAML that may be hostile is parsed within limits, and every scalar stays the text that it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from .strict_json import MAX_DEPTH, BrokenText

if TYPE_CHECKING:
    import yaml

MAX_NODES = 1 << 20


def parse_yaml(text: str) -> Any:
    """Mappings, lists and texts that ``text`` holds.

    Raises:
        BrokenText: no YAML, an alias, a key twice, several documents, too many levels or nodes.
    """
    import yaml

    try:
        _check_events(text)
        return _plain(yaml.compose(text, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BrokenText("is no YAML", mark.line + 1 if mark else 1, found=error.problem) from None
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML does not have
        raise BrokenText("is no YAML", 1, found=" ".join(str(error).split())[:160]) from None
    except RecursionError:
        raise BrokenText("is nested without end", 1, wanted=f"at most {MAX_DEPTH} levels") from None


def _check_events(text: str) -> None:
    """Refuses what could make composing endless before anything is composed."""
    import yaml

    depth = documents = 0
    parsed = yaml.parse(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    for count, event in enumerate(cast("Iterator[yaml.Event]", parsed)):
        line = event.start_mark.line + 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent):
            raise BrokenText("holds an alias", line, found=f"*{event.anchor}")
        if depth > MAX_DEPTH:
            raise BrokenText("is nested without end", line, wanted=f"at most {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise BrokenText("is too long", line, wanted=f"at most {MAX_NODES} nodes")
        if documents > 1:
            raise BrokenText("holds several documents", line, wanted="one")


def _plain(node: Any) -> Any:
    import yaml

    if node is None or isinstance(node, yaml.ScalarNode):
        return None if node is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    found: dict[str, Any] = {}
    for key, value in node.value:
        name, line = _plain(key), key.start_mark.line + 1
        if not isinstance(name, str):
            raise BrokenText("a key is no text", line, found=repr(name)[:80])
        if name in found:
            raise BrokenText(f"{name[:80]!r} stands twice", line)
        found[name] = _plain(value)
    return found
