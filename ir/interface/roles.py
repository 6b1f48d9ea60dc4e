"""The role of each graph input follows from what consumes it; a name decides only where the structure is silent."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..core.dataflow import reached
from ..core.errors import ONE_GRAPH, expect
from ..core.operators import of
from ..core.operators.walks import COUNTED, NUMBER_TO_BOUND, PICKS, SCORES_END
from ..states.base import State
from .masks import encoder_masks
from .sampling import sampling_inputs
from .usage import UsageFacts, origins, usage_of

SMALL_TABLE = 16  # rows: a lookup table this small holds types or segments, no vocabulary and no positions


class Role(enum.Enum):
    """What a graph input is for."""

    TOKEN_IDS = "token ids"
    EMBEDDINGS = "embeddings"
    POSITIONS = "positions"
    ATTENTION_MASK = "attention mask"
    ENCODER_MASK = "encoder mask"
    BATCH_INDEX = "batch index"
    LOGITS_TO_KEEP = "logits to keep"
    PIXELS = "pixels"
    IMAGE_INDEX = "image index"
    IMAGE_GRID = "image grid"
    FEATURES = "features"
    STATE = "state"
    BRANCH = "cache branch switch"
    CONTEXT_LENGTHS = "context lengths"
    ADAPTER = "adapter"
    SAMPLING = "sampling"
    OTHER = "other"


def find_roles(model: ir.Model, states: Sequence[State] = ()) -> dict[str, Role]:
    """Gives each graph input (by name) its role.

    ``states`` are those that ``find_states`` found in the same model: their inputs are STATE, and the values that say
    where they are written and which rows are used lead back to positions and batch index.
    """
    expect(ir.Model, model, "find_roles", ONE_GRAPH)
    context = _scene(model, states)
    usage = {
        value.name or "": UsageFacts(value) if value in context.states else usage_of(model, value)
        for value in model.graph.inputs
    }
    roles = {name: _decide(context, clue) for name, clue in usage.items()}
    _settle_vocabulary(usage, roles)
    _resolve_lookups(usage, roles)
    for name, role in roles.items():
        if role is Role.OTHER:
            roles[name] = _by_name(usage[name])
    _part_encoder_masks(usage, roles, states)
    return roles


def find_tables(model: ir.Model) -> dict[str, int]:
    """How many rows the constant tables have that an integer input looks up (the smallest counts), by input name."""
    integers = [value for value in model.graph.inputs if value.dtype is not None and value.dtype.is_integer()]
    found = {value.name or "": usage_of(model, value).tables for value in integers}
    return {name: min(tables) for name, tables in found.items() if tables}


@dataclass(eq=False)
class _Context:
    """What is asked of the whole graph, once."""

    model: ir.Model
    states: set[ir.Value]
    writers: set[ir.Value]
    selectors: set[ir.Value]
    widths: set[int]
    carried: set[ir.Value]
    sampling: set[ir.Value]


def _scene(model: ir.Model, states: Sequence[State]) -> _Context:
    kept = {value for state in states for value in (state.input,) if value is not None}
    carried_out = {id(state.output) for state in states}
    others = (value for value in model.graph.outputs if id(value) not in carried_out)
    widths = [value.shape[-1] for value in others if value.shape is not None and len(value.shape) > 1]
    return _Context(
        model=model,
        states=kept,
        writers=origins(state.positions for state in states),
        selectors=origins(value for state in states for value in (state.selector, state.reorder)),
        widths={width for width in widths if isinstance(width, int)},
        carried={state.output for state in states if state.output is not None},
        sampling=sampling_inputs(model.graph, carried_out),
    )


def _decide(context: _Context, usage: UsageFacts) -> Role:
    if usage.value in context.states:
        return Role.STATE
    if usage.value in context.sampling:
        return Role.SAMPLING
    dtype = usage.value.dtype
    if dtype is ir.DataType.BOOL:
        return (
            Role.BRANCH if "branch" in usage.events else Role.ATTENTION_MASK if "mask" in usage.events else Role.OTHER
        )
    if dtype is not None and dtype.is_floating_point():
        return _decide_float(usage)
    for test, role in _INTEGER_RULES:
        if test(context, usage):
            return role
    return Role.OTHER


def _decide_float(usage: UsageFacts) -> Role:
    if _is_thin_matrix(usage.value):
        return Role.ADAPTER
    if "mask" in usage.events and usage.rank != 3:
        return Role.ATTENTION_MASK
    if "convolution" in usage.events:
        return Role.PIXELS if usage.rank > 3 or (usage.rank == 2 and "picture" in usage.events) else Role.FEATURES
    if "norm" in usage.events and usage.rank == 3:
        return Role.EMBEDDINGS
    projections = sum(event.startswith("projection ") for event in usage.events)
    if projections == 1 and usage.rank >= 2:  # three axes: rows a frame, a patch or a token; the name decides
        return Role.OTHER if usage.rank == 3 else Role.PIXELS
    return Role.FEATURES if projections else Role.OTHER


def _is_thin_matrix(value: ir.Value) -> bool:
    """True for the weight of a product, of rank 2, that is given from outside: half of a low-rank adapter."""
    uses, rank = list(value.uses()), len(value.shape) if value.shape is not None else 0
    products = [use for use in uses if use.node.op_type == "MatMul" and use.idx == 1]
    others = [use for use in uses if use not in products and use.node.op_type != "Identity"]
    return rank == 2 and bool(products) and not others


def _chooses_weights(context: _Context, usage: UsageFacts) -> bool:
    """True where stacks of matrices are looked up, as adapters are, and no tables of rows."""
    ranks = [len(source.shape) for source in usage.sources if source.shape is not None]
    turned = bool(usage.events & {"angle", "compare", "slot"})  # positions look up stored masks of any rank, too
    return bool(ranks) and min(ranks) > 2 and not turned


def _only_shape(usage: UsageFacts) -> bool:
    return "only its shape" in usage.events


def _shape_reaches_cache(context: _Context, usage: UsageFacts) -> bool:
    """True where what is computed from the input's shape reaches attention; choosing logits comes after all of it."""
    work, seen = [usage.value], set[ir.Value]()
    while work:
        value = work.pop()
        for use in value.uses():
            if use.node.op_type in SCORES_END:
                return True
            work.extend(output for output in use.node.outputs if output not in seen)
            seen.update(use.node.outputs)
    return False


