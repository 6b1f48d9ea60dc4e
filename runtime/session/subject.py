"""A subject is a graph under verification with what is known of it: states, roles of inputs, sizes that it fixes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.operators import of
from ...ir.interface.analysis import analysis_of
from ...ir.interface.roles import Role, find_tables
from ...ir.interface.usage import origins
from ...ir.states import Pairing, State
from ...ir.symbolic.dims import parse

GUESSES = (8, 1, 16, 3000)  # tried in turn for a symbol that no role explains


@dataclass(eq=False)
class Subject:
    """A graph with what is known of its inputs; found once, used for every case."""

    model: ir.Model
    name: str
    states: list[State]
    roles: dict[str, Role]
    tables: dict[str, int]
    images: ImageSizes
    guess: int = GUESSES[0]
    pads_by_position: bool = False
    by_input: dict[str, State] = field(default_factory=dict[str, State])

    @classmethod
    def of(cls, model: ir.Model, name: str) -> Subject:
        """Finds states, roles and the sizes that constants fix."""
        known = analysis_of(model)
        states, roles = known.states, dict(known.roles)
        by_input = {state.input.name or "": state for state in states if state.input is not None}
        tables = find_tables(model)
        images = ImageSizes.of(model, [value for value in model.graph.inputs if roles[value.name or ""] is Role.PIXELS])
        subject = cls(model, name, states, roles, tables, images, by_input=by_input)
        written = subject.written_at
        subject.pads_by_position = written is not None and written.shape is not None and len(written.shape) > 1
        return subject

    def inputs(self, role: Role) -> list[ir.Value]:
        """The graph inputs of this role."""
        return [value for value in self.model.graph.inputs if self.roles[value.name or ""] is role]

    @property
    def written_at(self) -> ir.Value | None:
        """The positions input that says where caches are written, if any."""
        inputs = self.inputs(Role.POSITIONS)
        written = [s for s in self.states if s.in_place and s.pairing is Pairing.BOTH]
        if any(s.positions is None and not s.starts_at_zero for s in written):  # in a function: where from is unknown
            return inputs[0] if inputs and not self.masks else None
        sources = origins(state.positions for state in written)
        return next((value for value in inputs if value in sources), None)

    @property
    def masks(self) -> bool:
        """True where an input tells padding."""
        return bool(self.inputs(Role.ATTENTION_MASK))

    @property
    def takes_length(self) -> bool:
        """True where the number of tokens shows in some input."""
        counted = (Role.TOKEN_IDS, Role.EMBEDDINGS, Role.POSITIONS, Role.ATTENTION_MASK)
        return any(role in counted for role in self.roles.values())

    def is_start(self, value: ir.Value) -> bool:
        """True for an input that tells where each row's new rows are written from, one number a row, and no more."""
        rank = len(value.shape) if value.shape is not None else 0
        if rank != 1 or self.roles[value.name or ""] is not Role.OTHER:
            return self.roles[value.name or ""] is Role.POSITIONS and starts_each_row(self, value)
        return value in origins(state.positions for state in self.states)

    def fixed(self, axis: int) -> int | None:
        """The batch (axis 0) or length (axis 1) that tokens or positions are declared with, if a number."""
        for role, offset in ((Role.TOKEN_IDS, 0), (Role.EMBEDDINGS, 0), (Role.POSITIONS, -2)):
            for value in self.inputs(role):
                shape = value.shape
                at = axis if offset == 0 else axis + offset
                if shape is not None and len(shape) >= 2 and (size := static(shape[at])) is not None:
                    return size
        return None

    @property
    def capacity(self) -> int | None:
        """The fixed number of rows of caches that are written in place, the smallest where they differ."""
        sizes = [static(dim_of(s, s.axis)) for s in self.states if s.in_place and s.axis is not None]
        return min((size for size in sizes if size is not None), default=None)


def starts_each_row(subject: Subject, value: ir.Value) -> bool:
    """True for positions of one axis that counts sequences: where the new rows of each of them begin."""
    tokens = [v for role in (Role.TOKEN_IDS, Role.EMBEDDINGS) for v in subject.inputs(role) if len(v.shape or ()) > 1]
    dims = [(v.shape[0], v.shape[1]) for v in tokens if v.shape is not None]
    own = value.shape[0] if value.shape is not None and len(value.shape) == 1 else None
    return own is not None and any(str(own) == str(batch) and str(batch) != str(length) for batch, length in dims)


def static(dim: int | ir.SymbolicDim | None) -> int | None:
    """The number a dimension is declared with ("2" as a symbol's name included), or None."""
    if isinstance(dim, ir.SymbolicDim):
        value = parse(dim.value) if dim.value else None
        return value if isinstance(value, int) else None
    return dim


def dim_of(state: State, axis: int) -> int | ir.SymbolicDim | None:
    """One dimension of the state's input, as declared; None where it has none."""
    shape = state.input.shape if state.input is not None else None
    return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None


@dataclass(frozen=True)
class ImageSizes:
    """What the patch embedding's weight fixes: channels by kernel for flat patches, and the kernel itself."""

    patch: int = 0
    kernel: tuple[int, ...] = ()
    channels: int = 3

    @classmethod
    def of(cls, model: ir.Model, pixels: list[ir.Value]) -> ImageSizes:
        """Looks for the first Conv or MatMul weight that the pixels meet."""
        work, seen = list(pixels), set[ir.Value]()
        while work:
            value = work.pop(0)
            for use in value.uses():
                weight = (
                    use.node.inputs[1].shape if len(use.node.inputs) > 1 and use.node.inputs[1] is not None else None
                )
                product = of(use.node).product
                if product is None or product.rows is None or weight is None or not weight.is_static():
                    pass
                elif product.slides:
                    sizes = [int(size) for size in weight.numpy()]
                    return cls(int(np.prod(sizes[1:])), tuple(sizes[2:]), sizes[1])
                else:
                    return cls(int(weight.numpy()[0]))
                work.extend(output for output in use.node.outputs if output not in seen)
                seen.update(use.node.outputs)
        return cls()
