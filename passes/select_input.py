"""select-input fixes a graph input of numbers or truth values, and what it decides is folded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ..ir.core.errors import PassRefused, UnknownNameError, UsageError
from ..ir.program.contracts.interface import FixedSwitch
from ..ir.rewrite.fix_input import fix_input
from .base import GraphResult, Pass
from .simplify import Simplify

_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True)
class SelectInput(Pass):
    """Fixes a graph input to a constant, inlines the branches that this decides, and simplifies what follows.

    Before → after::

        sr: int64[]                                           (input gone)
        y = If(Equal(sr, 16000), then=…, else=…)     →        y = (the nodes of the branch taken)

    1. Integer, float and bool inputs; a bool input takes true or false.
    2. One value fills the input's shape; as many values as it has elements are its content in row-major order.
    3. Inputs that only a branch not taken used go with it.

    Left alone: every If that the input does not decide. Refused: a symbolic dimension of the input (bind it first),
    a value that its element type does not hold, an input that is a graph output too. See select-branch for one that
    must decide a branch.

    Attributes:
        input: The name of the input.
        value: One value, or one for each element.
    """

    name: ClassVar[str] = "select-input"

    input: str
    value: tuple[str, ...]

    def call(self, model: ir.Model) -> GraphResult:
        """Fixes the input of one graph; raises PassRefused where its shape is not known or it is an output too."""
        fixed = self._find(model)
        values = tuple(self._parsed(text, fixed) for text in self.value)
        content = self._content(values, fixed)
        used = {id(value) for value in model.graph.inputs if value.uses()}
        inlined = fix_input(model, fixed, content, self.name)
        folded = Simplify().call(model).counts
        idle = [value for value in model.graph.inputs if id(value) in used and not value.uses() and value is not fixed]
        idle = [value for value in idle if not value.is_graph_output()]
        gone = {id(value) for value in (*idle, fixed)}
        model.graph.inputs[:] = [value for value in model.graph.inputs if id(value) not in gone]
        notes = (f"inputs that nothing reads any more are gone: {', '.join(str(v.name) for v in idle)}",)
        return GraphResult(
            model,
            True,
            counts={**folded, "branches": inlined + folded.get("branches", 0), "inputs": len(gone)},
            notes=notes if idle else (),
            contracts=(FixedSwitch(self.input, values[0] if len(values) == 1 else values),),
        )

    def _find(self, model: ir.Model) -> ir.Value:
        for value in model.graph.inputs:
            if value.name == self.input:
                if value.is_graph_output():
                    raise PassRefused(
                        f"input {self.input!r} is a graph output too",
                        where=f"{self.name}, graph {model.graph.name!r}",
                        wanted="an input that only nodes read",
                        hint="Take it off the graph's outputs first.",
                    )
                return value
        names = [str(value.name) for value in model.graph.inputs]
        raise UnknownNameError(
            "input", self.input, names, where=self.name, hint=f"The graph has {', '.join(names) or 'none'}."
        )

    def _parsed(self, text: str, fixed: ir.Value) -> bool | int | float:
        """The value that ``text`` spells in the input's element type; UsageError where it holds no such value."""
        dtype = fixed.dtype
        try:
            if dtype is None:
                raise ValueError
            if dtype == ir.DataType.BOOL:
                return _TRUTHS[text.lower()]
            if dtype.is_integer() and dtype.bitwidth >= 8:
                number, limits = int(text), np.iinfo(dtype.numpy())
                if limits.min <= number <= limits.max:
                    return number
            elif dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
                with np.errstate(over="ignore"):
                    rounded = float(np.asarray(float(text)).astype(dtype.numpy()))
                if math.isfinite(rounded):
                    return rounded
        except (KeyError, ValueError):
            pass
        raise UsageError(
            f"input {self.input!r} cannot be fixed to this",
            where=self.name,
            found=f"{text!r} for {dtype.name if dtype is not None else 'an input of no element type'}",
            wanted="true or false" if dtype == ir.DataType.BOOL else "a finite number that its element type holds",
            hint=f"Give value= as the type says: select-input{{input={self.input} value=…}}.",
        )

    def _content(self, values: tuple[bool | int | float, ...], fixed: ir.Value) -> np.ndarray[Any, Any]:
        """The values in the input's declared shape."""
        dims = None if fixed.shape is None else fixed.shape.dims
        if fixed.dtype is None or dims is None or not all(isinstance(dim, int) for dim in dims):
            open_dims = "no shape" if dims is None else str(fixed.shape)
            symbols = [d.value for d in dims or () if isinstance(d, ir.SymbolicDim) and d.value]
            first = f"specialize{{family=raw symbols={','.join(f'{symbol}:1' for symbol in symbols)}}},bind"
            raise PassRefused(
                f"nothing tells how many elements input {self.input!r} has",
                where=self.name,
                found=open_dims,
                wanted="a shape of numbers",
                hint=f"Put {first} before this pass, with its size." if symbols else "Give the input a shape first.",
            )
        shape = [dim for dim in dims if isinstance(dim, int)]
        size = math.prod(shape)
        if len(values) not in (1, size):
            raise UsageError(
                f"input {self.input!r} has another number of elements",
                where=self.name,
                found=f"{len(values)} values",
                wanted=f"1, or {size} for shape {shape}",
                hint="One value fills the shape; several are its content in row-major order.",
            )
        array = np.asarray(values).astype(fixed.dtype.numpy())
        return np.full(shape, array[0]) if len(values) == 1 else array.reshape(shape)
