"""The search for states reads these columns of the table of operators: of those that carry a state inside them."""

from __future__ import annotations

from ..core.operators import Key, Port, names, where

__all__ = ["Port"]

PORTS: dict[Key, tuple[Port, ...]] = {key: row.carries for key, row in where(lambda row: row.carries).items()}
"""Which operand is the past, which result the present."""

RECURRENT = names(lambda row: row.fixed_size, None)
"""Operators whose state has a fixed size and starts as zeros, where the others start with length 0."""

PAGED = names(lambda row: row.paged, None)
"""Operators whose cache is a pool of blocks for all texts: no axis of it grows with one."""

GROWING_AXIS: dict[Key, int] = {key: row.row_axis for key, row in where(lambda row: row.row_axis != 2).items()}
"""The axis on which the state grows, where it is not axis 2 of [B, H, P, D]."""

CACHE_ATTRIBUTES = {key: row.cache_attributes for key, row in where(lambda row: row.cache_attributes).items()}
"""Attributes that speak of the cache and go with it: with them and no past the operator fails at run time."""

KEY_VALUE_INPUTS = {key: row.key_value for key, row in where(lambda row: row.key_value).items() if row.key_value}
"""Where an attention operator takes its new key and value."""

MASK_INPUTS: dict[Key, tuple[int, ...]] = {key: row.masks for key, row in where(lambda row: row.masks).items()}
"""Where an attention operator takes what hides keys: a mask of keys, or what is added to the scores."""

NEEDS_CACHE = names(lambda row: row.needs_cache, None)
"""Operators that decode one token against a cache; without one they compute nothing useful."""

SHARES_BUFFER = names(lambda row: row.shares_buffer, None)
"""Attentions that write the new rows into the past they were given."""
