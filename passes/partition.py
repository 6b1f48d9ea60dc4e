"""partition spreads the program over devices, by slicing every tensor or as a pipeline of stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..ir.interface.analysis import analysis_of
from ..ir.manifests.partition import PARTITION, pipeline, tensor_slices
from ..ir.manifests.stages import Stages, split_stages
from ..ir.manifests.strict import dump_json
from ..ir.program.program import Program
from .base import Pass, Report


@dataclass(frozen=True)
class Partition(Pass):
    """Writes the file that tells the compiler which device runs what; no graph changes.

    Before → after::

        model.onnx, 4 devices, 1 stage      →   partition.json: one partition, tensors sliced over 4 devices
        model.onnx, 4 devices, 2 stages     →   partition.json: two partitions of 2 devices, each with its nodes

    1. Layers are found by the dataflow: a layer begins after the last value through which everything goes on to the
       next layer's states. Names only confirm; those that tell another stage are counted.
    2. What depends on no state (embeddings, masks, constants) goes to the first stage that uses it.
    3. A program of several graphs gets ``<graph>.partition.json`` each.

    Refused: fewer layers than stages, nodes without names.

    Attributes:
        devices: How many devices there are.
        stages: How many stages the pipeline has; 1 slices tensors instead.
        cores: Cores of each device.
    """

    name: ClassVar[str] = "partition"

    devices: int
    stages: int = 1
    cores: int = 16

    def run(self, program: Program) -> Report:
        """Adds one file a graph to what a save writes."""
        made = {graph: self._content(program, graph) for graph in program.names}
        several = len(program.names) > 1
        for graph, (content, _) in made.items():
            program.artifacts[f"{graph}.{PARTITION}" if several else PARTITION] = dump_json(content)
        warnings = [_dispute(graph, stages) for graph, (_, stages) in made.items() if stages and stages.disputed]
        counts = {"files": len(made), "nodes": sum(len(n) for _, s in made.values() if s for n in s.nodes)}
        return Report(modified=True, counts=counts, warnings=tuple(warnings))

    def _content(self, program: Program, graph: str) -> tuple[dict[str, Any], Stages | None]:
        if self.stages == 1:
            return tensor_slices(self.devices, self.cores), None
        pipeline(self.devices, self.cores, [[] for _ in range(self.stages)])  # counts that cannot be, before the work
        model, _ = program.resolve(graph)
        stages = split_stages(model, analysis_of(model).states, self.stages)
        return pipeline(self.devices, self.cores, stages.nodes), stages


def _dispute(graph: str, stages: Stages) -> str:
    count, first = len(stages.disputed), stages.disputed[0]
    return f"{graph}: {count} nodes lie on another stage than their names tell, the first {first!r}"
