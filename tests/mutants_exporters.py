"""Mutations after mistakes of real exporters: axes, heads, layers, positions of a run, scales over a whole cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .mutant_edits import (
    FAR,
    FLOAT,
    Mutation,
    Op,
    did,
    given,
    on_hidden,
    on_logits,
    on_output,
    pasts,
    presents,
    row_axis,
    softmaxes,
    updates,
    wrap,
)
from .mutants_caches import inside
from .mutants_masks import on_mask, on_scores, positions, turned


def softmax_over(axis: int) -> Mutation:
    def mutate(model: ir.Model) -> bool:
        found = softmaxes(model)
        for node in found[:1]:
            node.attributes["axis"] = ir.AttrInt64("axis", axis)
        return bool(found)

    return mutate


def on_weights(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    """What a softmax gives becomes what ``build`` makes of it."""
    return lambda model: did([wrap(model, node.outputs[0], build) for node in softmaxes(model)[:1]])


def on_rows(build: Callable[[Op, ir.Value, int], ir.Value]) -> Mutation:
    """What attention reads of the first cache becomes what ``build`` makes of it; what leaves stays."""

    def mutate(model: ir.Model) -> bool:
        found = [n for n in updates(model) if n.op_type == "Concat" or n.op_type.startswith("Ctx")]
        return did(
            [wrap(model, n.outputs[0], lambda op, x, n=n: build(op, x, row_axis(n)), inside(model)) for n in found[:1]]
        )

    return mutate


def counted_from_one(model: ir.Model) -> bool:
    """Every count of positions, Range(past, past + S), begins one later."""
    done = False
    for node in [n for n in model.graph if n.op_type == "Range"]:
        for at in (0, 1):
            value = node.inputs[at]
            done |= value is not None and wrap(
                model, value, lambda op, x: op("Add", x, 1), lambda n, i, m=node, a=at: n is m and i == a
            )
    return done


def pasts_swapped(model: ir.Model) -> bool:
    """Two layers read each other's caches; what leaves stays."""
    found = pasts(model)
    if len(found) < 4:
        return False
    one, two = list(found[0].uses()), list(found[2].uses())
    for uses, value in ((one, found[2]), (two, found[0])):
        for node, index in uses:
            node.replace_input_with(index, value)
    return True


def presents_swapped(first: int, second: int) -> Mutation:
    """Two presents leave by each other's names."""

    def mutate(model: ir.Model) -> bool:
        found = presents(model)
        if len(found) <= max(first, second):
            return False
        one, two = found[first], found[second]
        names = one.name, two.name
        on_output(model, one, lambda op, x: op("Identity", two))
        on_output(model, two, lambda op, x: op("Identity", one))
        ours = {v.name: v for v in model.graph.outputs}
        assert all(name in ours for name in names)
        return True

    return mutate


def present_twice(model: ir.Model) -> bool:
    """The first layer's present leaves as the second layer's too."""
    found = presents(model)
    return len(found) > 2 and on_output(model, found[2], lambda op, x: op("Identity", found[0]))


def run_position(op: Op, x: ir.Value) -> ir.Value:
    """0, 1, 2 … of the run's tokens, ``[B, S, 1]``, whatever their positions are."""
    first = op("Slice", x, [0], [1], [2])
    return op("CumSum", op("Add", op("Mul", first, 0.0), 1.0), 1)


