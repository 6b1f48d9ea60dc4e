"""Reads whole prompts into a decoder's caches: by prefills as long as they fit, the tail by graphs that fit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...ir.interface.roles import Role
from ...ir.symbolic.symbols import dims_of
from .host import Host, NotDecodable, Rows
from .step import Chunk, Step, Writing

if TYPE_CHECKING:
    from .decoder import Decoder

WIDE = 512  # tokens that a prefill of free length takes at once


@dataclass(frozen=True)
class PromptReader:
    """Graphs that read prompts, the widest first; ``whole``: which take whole chunks only, recorded or once tried."""

    decoder: Decoder
    graphs: Sequence[Host]
    whole: dict[str, bool]

    def read(self, texts: Mapping[int, Sequence[int]]) -> dict[int, np.ndarray]:
        """Reads whole texts into rows; gives each row what follows its last token."""
        found: dict[int, np.ndarray] = {}
        if self.graphs[0].batch == 1 or not self._mixes(texts):
            for row, text in texts.items():
                self._read({row: text}, found)
        else:
            self._read(texts, found)
        return found

    def _mixes(self, texts: Mapping[int, Sequence[int]]) -> bool:
        """Whether texts can be read at once: something tells padding, or they are equally long and nobody idles."""
        if self.decoder.writing is not Writing.BEHIND:
            return True
        same = len({len(text) for text in texts.values()}) == 1 and len(texts) == self.decoder.rows
        return same or bool(self.decoder.graphs[0].subject.masks)

    def _read(self, texts: Mapping[int, Sequence[int]], found: dict[int, np.ndarray]) -> None:
        done = dict.fromkeys(texts, 0)
        while left := {row: len(text) - done[row] for row, text in texts.items() if done[row] < len(text)}:
            graph, rows, width = self._reader(left)
            parts = {row: texts[row][done[row] : done[row] + width] for row in rows if row in left}
            step = self._step(rows, parts, width)
            results = self._answers(graph, step)
            if results is None:
                continue  # the graph takes whole chunks only: another one reads this
            counts = np.zeros(self.decoder.rows, np.int64)
            for at, row in enumerate(rows):
                if row in parts:
                    counts[row] = len(parts[row])
                    done[row] += len(parts[row])
                    found[row] = np.array(results.after(at, len(parts[row]) - 1))
            self.decoder.keep(counts)

    def _step(self, rows: Sequence[int], parts: Mapping[int, Sequence[int]], width: int) -> Step:
        chunks = [Chunk(parts.get(row, ()), int(self.decoder.lengths[row])) for row in rows]
        return Step.of(chunks, width=width, lengths=self.decoder.lengths[list(rows)], rows=rows)

    def _answers(self, graph: Host, step: Step) -> Rows | None:
        """What a run answers after each row's last token; None, nothing kept, where padding changes the answer.

        A graph that answers its last row alone may take row S - 1 for it, whatever is padding: an attention mask over a
        whole cache tells nothing of the run's own rows, a plain Slice asks nobody. The first such run is made twice,
        with other tokens as padding, and the answers must be the same.
        """
        results = self.decoder.run(graph, step)
        padded = bool((step.counts[step.counts > 0] < step.width).any())
        if not padded or results.values.shape[1] == step.width or graph.name in self.whole:
            return results
        last = [(at, count - 1) for at, count in enumerate(step.counts.tolist()) if count]
        before = [np.array(results.after(*place)) for place in last]
        self.decoder.keep(np.zeros(self.decoder.rows, np.int64))
        other = np.where(step.valid, step.ids, np.minimum(step.ids + 1, self.decoder.vocabulary - 1))
        results = self.decoder.run(graph, replace(step, ids=other))
        after = [results.after(*place) for place in last]
        self.whole[graph.name] = not all(map(_same, before, after))
        if self.whole[graph.name]:
            self.decoder.keep(np.zeros(self.decoder.rows, np.int64))
        return None if self.whole[graph.name] else results

    def _reader(self, left: Mapping[int, int]) -> tuple[Host, list[int], int]:
        """The graph that reads the next tokens of texts with so many left, the rows that run, and how many tokens."""
        single = self.decoder.writing is Writing.LENGTHS and self.decoder.rows > 1  # see ks
        for graph in self.graphs:
            rows = [next(iter(left))] if graph.batch == 1 and self.decoder.rows > 1 else list(range(self.decoder.rows))
            counts = [left[row] for row in rows if row in left]
            pads = self._pads and not self.whole.get(graph.name, False)
            open_width = max(counts) if pads else min(counts)
            width = graph.length or (open_width if single else min(open_width, WIDE))
            if single and not (width == 1 or self._is_first(graph, width)):
                continue
            fits = graph.subject.pads_by_position or int(self.decoder.lengths[rows].max()) + width <= self.decoder.ctx
            if width <= min(counts) or (pads and fits):
                return graph, rows, width
        graph = self.decoder.decodes.get(0)
        if graph is None:
            hint = "Clone a decode for k=0 too: what is left of a prompt is read one token at a time."
            raise NotDecodable("nothing can read the end of a text", found=f"{max(left.values())} tokens", hint=hint)
        return graph, list(range(self.decoder.rows)), 1

    def _is_first(self, graph: Host, width: int) -> bool:
        """Whether a fused attention of several rows sees a first run: no past, and a mask as long as the run.

        onnxruntime 1.32 says: "batch_size must be 1 when sequence_length > 1 and past context is given".
        """
        masks = [(dims_of(value) or (None,))[-1] for value in graph.subject.inputs(Role.ATTENTION_MASK)]
        return not self.decoder.lengths.any() and all(dim == width or not isinstance(dim, int) for dim in masks)

    @property
    def _pads(self) -> bool:
        """Whether a run may hold fewer tokens than it takes."""
        return self.decoder.rewinds and (
            self.decoder.writing is not Writing.BEHIND or self.decoder.graphs[0].subject.masks
        )


def _same(before: np.ndarray, after: np.ndarray) -> bool:
    return np.array_equal(before, after, equal_nan=before.dtype.kind == "f")
