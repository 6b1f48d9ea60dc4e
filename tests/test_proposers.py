"""Proposers against their definitions, written out naively."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_llm_passes.ir.core.errors import UnknownNameError, UsageError
from onnx_llm_passes.runtime.speculate.proposers import NGram, Shared, Suffix, lookup_candidates, open_proposers
from onnx_llm_passes.runtime.speculate.proposers.arctic import Trees, available
from onnx_llm_passes.runtime.speculate.proposers.ngram import SizesInvalid
from onnx_llm_passes.runtime.speculate.proposers.suffix import LEAST, Trie

TEXT = st.lists(st.integers(0, 3), max_size=40)


def scan(text: list[int], k: int, shortest: int, longest: int) -> list[int]:
    """Every earlier place of every last n-gram; the longest continuation, of those alike the larger n's and first."""
    best: list[int] = []
    for size in range(longest, shortest - 1, -1):
        for start in range(len(text) - size):
            if text[start : start + size] == text[len(text) - size :]:
                found = text[start + size : start + size + k]
                best = found if len(found) > len(best) else best
    return best


@given(TEXT, st.integers(1, 6), st.integers(1, 3), st.integers(0, 3))
def test_ngram_finds_what_a_scan_of_the_whole_text_finds(text: list[int], k: int, shortest: int, more: int) -> None:
    proposer = NGram(shortest, shortest + more)
    for token in text:
        proposer.extend([token])
    assert proposer.propose(k) == scan(text, k, shortest, shortest + more)


@pytest.mark.parametrize(
    ("ids", "size", "k", "wanted"),
    [
        ([1, 2, 9, 8, 7, 1, 2], 3, 3, [9, 8, 7]),
        ([5, 1, 2, 6, 1, 2, 7, 8, 9, 1, 2], 2, 3, [6, 1, 2]),
        ([1, 1, 1, 1], 2, 3, [1, 1, 1]),
        ([7, 8, 7], 2, 3, [8, 7, -1]),
        ([1, 2, 1, 2], 2, 4, [1, 2, -1, -1]),
        ([1, 2, 3], 2, 2, [-1, -1]),
        ([5, 5], 1, 2, [-1, -1]),  # the continuation would begin inside the n-gram itself
    ],
)
def test_prompt_lookup_fills_up(ids: list[int], size: int, k: int, wanted: list[int]) -> None:
    found, empty = lookup_candidates(ids, num_pred_tokens=k, max_ngram_size=size)
    assert found == wanted
    assert empty == all(token == -1 for token in wanted)


@pytest.mark.parametrize(("ids", "size", "k"), [([1, 2], 3, 3), ([1, 2, 3], 2, 0), ([1, 2, 3], 0, 2)])
def test_prompt_lookup_refuses(ids: list[int], size: int, k: int) -> None:
    with pytest.raises(SizesInvalid, match="num_pred_tokens"):
        lookup_candidates(ids, num_pred_tokens=k, max_ngram_size=size)


def naive(text: list[int], depth: int) -> dict[tuple[int, ...], int]:
    """How often each run of up to ``depth`` tokens stands in the text."""
    counts: dict[tuple[int, ...], int] = {}
    for start in range(len(text)):
        for end in range(start + 1, min(start + depth, len(text)) + 1):
            run = tuple(text[start:end])
            counts[run] = counts.get(run, 0) + 1
    return counts


def runs_of(trie: Trie, node: int = 0, run: tuple[int, ...] = ()) -> dict[tuple[int, ...], int]:
    """Every run that a trie holds, with its count."""
    found = {run: trie.counts[node]} if run else {}
    for key, child in trie.edges.items():
        if key >> 32 == node:
            found |= runs_of(trie, child, (*run, trie.tokens[child]))
    return found


@given(TEXT, st.integers(1, 5))
def test_the_trie_counts_every_run(text: list[int], depth: int) -> None:
    proposer = Suffix(depth=depth)
    proposer.extend(text)
    assert runs_of(proposer.own) == naive(text, depth)


@given(TEXT, st.integers(1, 5), st.integers(2, 6))
def test_suffix_follows_the_most_frequent_child(text: list[int], k: int, depth: int) -> None:
    proposer = Suffix(depth=depth)
    proposer.extend(text)
    found = proposer.propose(k)
    counts = naive(text, depth)
    best = 0.0
    for m in range(1, min(depth, len(text) + 1)):
        run, probability, score = tuple(text[len(text) - m :]), 1.0, 0.0
        for _ in range(min(k, m)):
            next_counts = [counts.get((*run, token), 0) for token in range(4)]
            probability *= max(next_counts) / counts[run]
            if not max(next_counts) or probability < LEAST or len(run) >= depth:
                break
            score += probability
            ties = [token for token, count in enumerate(next_counts) if count == max(next_counts)]
            run = (*run, max(ties, key=lambda token, run=run: last_seen(text, (*run, token))))
        best = max(best, score)
    assert len(found) <= k
    assert score_of(found, text, counts, depth) == pytest.approx(best)


def last_seen(text: list[int], run: tuple[int, ...]) -> int:
    return max(at for at in range(len(text)) if tuple(text[at : at + len(run)]) == run)


def score_of(found: list[int], text: list[int], counts: dict[tuple[int, ...], int], depth: int) -> float:
    """The best score that these very tokens have after any of the text's last runs."""
    best = 0.0
    for m in range(max(1, len(found)), min(depth, len(text) + 1)):
        run, probability, score = tuple(text[len(text) - m :]), 1.0, 0.0
        for token in found:
            probability *= counts.get((*run, token), 0) / counts[run] if run in counts else 0.0
            score += probability
            run = (*run, token)
        best = max(best, score)
    return best


def test_of_children_alike_the_last_seen_is_followed() -> None:
    proposer = Suffix()
    proposer.extend([1, 2, 1, 3, 1])
    assert proposer.propose(1) == [3]


def test_a_finished_text_helps_the_next_one() -> None:
    source = open_proposers("suffix")
    first = source()
    first.extend([4, 5, 6, 7])
    first.finish()
    second = source()
    second.extend([5, 6])
    assert second.propose(4) == [7]


def test_its_own_text_wins_a_tie_with_the_shared_one() -> None:
    shared = Shared()
    shared.remember([1, 9, 1, 7])  # each after half of the 1s, as 8 is in the text itself
    proposer = Suffix(shared)
    proposer.extend([1, 8, 1])
    assert proposer.propose(1) == [8]


def test_nothing_is_proposed_by_none() -> None:
    proposer = open_proposers("none")()
    proposer.extend([1, 1, 1, 1])
    assert proposer.propose(4) == []


def test_refused_proposers() -> None:
    with pytest.raises(UnknownNameError, match="'ngram'"):
        open_proposers("ngrm")
    with pytest.raises(UsageError, match="shortest"):
        NGram(3, 2)


def test_the_adapter_proposes_what_a_repetition_shows_or_says_what_is_missing() -> None:
    if not available():
        with pytest.raises(UsageError, match="not installed"):
            Trees()
        return
    proposer = open_proposers("arctic")()
    proposer.extend([1, 2, 3, 4, 5, 1, 2, 3])
    assert proposer.propose(2) == [4, 5]
