"""Quantization encodings: what they are, which values share one, and every file format that holds them."""

from .base import (
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
    "Symmetry",
    "check_encoding",
    "encoding_groups",
    "encoding_of",
    "evidence_of",
    "join",
    "parse_encodings",
    "print_encodings",
    "read_encodings",
]
