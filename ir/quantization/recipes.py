"""The recipes that are shipped, as they would be written in a file."""

from __future__ import annotations

from collections.abc import Mapping

RECIPES: Mapping[str, str] = {
    "a16w8kv8": """\
recipe: 1
about: 16-bit activations, 8-bit weights a channel, caches of 8 bits
rules:
- weights: {bits: 8, granularity: channel, symmetry: symmetric}
  activations: {bits: 16, symmetry: asymmetric}
- caches: {bits: 8}
  optional: true
""",
    "a16w4b32": """\
recipe: 1
about: 16-bit activations, 4-bit weights in blocks of 32 inputs, head and caches of 8 bits
rules:
- weights: {bits: 4, granularity: block 32, symmetry: symmetric, method: mse}
  activations: {bits: 16, symmetry: asymmetric}
- where: {roles: [head]}
  weights: {bits: 8, granularity: channel, method: minmax}
  optional: true
- caches: {bits: 8}
  optional: true
""",
    "a8w8": """\
recipe: 1
about: 8 bits everywhere, ranges of activations as the calibration chooses them for 8 bits
rules:
- weights: {bits: 8, granularity: channel, symmetry: symmetric}
  activations: {bits: 8, symmetry: asymmetric}
- caches: {bits: 8}
  optional: true
""",
    "w4-only": """\
recipe: 1
about: 4-bit weights in blocks of 32 inputs, an 8-bit head, everything computed in float; needs no ranges
rules:
- weights: {bits: 4, granularity: block 32, symmetry: symmetric, method: mse}
- where: {roles: [head]}
  weights: {bits: 8, granularity: channel, method: minmax}
  optional: true
""",
    "qnn-htp": """\
recipe: 1
about: As QNN's HTP takes it, 16-bit activations, 8-bit weights a channel, symmetric 8-bit caches
rules:
- weights: {bits: 8, granularity: channel, symmetry: symmetric}
  activations: {bits: 16, symmetry: asymmetric}
- caches: {bits: 8}
  optional: true
""",
    "ort-cpu": """\
recipe: 1
about: As onnxruntime's CPU kernels are exact on any machine, unsigned 8 bits on both sides, caches in float
rules:
- weights: {bits: 8, granularity: tensor, symmetry: asymmetric}
  activations: {bits: 8, symmetry: asymmetric}
""",
}
"""Name -> YAML. ort-cpu: signed weights saturate without VNNI in onnxruntime's U8S8 kernels (1.32); U8U8 does not."""
