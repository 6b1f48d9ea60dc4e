"""A conversion knows of its graph the tokens, positions, mask, lengths, and every symbolic fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.errors import PassRefused
from ...interface.roles import Role, find_roles
from ...shapes.infer import Facts, Trust, propagate
from ...shapes.infer.declared import is_fresh
from ...shapes.infer.resweep import Resweep
from ...states import Layout, State
from ...symbolic.dims import Call, Dim, Expr, free_symbols, parse, substitute, symbol
from ...symbolic.symbols import dims_of, symbols_of
from ..builder import Builder
from .options import Options


@dataclass(eq=False)
class ConversionContext:
    """One graph whose ``states`` are converted.

    Attributes:
        growing: True where the caches grow before the conversion, so that attention sees past + seq rows.
        past: The rows that a state's input has before the conversion, as its type says.
        rows: The rows that it has after it.
        total: The rows that attention sees after it.
        batch: The batch dimension.
        sequence: The tokens of a run.
        positions: The input of positions ``[B, S]``, None where the graph has none.
        mask: The attention mask ``[B, total]``, None where the graph has none of two dimensions.
        facts: Symbolic shapes and integer contents before the conversion, one name a dimension.
        derived: The same without what the file declares of inner values: a dimension unknown here depends on data.
        sweep: Tells the shapes of the graph as it is now, from its inputs alone; after an edit, what that changed.
        known, _answers: What :meth:`wanted` and :meth:`leaks` have answered.
    """

    model: ir.Model
    options: Options
    states: Sequence[State]
    roles: Mapping[str, Role]
    tokens: ir.Value
    growing: bool
    past: Expr
    rows: Dim
    total: Dim
    batch: Dim
    sequence: Dim
    positions: ir.Value | None
    mask: ir.Value | None
    aliases: Mapping[str, Dim]
    facts: Facts
    derived: Facts
    sweep: Resweep
    builder: Builder
    known: dict[Expr, Dim] = field(default_factory=dict[Expr, Dim])
    _answers: dict[Expr, bool] = field(default_factory=dict[Expr, bool])

    @property
    def where(self) -> str:
        """How messages name the graph."""
        return f"{self.options.owner}, graph {self.model.graph.name!r}"

    def wanted(self, dim: Dim) -> Dim:
        """``dim`` of the graph as it was, in the symbols of the graph to be."""
        if isinstance(dim, int):
            return dim
        if dim not in self.known:
            before = self.total - self.sequence if self.growing else self.total
            self.known[dim] = substitute(dim, {str(self.past): before})
        return self.known[dim]

    def same(self, before: Dim, after: Dim, *, first: bool = True) -> bool:
        """True where ``after`` is what ``before`` has to become; on a first axis batch may stand where 1 stood."""
        wanted, after = unclipped(self.wanted(before)), unclipped(after)
        return wanted == after or is_fresh(wanted) or (first and wanted == 1 and after == self.batch)

    def leaks(self, dim: Dim) -> bool:
        """True for a dimension that speaks of the past's own length, which a cache written in place does not have."""
        if not self.growing or isinstance(dim, int):
            return False
        if dim not in self._answers:
            self._answers[dim] = str(self.past) in free_symbols(dim) and not self._of_total(dim)
        return self._answers[dim]

    def _of_total(self, dim: Dim) -> bool:
        """True where ``dim`` is made of past and sequence together only: each of its terms holds the total."""
        marker = parse("total rows of attention")
        marked = substitute(dim, {str(self.past): marker - self.sequence})
        name = str(marker)
        return isinstance(marked, Expr) and all(name in map(str, mono) for mono, _ in marked.terms)

    def refuse(
        self, what: str, *, node: ir.Node | None = None, found: object = None, wanted: object = None, hint: str = ""
    ) -> PassRefused:
        """The refusal, with the place."""
        where = f"{self.where}, node {node.name!r}" if node is not None else self.where
        return PassRefused(what, where=where, found=found, wanted=wanted, hint=hint)


