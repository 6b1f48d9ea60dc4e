"""Tokens are drawn from logits: the likeliest within bounds, by one random number a row, as the host draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..builder import Builder

BOOL, FLOAT, DOUBLE = ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.DOUBLE
INT32, INT64 = ir.DataType.INT32, ir.DataType.INT64
LOWEST = float(np.finfo(np.float32).min)
WORD = 32  # tokens a word of a bitmask
BITWISE = 18  # the opset of BitwiseAnd


@dataclass(eq=False)
class Bounds:
    """The inputs of a draw, ``[batch, 1]`` each, and the random numbers ``[batch, rows]``."""

    temperatures: ir.Value
    top_ks: ir.Value
    top_ps: ir.Value
    min_ps: ir.Value
    numbers: ir.Value


class Draw:
    """Writes the draw of one graph; sums in ``dtype``."""

    def __init__(self, builder: Builder, dtype: ir.DataType, top_k: int) -> None:
        self.build, self.dtype, self.top_k = builder, dtype, top_k

    def _truth(self, op_type: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
        return self.build.op(op_type, inputs, name, None, None, BOOL)

    def _real(self, op_type: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
        return self.build.op(op_type, inputs, name, None, None, FLOAT)

    def _sum(self, op_type: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
        return self.build.op(op_type, inputs, name, None, None, self.dtype)

    def _ints(self, value: ir.Value, name: str) -> ir.Value:
        return self.build.op("Cast", [value], name, {"to": int(INT64)})

    def _float(self, number: float, name: str, dtype: ir.DataType | None = None) -> ir.Value:
        kind = dtype or self.dtype
        array = np.asarray(number, kind.numpy())
        return self.build.share((str(kind), number), lambda: self.build.constant(ir.Tensor(array), name))

    def _wide(self, value: ir.Value, name: str) -> ir.Value:
        """A bound ``[batch, 1]`` as ``[batch, 1, 1]`` in the type of the sums."""
        return self.build.cast(self.build.unsqueeze(value, [2], f"{name}/row"), self.dtype, f"{name}/wide")

    def masked(self, logits: ir.Value, bitmasks: ir.Value, vocabulary: int) -> ir.Value:
        """The lowest number where a token's bit is 0; bit ``j`` of word ``i`` is token ``32 i + j``."""
        build = self.build
        off = self._bits_off(build.unsqueeze(bitmasks, [3], "words"))
        flat = self._truth("Reshape", [off, build.ints([0, 0, -1], "flat")], "tokens/off")
        if vocabulary % WORD:
            ends = [build.ints([number], f"{number}") for number in (0, vocabulary, 2)]
            flat = self._truth("Slice", [flat, *ends], "tokens/masked")
        return self._real("Where", [flat, self._float(LOWEST, "lowest", FLOAT), logits], "masked")

    def _bits_off(self, words: ir.Value) -> ir.Value:
        """BOOL: which of the 32 bits of each word are 0; before opset 18, which brought BitwiseAnd, by division."""
        op, build = self.build.op, self.build
        if build.graph.opset_imports.get("", 0) >= BITWISE:
            bits = build.constant(ir.Tensor(np.left_shift(np.int32(1), np.arange(WORD, dtype=np.int32))), "bits")
            found = op("BitwiseAnd", [words, bits], "words/bits", None, None, INT32)
            return self._truth(
                "Equal", [found, build.constant(ir.Tensor(np.asarray(0, np.int32)), "no_bit")], "words/off"
            )
        whole = op("Mod", [self._ints(words, "words/int64"), build.ints(1 << WORD, "wrap")], "words/unsigned")
        moved = op("Div", [whole, build.ints([1 << at for at in range(WORD)], "bits")], "words/moved")
        found = op("Mod", [moved, build.ints(2, "two")], "words/bits")
        return self._truth("Equal", [found, build.ints(0, "zero")], "words/off")

    def tokens(self, logits: ir.Value, bounds: Bounds) -> tuple[ir.Value, ir.Value, ir.Value]:
        """INT64 ``[batch, rows]``: the drawn tokens; then ids and weights ``[batch, rows, k]`` of the likeliest."""
        op, build = self.build.op, self.build
        k = build.ints([self.top_k], "k")
        values, ids = build.ops("TopK", [logits, k], "likeliest", 2, {"axis": -1})
        values.type, ids.type = ir.TensorType(FLOAT), ir.TensorType(INT64)
        warm = self._truth("Greater", [bounds.temperatures, self._float(0, "cold", FLOAT)], "warm")
        weights = self._weights(values, bounds, warm)
        likeliest = op("Gather", [ids, build.ints(0, "zero")], "greedy", {"axis": 2})
        chosen = self._chosen(ids, weights, bounds)
        return op("Where", [warm, chosen, likeliest], "drawn"), ids, weights

    def _weights(self, values: ir.Value, bounds: Bounds, warm: ir.Value) -> ir.Value:
        """The likeliest tokens' weights, the first of them 1, those out of bounds 0; with temperature 0 the first's."""
        op, build, dtype = self.build.op, self.build, self.dtype
        heat = self._real("Where", [warm, bounds.temperatures, self._float(1, "one/float", FLOAT)], "heat")
        wide = build.cast(values, dtype, "values")
        top = op("Gather", [wide, build.ints([0], "first")], "top", {"axis": 2}, None, dtype)
        below = op(
            "Div",
            [self._sum("Sub", [wide, top], "below"), self._wide(heat, "heat")],
            "scaled",
            None,
            None,
            dtype,
        )
        weights = self._sum("Exp", [below], "weights")
        weights = self._within(weights, self._first_k(bounds.top_ks, warm), "top_k")
        total = self._sum("ReduceSum", [weights, build.axes([2])], "total")
        share = self._sum("Mul", [self._wide(bounds.top_ps, "top_p"), total], "top_p/share")
        before = op("CumSum", [weights, build.ints(2, "axis")], "top_p/before", {"exclusive": 1}, None, dtype)
        under = self._truth("Less", [before, share], "top_p/under")
        whole = op(
            "GreaterOrEqual",
            [self._wide(bounds.top_ps, "top_p"), self._float(1, "one")],
            "top_p/whole",
            None,
            None,
            BOOL,
        )
        weights_p = self._truth("Or", [under, whole], "top_p/kept")
        least = self._truth("GreaterOrEqual", [weights, self._wide(bounds.min_ps, "min_p")], "min_p/kept")
        return self._within(weights, self._truth("And", [weights_p, least], "kept"), "bounded")

    def _first_k(self, top_ks: ir.Value, warm: ir.Value) -> ir.Value:
        """BOOL ``[batch, 1, k]``: the first ``top_ks``, all for 0; only the first with temperature 0."""
        op, build = self.build.op, self.build
        most = build.ints(self.top_k, "most")
        asked = op("Cast", [top_ks], "top_k/asked", {"to": int(INT64)})
        some = self._truth("Greater", [asked, build.ints(0, "zero")], "top_k/some")
        count = op(
            "Where", [warm, op("Where", [some, asked, most], "top_k/count"), build.ints(1, "single")], "top_k/used"
        )
        order = build.ints(list(range(self.top_k)), "order")
        return self._truth("Less", [order, build.unsqueeze(count, [2], "top_k/row")], "top_k/kept")

    def _within(self, weights: ir.Value, kept: ir.Value, name: str) -> ir.Value:
        return self.build.op(
            "Where", [kept, weights, self._float(0, "no_weight")], f"{name}/weights", None, None, self.dtype
        )

    def _chosen(self, ids: ir.Value, weights: ir.Value, bounds: Bounds) -> ir.Value:
        """The token whose share of the weights, in the order of ids, holds the random number."""
        op, build, dtype = self.build.op, self.build, self.dtype
        k = build.ints([self.top_k], "k")
        sorted_ids, order = build.ops("TopK", [ids, k], "by_id", 2, {"axis": -1, "largest": 0})
        sorted_ids.type, order.type = ir.TensorType(INT64), ir.TensorType(INT64)
        ordered = op("GatherElements", [weights, order], "by_id/weights", {"axis": 2}, None, dtype)
        edges = self._sum("CumSum", [ordered, build.ints(2, "axis")], "edges")
        end = op("Gather", [edges, build.ints([self.top_k - 1], "last")], "edges/end", {"axis": 2}, None, dtype)
        number = build.cast(build.unsqueeze(bounds.numbers, [2], "number"), dtype, "number/wide")
        if dtype is FLOAT:  # a product that is rounded up to the end itself would lie behind every token
            number = self._sum("Min", [number, self._float(1 - 2.0**-23, "below_one")], "number/below")
        place = self._sum("Mul", [number, end], "place")
        passed = self._truth("LessOrEqual", [edges, place], "passed")
        at = op("ReduceSum", [op("Cast", [passed], "passed/count", {"to": int(INT64)}), build.axes([2])], "at")
        at = op("Min", [at, build.ints(self.top_k - 1, "behind")], "at/most")  # a number that is none below 1
        token = op("GatherElements", [sorted_ids, at], "token", {"axis": 2})
        return op("Squeeze", [token, build.axes([2])], "chosen")

    def probabilities(self, ids: ir.Value, weights: ir.Value, logits: ir.Value) -> ir.Value:
        """FLOAT ``[batch, rows, V]``: what is drawn from."""
        op, build = self.build.op, self.build
        total = self._sum("ReduceSum", [weights, build.axes([2])], "weights/total")
        parts = build.cast(self._sum("Div", [weights, total], "parts"), FLOAT, "parts/float")
        shape = op("Shape", [logits], "probs/shape")
        zero = ir.Tensor(np.zeros(1, np.float32), name="value")
        empty = op("ConstantOfShape", [shape], "probs/empty", {"value": zero}, None, FLOAT)
        return op("ScatterElements", [empty, ids, parts], "probs", {"axis": 2}, None, FLOAT)

    def accepted(
        self, tokens: ir.Value, ids: ir.Value, positions: ir.Value | None, rows: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """INT64 ``[batch, 1]`` twice: how many proposals stand, and the token behind the last that does.

        A proposal that was no draw of its own stands where the target draws the same: the tokens then follow the
        target's distribution, whatever proposed them (arXiv 2211.17192 with a point mass as the draft's distribution).
        """
        op, build = self.build.op, self.build
        one, end, minus = build.ints([1], "one"), build.dims([(rows, 1)], "rows"), build.ints([-1], "but_last")
        proposals = op("Slice", [ids, one, end, one], "accept/proposals")
        answers = op("Slice", [tokens, build.ints([0], "start"), minus, one], "accept/answers")
        same = self._truth("Equal", [proposals, answers], "accept/same")
        if positions is not None:
            there = op(
                "GreaterOrEqual",
                [op("Slice", [positions, one, end, one], "accept/positions"), build.ints(0, "zero")],
                "accept/there",
                None,
                None,
                BOOL,
            )
            same = self._truth("And", [same, there], "accept/stand")
        wrong = self._ints(self._truth("Not", [same], "accept/wrong"), "accept/misses")
        missed = op("CumSum", [wrong, build.ints(1, "along")], "accept/missed")
        stands = op(
            "Cast",
            [self._truth("Equal", [missed, build.ints(0, "zero")], "accept/none")],
            "accept/ones",
            {"to": int(INT64)},
        )
        count = op("ReduceSum", [stands, one], "accept/count", {"keepdims": 1})
        return count, op("GatherElements", [tokens, count], "accept/next", {"axis": 1})
