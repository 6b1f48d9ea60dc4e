"""Proposes by ArcticInference's own suffix trees, where that package is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ....ir.core.errors import UsageError

MODULE = "arctic_inference.suffix_decoding"


def available() -> bool:
    """True where the package can be imported."""
    try:
        importlib.import_module(MODULE)
    except ImportError:
        return False
    return True


class Trees:
    """ArcticInference's cache of suffix trees, shared by the proposers of one run."""

    def __init__(self, depth: int = 64) -> None:
        try:
            module = importlib.import_module(MODULE)
        except ImportError as error:
            hint = "Install arctic-inference, or use --proposer suffix."
            raise UsageError("ArcticInference is not installed", found=str(error), hint=hint) from error
        self.cache: Any = module.SuffixDecodingCache(max_tree_depth=depth)
        self.opened = 0


class Arctic:
    """One text's suffix tree in those trees."""

    def __init__(self, trees: Trees) -> None:
        self.trees = trees
        self.request = trees.opened
        trees.opened += 1
        self.text: list[int] = []

    def extend(self, tokens: Iterable[int]) -> None:
        """Takes in what the text went on with; the first tokens are the prompt."""
        added = list(tokens)
        array = np.asarray(added, np.int32)
        if self.text:
            self.trees.cache.add_active_response(self.request, array)
        else:
            self.trees.cache.start_request(self.request, array)
        self.text += added

    def propose(self, k: int) -> list[int]:
        """What its tree proposes."""
        context = np.asarray(self.text[-self.trees.cache.max_tree_depth :], np.int32)
        draft = self.trees.cache.speculate(self.request, context, max_spec_tokens=k)
        return [int(token) for token in draft.token_ids]

    def finish(self) -> None:
        """Leaves the answer to the global tree."""
        self.trees.cache.stop_request(self.request)
