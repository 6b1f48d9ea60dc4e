"""Operators that hold graphs of their own, or run over a whole sequence, have their rows here."""

from __future__ import annotations

from .base import MS, Key, Operator

CONTROL: dict[Key, Operator] = {
    ("", "If"): Operator(tells={0: "branch"}, bodies=True, decides=0),
    ("", "Loop"): Operator(bodies=True, mixes=True),
    ("", "Scan"): Operator(bodies=True, mixes=True),
    ("", "SequenceMap"): Operator(bodies=True),
    # initial_h and initial_c become Y_h and Y_c (LSTM-22, GRU-22, RNN-22)
    ("", "GRU"): Operator(ends={5: 1}, mixes=True),
    ("", "LSTM"): Operator(ends={5: 1, 6: 2}, mixes=True),
    ("", "RNN"): Operator(ends={5: 1}, mixes=True),
    (MS, "DynamicQuantizeLSTM"): Operator(whole_scale=True, mixes=True),
}
