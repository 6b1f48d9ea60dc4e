"""Small text files that may be hostile are read by one reader; each kind of file has its size and its error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, OnnxPassesError
from .strict_json import BrokenText, parse_json
from .strict_yaml import parse_yaml


@dataclass(frozen=True)
class StrictReader:
    """Reads the files of one kind.

    Attributes:
        kind: What such a file is, for messages: ``a manifest``.
        invalid: What a text that breaks a rule raises; its place ends with the line.
        unreadable: What a file that is missing, too large or no text raises.
        max_bytes: The largest file that is read, and the longest text in characters.
    """

    kind: str
    invalid: type[OnnxPassesError]
    unreadable: type[InputError] = InputError
    max_bytes: int = 16 << 20

    def read_text(self, path: Path) -> str:
        """The text of a file; ``unreadable`` where it is missing, too large, or no UTF-8."""
        try:
            size = path.stat().st_size
            if size > self.max_bytes:
                raise self._too_large(self.unreadable, str(path), f"{size} bytes")
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise self.unreadable("no such file", where=str(path), wanted=self.kind) from None
        except UnicodeDecodeError:
            raise self.unreadable("cannot be read: it is no text", where=str(path), wanted="UTF-8") from None
        except OSError as error:
            raise self.unreadable(f"cannot be read: {error.strerror or error}", where=str(path)) from None

    def load_json(self, text: str, *, where: str) -> Any:
        """The value that ``text`` holds; ``invalid`` as :func:`~.strict_json.parse_json` says."""
        return self._parsed(parse_json, text, where)

    def load_yaml(self, text: str, *, where: str) -> Any:
        """Mappings, lists and texts that ``text`` holds; ``invalid`` as :func:`~.strict_yaml.parse_yaml` says."""
        return self._parsed(parse_yaml, text, where)

    def _parsed(self, parse: Callable[[str], Any], text: str, where: str) -> Any:
        if len(text) > self.max_bytes:
            raise self._too_large(self.invalid, where, f"{len(text)} characters")
        try:
            return parse(text)
        except BrokenText as broken:
            place = f"{where}, line {broken.line}" if where else f"line {broken.line}"
            raise self.invalid(broken.what, where=place, found=broken.found, wanted=broken.wanted) from None

    def _too_large(self, error: type[OnnxPassesError], where: str, found: str) -> OnnxPassesError:
        return error(f"is too large for {self.kind}", where=where, found=found, wanted=f"at most {self.max_bytes}")
