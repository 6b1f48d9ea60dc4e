"""Names in a model are text: protobuf hands bytes over where a file holds something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import onnx_ir as ir

from ..core.errors import InputError
from ..core.scopes import Scope, nested

SHOWN = 40  # bytes of a name that an error shows
AT_ONCE = 1024  # names that are joined: all of them would be megabytes


def check_text(model: ir.Model) -> None:
    """Raises InputError for a name of a node, value, operator or attribute that is no UTF-8.

    ONNX's files are of proto2, whose strings protobuf's parser (upb, 6.x) takes unchecked and gives as ``bytes``.
    """
    for scope in (model.graph, *model.functions.values()):
        check_scope(scope)


def check_scope(scope: Scope) -> None:
    """Raises InputError for such a name in a graph or function, or in the bodies inside it."""
    for inner in nested(scope):
        check_names(_names(inner))


def _names(scope: Scope) -> Iterator[str | None]:
    yield scope.name
    yield from (value.name for value in scope.inputs)
    yield from scope.initializers if isinstance(scope, ir.Graph) else ()
    for node in scope:
        yield from (node.name, node.op_type, node.domain)
        yield from node.attributes
        yield from [value.name for value in node.outputs]


def check_names(names: Iterable[str | None]) -> None:
    """Raises InputError for the first that is no text."""
    rest = filter(None, names)
    while given := list(islice(rest, AT_ONCE)):
        try:
            "".join(given)  # the loop over some hundred thousand names that Python does not walk
        except TypeError:
            wrong = next(name for name in given if type(name) is not str)
            raise InputError(
                "holds a name that is no text", found=repr(wrong)[:SHOWN], wanted="UTF-8",
                hint="The file is damaged: copy or export it again.",
            ) from None  # fmt: skip
