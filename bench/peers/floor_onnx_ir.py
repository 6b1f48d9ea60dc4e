"""The floor of any tool on onnx_ir: load and save. ``IN OUT [--collector-off]``.

With the collector off it also leaves without tearing the graph down, which is as fast as onnx_ir can be.
"""

import gc
import os
import sys

import onnx_ir as ir

source, target = sys.argv[1:3]
collector_off = "--collector-off" in sys.argv
if collector_off:
    gc.freeze()
    gc.disable()
ir.save(ir.load(source), target)
if collector_off:
    os._exit(0)