def _feeds_own_kind(context: _Context, usage: UsageFacts) -> bool:
    """True for a one-element counter: a graph output of its type and shape is counted from it in integers alone.

    What looks up a table is no counter, and a way through floats (token ids -> logits -> ArgMax -> token ids) counts
    nothing: both would have their type and shape in a graph that decodes one token and gives the best next one.
    """
    if not usage.single or usage.rank < 1 or usage.tables:
        return False
    value = usage.value
    twins = [o for o in context.model.graph.outputs if o.dtype is value.dtype and o.shape == value.shape]
    return any(value in _counted_from(output) for output in twins)


def _counted_from(output: ir.Value) -> set[ir.Value]:
    """The values that ``output`` is computed from by arithmetic that stays integer."""
    seen: set[ir.Value] = set()
    work = [output]
    while work:
        current = work.pop()
        node = current.producer()
        if current in seen or _is_float(current, node):
            continue
        seen.add(current)
        if node is not None and node.op_type in COUNTED:
            work.extend(operand for operand in node.inputs if operand is not None)
    return seen


def _is_float(value: ir.Value, node: ir.Node | None) -> bool:
    """By the declared type, else by a Cast's own attribute: exporters leave inner values untyped."""
    if value.dtype is not None:
        return value.dtype.is_floating_point()
    to = node.attributes.get("to") if node is not None and node.op_type == "Cast" else None
    return to is not None and ir.DataType(to.as_int()).is_floating_point()


def _bounds_a_slice(context: _Context, usage: UsageFacts) -> bool:
    """True for a number that bounds rows on their way to an output that no state has."""
    if usage.rank not in (0, 1) or _shape_reaches_cache(context, usage):
        return False
    work, seen = [usage.value], set[ir.Value]()
    while work:
        for node, port in work.pop().uses():
            if node.op_type in PICKS and port > 0:
                ends = reached([node], {})
                return any(output in ends and output not in context.carried for output in context.model.graph.outputs)
            if node.op_type in COUNTED or node.op_type in NUMBER_TO_BOUND or of(node).sizes:
                work.extend(output for output in node.outputs if output not in seen)
                seen.update(node.outputs)
    return False