def unclipped(dim: Dim) -> Dim:
    """``dim`` where no Slice is cut short: ``min(n, 1024)`` is ``n``, ``max(n, 0)`` too; else it would not run."""
    if isinstance(dim, int) or not any(isinstance(atom, Call) for mono, _ in dim.terms for atom in mono):
        return dim
    total: Dim = 0
    for mono, coefficient in dim.terms:
        product: Dim = coefficient
        for atom in mono:
            product = product * (symbol(atom) if isinstance(atom, str) else _unclipped(atom))
        total = total + product
    return total


def _unclipped(call: Call) -> Dim:
    symbolic = [arg for arg in call.args if isinstance(arg, Expr)]
    if call.op in ("min", "max") and len(symbolic) == 1:
        return unclipped(symbolic[0])
    return Expr((((call,), 1),))


def survey(model: ir.Model, states: Sequence[State], chosen: Sequence[State], options: Options) -> ConversionContext:
    """Reads the graph; raises PassRefused where it has no tokens, or lengths that cannot be distinguished."""
    where = f"{options.owner}, graph {model.graph.name!r}"
    roles = find_roles(model, states)
    tokens = tokens_of(model, roles, chosen, where)
    batch, sequence, *_ = (*(dims_of(tokens) or ()), None, None)
    if batch is None or sequence is None:
        raise PassRefused("the token ids have unnamed dimensions", where=where, found=str(tokens.shape))
    past = _past(chosen, where)
    growing = chosen[0].layout is not Layout.SCATTER
    rows = _new_rows(model, past, options.ctx, where)
    mask = _mask(model, roles)
    positions = _positions(model, roles, (batch, sequence), where)
    seen = past + sequence if growing else past
    same = [(dims_of(mask) if mask is not None else None, (batch, seen))]
    same.append((dims_of(positions) if positions is not None else None, (batch, sequence)))
    same += [((dims_of(value) or ())[-2:], (sequence, seen)) for value in whole_masks(model, roles)]
    aliases = _aliases(chosen, past, same)
    return ConversionContext(
        model=model,
        options=options,
        states=chosen,
        roles=roles,
        tokens=tokens,
        growing=growing,
        past=past,
        rows=rows,
        total=rows if growing else rows + sequence,
        batch=batch,
        sequence=sequence,
        positions=positions,
        mask=mask,
        aliases=aliases,
        facts=propagate(model, binding=aliases),  # pyright: ignore[reportArgumentType]  # expressions bind as well
        derived=propagate(model, binding=aliases, trust=Trust.INPUTS),  # pyright: ignore[reportArgumentType]
        sweep=Resweep(model, {}, Trust.INPUTS),
        builder=Builder(model.graph, options.owner),
    )


def tokens_of(model: ir.Model, roles: Mapping[str, Role], chosen: Sequence[State], where: str) -> ir.Value:
    """The input ``[B, S, …]`` that counts the tokens of a run: by its role, else one as long as the new rows are.

    Raises PassRefused where there is none.
    """
    inputs = [v for v in model.graph.inputs if not v.is_initializer() and len(dims_of(v) or ()) >= 2]
    for value in inputs:
        if roles.get(value.name or "") in (Role.TOKEN_IDS, Role.EMBEDDINGS):
            return value
    caches, facts = {id(state.input) for state in chosen}, propagate(model)
    for state in chosen:
        rows = facts.shape(state.new) if state.new is not None else None
        for value in inputs:
            batch, sequence, *_ = (*(dims_of(value) or ()), None, None)
            sized = rows is not None and batch != sequence and batch in rows and sequence in rows
            if sized and id(value) not in caches:
                return value
    raise PassRefused(
        "no input holds token ids or embeddings",
        where=where,
        wanted="an input [batch, sequence, …] that counts the tokens of a run",
        hint="Rename it to input_ids or inputs_embeds if it is there under another name.",
    )


