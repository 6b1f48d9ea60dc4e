"""Prompts that are text, and the text of generated tokens as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...ir.core.errors import InputError
from ...ir.serialization.strict import StrictReader
from ...ir.serialization.tokenizer_file import find_tokenizer, open_tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # decoders print it for a character whose last bytes are in a later token
# where exporters say which tokens end a text: transformers (4.57), onnxruntime-genai (0.18)
CONFIGS = ("generation_config.json", "genai_config.json", "config.json")


@dataclass
class TextStream:
    """Text of one prompt's tokens as they come; a character spread over tokens comes with the last of them."""

    tokenizer: Any
    ids: list[int] = field(default_factory=list[int])
    said: str = ""

    def add(self, ids: Sequence[int]) -> str:
        """What the text grew by."""
        self.ids += ids
        text: str = self.tokenizer.decode(self.ids)
        return "" if text.endswith(UNFINISHED) else self._grown(text)

    def end(self) -> str:
        """What is left at the end, with a character that never finished."""
        return self._grown(self.tokenizer.decode(self.ids))

    def _grown(self, text: str) -> str:
        if not text.startswith(self.said):  # a decoder that joins words anew: what is said cannot be taken back
            return ""
        new, self.said = text[len(self.said) :], text
        return new


@dataclass(frozen=True)
class Words:
    """The tokenizer of a program, and the tokens that its exporter's configuration ends texts at."""

    tokenizer: Any
    eos: frozenset[int]

    @classmethod
    def beside(cls, program: Path | None, given: Path | None) -> Words:
        """The tokenizer given, or beside a program, in its folder or the one above; InputError where there is none."""
        folder = program if program is None or program.is_dir() else program.parent
        folders = [] if folder is None else [folder, folder.parent]
        file = find_tokenizer(given, *folders)
        return cls(open_tokenizer(file, "token ids with --prompt-ids"), ends_of(file.parent))

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, special tokens as the tokenizer puts them."""
        return [list(self.tokenizer.encode(text).ids) for text in texts]

    def unknown(self, answers: Sequence[Sequence[int]]) -> list[int]:
        """The tokens of all texts that the tokenizer does not have, which it decodes to nothing (0.23.3)."""
        return [token for ids in answers for token in ids if self.tokenizer.id_to_token(token) is None]

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids))


def ends_of(folder: Path) -> frozenset[int]:
    """``eos_token_id`` of the first exporter's configuration in a folder that has one; none where none says."""
    for name in CONFIGS:
        if (file := folder / name).is_file() and (found := _eos(file)):
            return found
    return frozenset()


def _eos(file: Path) -> frozenset[int]:
    reader = StrictReader("an exporter's configuration", InputError)
    document: Any = reader.load_json(reader.read_text(file), where=str(file))
    if not isinstance(document, Mapping):
        return frozenset()
    inner: Any = document.get("model")
    value: Any = document.get("eos_token_id", inner.get("eos_token_id") if isinstance(inner, Mapping) else None)
    ids = value if isinstance(value, list) else [value]
    return frozenset(token for token in ids if type(token) is int and token >= 0)