_Test = Callable[[_Context, UsageFacts], bool]
_INTEGER_RULES: tuple[tuple[_Test, Role], ...] = (
    (lambda s, c: not c.value.uses(), Role.OTHER),
    (_chooses_weights, Role.ADAPTER),
    (lambda s, c: _only_shape(c) and c.rank >= 3, Role.IMAGE_GRID),
    (lambda s, c: _only_shape(c) and _shape_reaches_cache(s, c), Role.CONTEXT_LENGTHS),
    (lambda s, c: _only_shape(c), Role.LOGITS_TO_KEEP),
    (lambda s, c: bool(c.tables & s.widths), Role.TOKEN_IDS),
    (lambda s, c: c.value in s.selectors and c.value not in s.writers, Role.BATCH_INDEX),
    (lambda s, c: c.value in s.writers and (c.rank >= 2 or "angle" in c.events), Role.POSITIONS),
    (lambda s, c: "row" in c.events and "slot" not in c.events, Role.BATCH_INDEX),
    (lambda s, c: "angle" in c.events, Role.POSITIONS),
    (_feeds_own_kind, Role.IMAGE_INDEX),
    (lambda s, c: c.rank >= 2 and bool(c.events & {"slot", "compare"}), Role.POSITIONS),
    (lambda s, c: c.rank >= 2 and "extreme" in c.events and len(c.tables) > 0, Role.POSITIONS),
    (lambda s, c: "mask" in c.events and c.rank >= 2 and not c.tables, Role.ATTENTION_MASK),
    (lambda s, c: "mask" in c.events and c.rank < 2 and not c.tables, Role.CONTEXT_LENGTHS),
    (lambda s, c: not c.tables and _bounds_a_slice(s, c), Role.LOGITS_TO_KEEP),
)


def _settle_vocabulary(usage: Mapping[str, UsageFacts], roles: dict[str, Role]) -> None:
    """Of two inputs of one shape that look up tables of the vocabulary's size one is no token ids: ask names."""
    tokens = [name for name, role in roles.items() if role is Role.TOKEN_IDS]
    tokens.sort(key=lambda name: _hint(name) is not Role.TOKEN_IDS)
    for at, name in enumerate(tokens):
        if any(usage[name].value.shape == usage[other].value.shape for other in tokens[:at]):
            roles[name] = Role.OTHER


def _resolve_lookups(usage: Mapping[str, UsageFacts], roles: dict[str, Role]) -> None:
    """Of inputs that only look up tables, the largest table is the vocabulary's; a rest of its rank are positions."""
    open_names = [n for n, clue in usage.items() if clue.tables and clue.rank > 0 and roles[n] is Role.OTHER]
    if open_names and Role.TOKEN_IDS not in roles.values():
        first = max(open_names, key=lambda name: (_hint(name) is Role.TOKEN_IDS, max(usage[name].tables)))
        roles[first] = Role.TOKEN_IDS
        open_names.remove(first)
    words = {source for name, role in roles.items() if role is Role.TOKEN_IDS for source in usage[name].sources}
    for name in [name for name in open_names if usage[name].sources & words]:
        roles[name] = Role.TOKEN_IDS  # an encoder's tokens and a decoder's look up one table
        open_names.remove(name)
    _settle_vocabulary(usage, roles)
    if Role.POSITIONS in roles.values():
        return
    ids = next((usage[name] for name, role in roles.items() if role is Role.TOKEN_IDS), None)
    for name in open_names:
        if ids is not None and usage[name].rank == ids.rank and max(usage[name].tables) >= SMALL_TABLE:
            roles[name] = Role.POSITIONS


def _part_encoder_masks(usage: Mapping[str, UsageFacts], roles: dict[str, Role], states: Sequence[State]) -> None:
    by_role = {role: [usage[name].value for name in roles if roles[name] is role] for role in Role}
    for value in encoder_masks(states, by_role[Role.ATTENTION_MASK], by_role[Role.FEATURES]):
        roles[value.name or ""] = Role.ENCODER_MASK


_HINTS: tuple[tuple[str, Role], ...] = (
    ("position", Role.POSITIONS),
    ("attention_mask", Role.ATTENTION_MASK),
    ("input_ids", Role.TOKEN_IDS),
    ("embeds", Role.EMBEDDINGS),
    ("pixel", Role.PIXELS),
    ("grid", Role.IMAGE_GRID),
    ("image_idx", Role.IMAGE_INDEX),
    ("batch_index", Role.BATCH_INDEX),
    ("logits_to_keep", Role.LOGITS_TO_KEEP),
    ("comp_ctx", Role.CONTEXT_LENGTHS),
    ("features", Role.FEATURES),
    ("hidden_states", Role.FEATURES),
    ("branch", Role.BRANCH),
)


def _hint(name: str) -> Role:
    return next((role for part, role in _HINTS if part in name), Role.OTHER)


def _by_name(usage: UsageFacts) -> Role:
    """The name's word, where the element type does not contradict it."""
    role = _hint(usage.value.name or "")
    dtype = usage.value.dtype
    is_float = dtype is not None and dtype.is_floating_point()
    wants_float = role in (Role.EMBEDDINGS, Role.PIXELS, Role.FEATURES)
    return role if role is Role.ATTENTION_MASK or is_float == wants_float else Role.OTHER