def _past(chosen: Sequence[State], where: str) -> Expr:
    for state in chosen:
        assert state.input is not None
        dims = dims_of(state.input)
        dim = dims[state.axis] if dims is not None and state.axis is not None else None
        if not isinstance(dim, Expr) or not dim.is_symbol:
            raise PassRefused(
                f"the length of state {state.name!r} is {'unknown' if dim is None else 'baked into the graph'}",
                where=where,
                found=f"{dim} rows on axis {state.axis}" if dim is not None else str(state.input.shape),
                wanted="a length named by one symbol",
                hint="Export a decoder's cache with a dynamic length; clone-decode takes one of fixed length as it is.",
            )
    first = chosen[0]
    assert first.input is not None and first.axis is not None
    dim = (dims_of(first.input) or ())[first.axis]
    assert isinstance(dim, Expr)
    return dim


def _new_rows(model: ir.Model, past: Expr, text: str, where: str) -> Dim:
    """The option's symbol or number; raises PassRefused for a symbol that the graph has for something else."""
    if text.isdigit():
        return int(text)
    rows = parse(text)
    if rows != past and any(free_symbols(rows) & {name} for name in symbols_of(model)):
        raise PassRefused(
            f"the graph has a dimension {text!r} already",
            where=where,
            found=", ".join(
                next(places for name, places in symbols_of(model).items() if name in free_symbols(rows))[:3]
            ),
            hint="Give the caches' rows another name with ctx=NAME.",
        )
    return rows


def _mask(model: ir.Model, roles: Mapping[str, Role]) -> ir.Value | None:
    masks = [
        v for v in model.graph.inputs if roles.get(v.name or "") is Role.ATTENTION_MASK and len(v.shape or ()) == 2
    ]
    return masks[0] if masks else None


def whole_masks(model: ir.Model, roles: Mapping[str, Role]) -> list[ir.Value]:
    """The inputs that hold a mask with a line for each query: ``[…, S, total]``."""
    masks = (v for v in model.graph.inputs if roles.get(v.name or "") is Role.ATTENTION_MASK)
    return [value for value in masks if len(value.shape or ()) >= 3]


def _positions(model: ir.Model, roles: Mapping[str, Role], shape: tuple[Dim, Dim], where: str) -> ir.Value | None:
    found = [v for v in model.graph.inputs if roles.get(v.name or "") is Role.POSITIONS]
    if not found:
        return None
    dims = dims_of(found[0]) or ()
    if len(dims) != 2 or any(dim != same and isinstance(dim, int) for dim, same in zip(dims, shape, strict=True)):
        raise PassRefused(
            f"{found[0].name!r} does not hold one position a token",
            where=where,
            found=str(found[0].shape),
            wanted=f"[{shape[0]}, {shape[1]}]",
            hint="Positions of several axes (M-RoPE) do not tell cache rows; the growing cache can be cloned as it is: "
            "keep-last-logits{symbol=num_logits_to_keep},clone-decode{k=0 ctx=128 prefill=32},check.",
        )
    return found[0]


def _aliases(
    chosen: Sequence[State], past: Expr, same: Sequence[tuple[Sequence[Dim | None] | None, tuple[Dim, Dim]]]
) -> dict[str, Dim]:
    """Symbols that must be equal though an exporter named them apart: caches' lengths, dimensions of other inputs."""
    aliases: dict[str, Dim] = {}
    for state in chosen:
        dims = dims_of(state.input) if state.input is not None else None
        dim = dims[state.axis] if dims is not None and state.axis is not None else None
        if dim is not None and dim != past:
            aliases[str(dim)] = past
    for dims, shape in same:
        for dim, meant in zip(dims or (), shape, strict=False):
            if isinstance(dim, Expr) and dim.is_symbol and dim != meant:
                aliases[str(dim)] = meant
    return aliases