def hidden(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    return lambda model: on_hidden(model, build)


def logits(build: Callable[[Op, ir.Value], ir.Value]) -> Mutation:
    return lambda model: on_logits(model, build)


def row(op: Op, x: ir.Value, at: int, axis: int = 1) -> ir.Value:
    return op("Slice", x, [at], [at + 1 if at + 1 else FAR], [axis])


def positions_of_mask(model: ir.Model) -> bool:
    """Positions are the number of ones in the mask, less one: right for one token a run."""
    mask = given(model, "attention_mask")
    return mask is not None and positions(
        lambda op, x: op("Add", op("Mul", x, 0), op("Sub", op("ReduceSum", mask, [1], keepdims=1), 1))
    )(model)


def last_query(op: Op, x: ir.Value) -> ir.Value:
    """The last query's line of a mask moved by one row."""
    last = op("Slice", x, [-1], [FAR], [-2])
    moved = op("Concat", op("Slice", last, [1], [FAR], [-1]), op("Slice", last, [0], [1], [-1]), axis=-1)
    return op("Concat", op("Slice", x, [0], [-1], [-2]), moved, axis=-2)


def slopes(by_length: bool) -> Callable[[Op, ir.Value], ir.Value]:
    """ALiBi: scores fall with the distance of keys; ``by_length``: by their share of all keys."""

    def build(op: Op, x: ir.Value) -> ir.Value:
        keys = op("Cast", op("Squeeze", op("Slice", op("Shape", x), [3], [4])), to=FLOAT)
        numbers = op("Range", 0.0, keys, 1.0)
        return op("Add", x, op("Div", numbers, keys) if by_length else op("Mul", op("Sub", numbers, keys), 0.1))

    return build


def heads_rolled(op: Op, x: ir.Value, axis: int) -> ir.Value:
    return op("Concat", op("Slice", x, [1], [FAR], [1]), op("Slice", x, [0], [1], [1]), axis=1)


def over_tokens(op: Op, x: ir.Value) -> ir.Value:
    """Each channel over its norm along the run's tokens, as an instance norm computes it."""
    return op("Div", x, op("Add", op("ReduceL2", x, axes=[1], keepdims=1), 1.0))


def on_grid(axes: list[int]) -> Callable[[Op, ir.Value], ir.Value]:
    """Rounded to a grid whose scale is taken over ``axes`` of the hidden rows."""

    def build(op: Op, x: ir.Value) -> ir.Value:
        scale = op("Div", op("ReduceMax", op("Abs", x), axes=axes, keepdims=1), 127.0)
        return op("Mul", op("Round", op("Div", x, scale)), scale)

    return build


def rooted(op: Op, x: ir.Value, axis: int) -> ir.Value:
    """Rows over their root mean square along the rows."""
    return op("Div", x, op("Sqrt", op("Add", op("ReduceMean", op("Mul", x, x), axes=[axis], keepdims=1), 1.0)))


def pooled(op: Op, x: ir.Value) -> ir.Value:
    """The larger of each token and its neighbours."""
    turned_rows = op("Transpose", x, perm=[0, 2, 1])
    return op("Transpose", op("MaxPool", turned_rows, kernel_shape=[3], pads=[1, 1]), perm=[0, 2, 1])


EXPORTERS: dict[str, Mutation] = {
    "hidden rows over each channel's norm": hidden(over_tokens),
    "hidden rows on the run's grid": hidden(on_grid([0, 1, 2])),
    "hidden rows on grids of their own": hidden(on_grid([2])),
    "the largest of three tokens": hidden(pooled),
    "rows over their root mean square": on_rows(rooted),
    "rows times their softmax": on_rows(lambda op, x, a: op("Mul", x, op("Softmax", x, axis=a))),
    "scores over the root of the rows": on_scores(
        lambda op, x: op("Div", x, op("Sqrt", op("Cast", op("Slice", op("Shape", x), [3], [4]), to=FLOAT)))
    ),
    "weights summed up": on_weights(lambda op, x: op("CumSum", x, np.int64(3))),
    "mask moved for the last query": on_mask(last_query),
    "softmax over heads": softmax_over(1),
    "softmax over the batch": softmax_over(0),
    "weights normalized over queries": on_weights(
        lambda op, x: op("Div", x, op("Add", op("ReduceSum", x, [2], keepdims=1), 1.0))
    ),
    "weights less their mean": on_weights(lambda op, x: op("Sub", x, op("ReduceMean", x, axes=[3], keepdims=1))),
    "weights less their smallest": on_weights(lambda op, x: op("Sub", x, op("ReduceMin", x, axes=[3], keepdims=1))),
    "weights rounded": on_weights(lambda op, x: op("Div", op("Floor", op("Mul", x, 8.0)), 8.0)),
    "ALiBi": on_scores(slopes(False)),
    "ALiBi by length": on_scores(slopes(True)),
    "scores by the largest": on_scores(
        lambda op, x: op("Div", x, op("Add", op("Abs", op("ReduceMax", x, axes=[2, 3], keepdims=1)), 1.0))
    ),
    "scores of one head shifted": on_scores(
        lambda op, x: op(
            "Concat", op("Slice", x, [0], [1], [1]), op("Mul", op("Slice", x, [1], [FAR], [1]), 0.5), axis=1
        )
    ),
    "a query sees as the next one": on_scores(
        lambda op, x: op("Concat", op("Slice", x, [1], [FAR], [2]), op("Slice", x, [-1], [FAR], [2]), axis=2)
    ),
    "heads rolled": on_rows(heads_rolled),
    "rows less their mean": on_rows(lambda op, x, a: op("Sub", x, op("ReduceMean", x, axes=[a], keepdims=1))),
    "rows over their largest": on_rows(
        lambda op, x, a: op("Div", x, op("Add", op("ReduceMax", op("Abs", x), axes=[a], keepdims=1), 1.0))
    ),
    "rows over the largest of their own": on_rows(
        lambda op, x, a: op("Div", x, op("Add", op("ReduceMax", op("Abs", x), axes=[3], keepdims=1), 1.0))
    ),
    "rows less the first": on_rows(lambda op, x, a: op("Sub", x, op("Slice", x, [0], [1], [a]))),
    "rows less the last": on_rows(lambda op, x, a: op("Sub", x, op("Slice", x, [-1], [FAR], [a]))),
    "rows summed up": on_rows(lambda op, x, a: op("CumSum", x, a)),
    "counted from one": counted_from_one,
    "rotary by the run": turned(lambda op, x: op("Sub", x, op("ReduceMin", x, keepdims=1))),
    "rotary of a constant": turned(lambda op, x: op("Mul", x, 0)),
    "rotary of the last position": turned(lambda op, x: op("Add", op("Mul", x, 0), op("ReduceMax", x, keepdims=1))),
    "positions all the last": positions(lambda op, x: op("Add", op("Mul", x, 0), op("ReduceMax", x, keepdims=1))),
    "positions of the mask": positions_of_mask,
    "caches of two layers swapped": pasts_swapped,
    "presents of two layers swapped": presents_swapped(0, 2),
    "key and value leave swapped": presents_swapped(0, 1),
    "a present leaves twice": present_twice,
    "place in the run in the hidden rows": hidden(lambda op, x: op("Add", x, op("Mul", run_position(op, x), 0.1))),
    "hidden rows over the run's norm": hidden(
        lambda op, x: op("Div", x, op("ReduceL2", x, axes=[1, 2], keepdims=1))
    ),
    "hidden rows less the run's last": hidden(lambda op, x: op("Sub", x, row(op, x, -1))),
    "softmax over tokens": hidden(lambda op, x: op("Mul", x, op("Softmax", x, axis=1))),
    "logits of the first token": logits(lambda op, x: op("Add", op("Mul", x, 0.0), row(op, x, 0))),
    "logits of the last token": logits(lambda op, x: op("Add", op("Mul", x, 0.0), row(op, x, -1))),
    "logits of the token before": logits(
        lambda op, x: op("Concat", row(op, x, -1), op("Slice", x, [0], [-1], [1]), axis=1)
    ),
    "logits less the run's mean": logits(lambda op, x: op("Sub", x, op("ReduceMean", x, axes=[1], keepdims=1))),
    "logits of a softmax over tokens": logits(lambda op, x: op("Softmax", x, axis=1)),
    "logits and the place in the run": logits(lambda op, x: op("Add", x, op("Mul", run_position(op, x), 0.1))),
}  # fmt: skip
"""Kinds of mutation, by name; some leave another sound model."""
