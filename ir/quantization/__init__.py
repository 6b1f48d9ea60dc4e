"""Encodings say how tensors become integers: which values share one, and every file format that holds them."""

from ..core.encoding import (
    Encoding,
    EncodingsInvalid,
    EncodingTable,
    Evidence,
    Kind,
    NoEvidence,
    Number,
    check_encoding,
)
from .files import FORMATS, parse_encodings, print_encodings, read_encodings
from .grid import Symmetry, encoding_of, evidence_of, join
from .groups import Group, encoding_groups
from .variants import Ports, Rules, Variant, add_rule, rule_of

__all__ = [
    "FORMATS",
    "Encoding",
    "EncodingTable",
    "EncodingsInvalid",
    "Evidence",
    "Group",
    "Kind",
    "NoEvidence",
    "Number",
    "Ports",
    "Rules",
    "Symmetry",
    "Variant",
    "add_rule",
    "check_encoding",
    "encoding_groups",
    "encoding_of",
    "evidence_of",
    "join",
    "parse_encodings",
    "print_encodings",
    "read_encodings",
    "rule_of",
]
