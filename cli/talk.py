"""Prompts that are text: their tokens, and what a program says to them on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import render

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from ..runtime.decode.texts import TextStream, Words


@dataclass
class Talk:
    """The tokenizer of text prompts, nothing where prompts are token ids; one prompt's answer is streamed.

    Attributes:
        prompts: The token ids of the prompts.
        ends: Tokens that end a text, by the exporter's configuration beside the tokenizer.
    """

    words: Words | None = None
    prompts: list[list[int]] = field(default_factory=list[list[int]])
    ends: frozenset[int] = frozenset()
    stream: TextStream | None = None

    @classmethod
    def of(cls, program: Program, texts: Sequence[str], tokenizer: Path | None, *, streams: bool) -> Talk:
        """Reads the tokenizer where there are texts; InputError where there is none."""
        if not texts:
            return cls()
        from ..runtime.decode.texts import TextStream, Words

        words = Words.beside(program.source, tokenizer)
        stream = TextStream(words.tokenizer) if streams and len(texts) == 1 else None
        return cls(words, words.prompts(texts), words.eos, stream)

    @property
    def on_tokens(self) -> Callable[[int, Sequence[int]], None] | None:
        """Prints text as it comes; None where it comes at the end."""
        return None if self.stream is None else self._say

    def _say(self, number: int, tokens: Sequence[int]) -> None:
        assert self.stream is not None, "only a stream is told of tokens"
        render.show_part(self.stream.add(tokens))

    def texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """The texts of the prompts' new tokens; none where prompts are token ids."""
        return [] if self.words is None else [self.words.text(ids) for ids in answers]

    def strange(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """A warning that counts the tokens which the tokenizer has no word for: their text is empty."""
        if self.words is None:
            return []
        lost = self.words.unknown(answers)
        if not lost:
            return []
        few = ", ".join(map(str, lost[:3]))
        return [f"{render.count(len(lost), 'token')} ({few}) without a word in the tokenizer: is it the model's?"]

    def finish(self) -> None:
        """Ends the line of a stream."""
        if self.stream is not None:
            render.show_part(self.stream.end() + "\n")

    def show(self, number: int, ended: str, text: str) -> None:
        """One prompt's text, unless it was streamed."""
        if self.stream is None:
            render.show_part(f"{number} ({ended}): {text}\n")
