"""Kinds of structural mutation: each changes what a graph does with its caches, masks, positions or lengths."""

from __future__ import annotations

import numpy as np

from . import mutants_caches as caches
from . import mutants_masks as masks
from . import mutants_numbers as numbers
from .mutant_edits import FAR, Mutation, on_hidden, on_logits, on_output, presents
from .mutants_exporters import EXPORTERS

KINDS: dict[str, Mutation] = {
    "new before past": caches.each_update(caches.swap),
    "new before past, once": caches.each_update(caches.swap, first=True),
    "past reversed": caches.each_update(caches.on_old(caches.reverse)),
    "past rolled": caches.each_update(caches.on_old(caches.rolled)),
    "past scaled": caches.each_update(caches.on_old(caches.scale)),
    "past rounded": caches.each_update(caches.on_old(caches.half)),
    "past doubled and halved": caches.each_update(caches.on_old(caches.twice)),
    "new rows reversed": caches.each_update(caches.on_new(caches.reverse)),
    "new rows scaled": caches.each_update(caches.on_new(caches.scale)),
    "new rows rolled": caches.each_update(caches.on_new(caches.rolled)),
    "new rows rounded": caches.each_update(caches.on_new(caches.half)),
    "rows picked by beam": caches.beam,
    "read before write": caches.each_update(caches.read_before_write),
    "read before write, once": caches.each_update(caches.read_before_write, first=True),
    "cache in half precision": caches.half_cache,
    "comparison flipped": masks.compares(masks.FLIPPED),
    "comparison strict": masks.compares(masks.STRICT),
    "comparison inverted": masks.on_mask(lambda op, x: op("Not", x)),
    "left side + 1": masks.on_compare(0, lambda op, x: op("Add", x, 1)),
    "left side - 1": masks.on_compare(0, lambda op, x: op("Sub", x, 1)),
    "right side + 1": masks.on_compare(1, lambda op, x: op("Add", x, 1)),
    "right side + 1, once": masks.on_compare(1, lambda op, x: op("Add", x, 1), every=False),
    "left side halved": masks.on_compare(0, lambda op, x: op("Div", x, 2)),
    "right side halved": masks.on_compare(1, lambda op, x: op("Div", x, 2)),
    "left side doubled": masks.on_compare(0, lambda op, x: op("Mul", x, 2)),
    "left side of a remainder": masks.on_compare(0, lambda op, x: op("Mod", x, 4)),
    "right side of at least 3": masks.on_compare(1, lambda op, x: op("Max", x, 3)),
    "right side of at most 9": masks.on_compare(1, lambda op, x: op("Min", x, 9)),
    "nothing compared": masks.on_mask(lambda op, x: op("Or", x, op("Not", x))),
    "everything hidden or shown": masks.on_mask(lambda op, x: op("And", x, op("Not", x))),
    "row numbers from 1": masks.bounds,
    "row numbers + 1": masks.on_ranges(lambda op, x: op("Add", x, 1)),
    "row numbers stretched": masks.on_ranges(lambda op, x: op("Mul", x, 2)),
    "row numbers reversed": masks.on_ranges(lambda op, x: op("Slice", x, [-1], [-FAR], [0], [-1])),
    "no mask": masks.unmasked,
    "weak mask": masks.soft,
    "softmax over queries": masks.wrong_axis,
    "scores scaled by length": masks.on_scores(numbers.scaled_scores),
    "scores of the first row raised": masks.on_scores(
        lambda op, x: op(
            "Concat", op("Mul", op("Slice", x, [0], [1], [3]), 0.5), op("Slice", x, [1], [FAR], [3]), axis=3
        )
    ),
    "scores clipped": masks.on_scores(lambda op, x: op("Max", x, -5.0)),
    "read index flipped": masks.reading(masks.FLIPPED),
    "read index strict": masks.reading(masks.STRICT),
    "read index + 1": masks.read_at(lambda op, x: op("Add", x, 1)),
    "read index reversed": masks.read_at(lambda op, x: op("Slice", x, [-1], [-FAR], [2], [-1])),
    "read index halved": masks.read_at(lambda op, x: op("Div", x, 2)),
    "written at max(p - 1, 0)": masks.written_at(lambda op, x: op("Max", op("Sub", x, 1), 0)),
    "written at p + 1": masks.written_at(lambda op, x: op("Add", x, 1)),
    "written at p / 2": masks.written_at(lambda op, x: op("Div", x, 2)),
    "written at 2 p": masks.written_at(lambda op, x: op("Mul", x, 2)),
    "written at p mod 8": masks.written_at(lambda op, x: op("Mod", x, 8)),
    "written at min(p, 9)": masks.written_at(lambda op, x: op("Min", x, 9)),
    "positions max(p - 1, 0)": masks.positions(lambda op, x: op("Max", op("Sub", x, 1), 0)),
    "positions + 1": masks.positions(lambda op, x: op("Add", x, 1)),
    "positions / 2": masks.positions(lambda op, x: op("Div", x, 2)),
    "positions mod 8": masks.positions(lambda op, x: op("Mod", x, 8)),
    "positions reversed": masks.positions(lambda op, x: op("Slice", x, [-1], [-FAR], [-1], [-1])),
    "positions from 0 in each run": masks.positions(lambda op, x: op("Sub", x, op("ReduceMin", x, keepdims=1))),
    "rotary positions + 1": masks.turned(lambda op, x: op("Add", x, 1)),
    "largest position in the logits": numbers.of_input("position_ids", numbers.most),
    "number of tokens in the logits": numbers.of_input("input_ids", numbers.tokens),
    "mask's length in the logits": numbers.of_input("attention_mask", numbers.tokens),
    "mean over tokens": numbers.over_tokens(lambda op, x: op("Add", x, op("ReduceMean", x, axes=[1], keepdims=1))),
    "sum over tokens": numbers.over_tokens(lambda op, x: op("CumSum", x, np.int64(1))),
    "largest over tokens": numbers.over_tokens(lambda op, x: op("Add", x, op("ReduceMax", x, axes=[1], keepdims=1))),
    "tokens reversed": numbers.over_tokens(lambda op, x: op("Slice", x, [-1], [-FAR], [1], [-1])),
    "first token everywhere": numbers.over_tokens(lambda op, x: op("Add", x, op("Slice", x, [0], [1], [1]))),
    "token before": numbers.over_tokens(
        lambda op, x: op("Add", x, op("Concat", op("Slice", x, [0], [1], [1]), op("Slice", x, [0], [-1], [1]), axis=1))
    ),
    "extra counter": caches.extra_state(caches.counter, [1]),
    "extra running mean": caches.extra_state(caches.running, [1, 4]),
    "counter of runs": caches.int_counter,
    "past leaves": caches.past_leaves,
    "present scaled": lambda m: on_output(m, presents(m)[0], lambda op, x: op("Mul", x, 0.5)) if presents(m) else False,
    "a present is lost": caches.lost,
    "optional weight": caches.optional,
} | EXPORTERS | {
    f"{what} of the {which} in the {where}": numbers.of_cache(which, what, place)
    for which in ("past", "present")
    for what in numbers.NUMBERS
    for where, place in (("logits", on_logits), ("hidden rows", on_hidden))
    if which == "past" or where == "logits"  # what attention has not computed yet
}  # fmt: skip
"""Kinds of mutation, by name."""
