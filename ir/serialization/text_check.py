"""Names in a model are text: protobuf hands bytes over where a file holds something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import onnx_ir as ir

from ..core.errors import InputError
from ..core.scopes import Scope, scopes

_TEXT = frozenset({str, type(None)})
SHOWN = 40  # bytes of a name that an error shows


def check_text(model: ir.Model) -> None:
    """Raises InputError for a name of a node, value, operator or attribute that is no UTF-8.

    ONNX's files are of proto2, whose strings protobuf's parser (upb, 6.x) takes unchecked and gives as ``bytes``.
    """
    about = (model.graph.name, model.producer_name, model.producer_version, model.domain, model.doc_string)
    for names in chain([about], map(_names, scopes(model))):
        _check(names)


def _names(scope: Scope) -> Iterator[object]:
    yield scope.name
    yield from (value.name for value in scope.inputs)
    yield from scope.initializers if isinstance(scope, ir.Graph) else ()
    for node in scope:
        yield from (node.name, node.op_type, node.domain)
        yield from node.attributes
        yield from [value.name for value in node.outputs]


def _check(names: Iterable[object]) -> None:
    names = list(names)
    if _TEXT.issuperset(map(type, names)):
        return
    wrong = next(name for name in names if type(name) not in _TEXT)
    raise InputError(
        "holds a name that is no text", found=repr(wrong)[:SHOWN], wanted="UTF-8",
        hint="The file is damaged: copy or export it again.",
    )  # fmt: skip
