"""Suffix decoding proposes the likeliest continuation from tries with counts over this and finished texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DEPTH = 16  # longest run of tokens that a trie remembers, the proposed ones included
LEAST = 0.1  # a proposal ends where its probability falls below
MAX_NODES = 4_000_000  # of the shared trie: some 600 MB; beyond that it starts anew
BITS = 32  # of a token in an edge's key


class Trie:
    """All runs of up to ``depth`` tokens with their counts, as a tree: node 0 is the empty run.

    ``best[node]`` is its most frequent child; of those alike the one seen last.
    """

    def __init__(self, depth: int = DEPTH) -> None:
        self.depth = depth
        self.edges: dict[int, int] = {}  # node << BITS | token -> child
        self.counts: list[int] = [0]
        self.best: list[int] = [0]  # 0: no child
        self.tokens: list[int] = [0]

    def add(self, open_runs: list[int], token: int) -> list[int]:
        """Adds ``token`` after every open run (nodes, the longest first); returns the runs that are open then."""
        edges, counts, best = self.edges, self.counts, self.best
        longer: list[int] = []
        for node in (*open_runs, 0):
            child = edges.get(key := node << BITS | token)
            if child is None:
                child = edges[key] = len(counts)
                counts.append(1)
                best.append(0)
                self.tokens.append(token)
            else:
                counts[child] += 1
            leader = best[node]
            if (leader != child and counts[child] >= counts[leader]) or not leader:
                best[node] = child
            longer.append(child)
        counts[0] += 1
        # the longest run is full: nothing may be put after it
        return longer[1:] if len(longer) >= self.depth else longer

    def follow(self, runs: list[int], token: int) -> list[int]:
        """The nodes of the last 1, 2, … tokens (the longest first) that this trie knows, after ``token``; adds none."""
        edges = self.edges
        found = [edges.get(node << BITS | token) for node in (*runs, 0)]
        return [node for node in found if node is not None]

    def guess(self, node: int, limit: int) -> tuple[float, list[int]]:
        """At most ``limit`` most frequent tokens after ``node``, and how many of them are expected to be right."""
        counts, best = self.counts, self.best
        tokens: list[int] = []
        probability, score = 1.0, 0.0
        while len(tokens) < limit and (child := best[node]):
            probability *= counts[child] / max(counts[node], 1)
            if probability < LEAST:
                break
            tokens.append(self.tokens[child])
            score += probability
            node = child
        return score, tokens


@dataclass
class Shared:
    """The trie over finished texts that the proposers of one run share."""

    depth: int = DEPTH
    trie: Trie = field(default_factory=Trie)

    def __post_init__(self) -> None:
        self.trie = Trie(self.depth)

    def remember(self, text: Iterable[int]) -> None:
        """Takes in a finished text; a full trie starts anew."""
        if len(self.trie.counts) > MAX_NODES:
            self.trie = Trie(self.depth)
        runs: list[int] = []
        for token in text:
            runs = self.trie.add(runs, token)


class Suffix:
    """Matches the last m tokens for every m that its own or the shared trie knows, and follows the best child.

    A match of m tokens proposes at most m. The proposal with the highest score (expected number of right tokens) wins;
    of those alike this text's before the shared one's, then the longer match's.
    """

    def __init__(self, shared: Shared | None = None, depth: int = DEPTH) -> None:
        self.text: list[int] = []
        self.own = Trie(depth)
        self.shared = shared
        self._trie = shared.trie if shared is not None else None
        self._runs: list[int] = []
        self._matched: list[int] = []

    def extend(self, tokens: Iterable[int]) -> None:
        """Takes in what the text went on with."""
        own, runs, text = self.own, self._runs, self.text
        for token in tokens:
            runs = own.add(runs, token)
            text.append(token)
            if self._trie is not None and self.shared is not None:
                self._matched = self._trie.follow(self._matched, token)
        self._runs = runs

    def propose(self, k: int) -> list[int]:
        """The continuation with the highest score."""
        score, tokens = self._best(self.own, self._runs, k)
        if self._trie is not None:
            other, elsewhere = self._best(self._trie, self._matched, k)
            if other > score:
                return elsewhere
        return tokens

    def finish(self) -> None:
        """Leaves the text to the shared trie."""
        if self.shared is not None:
            self.shared.remember(self.text)

    @staticmethod
    def _best(trie: Trie, runs: list[int], k: int) -> tuple[float, list[int]]:
        best: tuple[float, list[int]] = (0.0, [])
        for shorter, node in enumerate(runs):  # the longest first, so that it wins a tie
            if trie.best[node]:
                guess = trie.guess(node, min(k, len(runs) - shorter))
                if guess[0] > best[0]:
                    best = guess
        return best
