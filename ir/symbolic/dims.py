"""Dimensions as graphs write them: integers, symbols and arithmetic in text, read into one canonical form.

Exporters write the same dimension in many ways (``past + seq``, ``seq+past``, ``"2"`` as a symbol, ``"batch size"``).
Everything goes through :func:`parse` once; two dimensions are equal when their canonical forms are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from .algebra import Call, Dim, Expr, floordiv, free_symbols, maximum, minimum, mod, substitute, symbol

__all__ = [
    "Call",
    "Dim",
    "Expr",
    "floordiv",
    "free_symbols",
    "maximum",
    "minimum",
    "mod",
    "parse",
    "substitute",
    "symbol",
]

MAX_TEXT = 400  # a dim_param longer than this is one opaque symbol: inputs are hostile
MAX_DEPTH = 40
MAX_PRODUCTS = 16  # operators of one text that multiply sums out


@functools.lru_cache(maxsize=65536)
def parse(text: str) -> Dim:
    """Reads a dim_param; what is no arithmetic, or too much of it, is one opaque symbol of that spelling.

    >>> parse("2"), parse("s1 + s0") == parse("s0+s1"), parse("batch size")
    (2, True, Expr(batch size))
    """
    text = text.strip()
    if re.fullmatch(r"\d{1,18}", text):
        return int(text)
    if len(text) > MAX_TEXT or _PLAIN.fullmatch(text) or _PATH.search(text):
        return symbol(text)
    try:
        found = _Parser(text).whole()
    except (ValueError, ZeroDivisionError):
        return symbol(text)
    return symbol(text) if isinstance(found, int) and found < 0 else found


_PLAIN = re.compile(r"[A-Za-z_][\w.:]*(-[A-Za-z_][\w.:]*)*")
_PATH = re.compile(r"(^|\S)/[A-Za-z_]")  # "/model/layers.0/x_dim_0" is a node's name in a dimension, no division
# a hyphen between letters belongs to a name ("past-len + seq-len"): exporters that subtract write blanks around it
_TOKEN = re.compile(r"\s*(?:(\d{1,18})|([A-Za-z_][\w.:]*(?:-[A-Za-z_][\w.:]*)*)|(//|[-+*%/(),]))")


def _same(dim: Dim) -> Dim:
    return dim


_FUNCTIONS: dict[str, Callable[..., Dim]] = {
    "max": maximum,
    "Max": maximum,
    "min": minimum,
    "Min": minimum,
    "Mod": mod,
    "PythonMod": mod,
    "FloorDiv": floordiv,
    "floordiv": floordiv,
    "CleanDiv": floordiv,
    "floor": _same,  # floor(x/2): "/" is read as floor division already
}


class _Parser:
    """Recursive descent over ``+ - * // / %``, parentheses and a few functions; ValueError on anything else."""

    def __init__(self, text: str) -> None:
        self.tokens = self._split(text)
        self.at = 0
        self.depth = 0
        self.products = 0

    @staticmethod
    def _split(text: str) -> list[str]:
        tokens: list[str] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if not match:
                raise ValueError(text)
            tokens.append(match.group().strip())
            position = match.end()
        return tokens

    def whole(self) -> Dim:
        value = self.sum()
        if self.at != len(self.tokens):
            raise ValueError("trailing text")
        return value

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def sum(self) -> Dim:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError("too deep")
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        self.depth -= 1
        return value

    def product(self) -> Dim:
        value = self.unary()
        while self.peek() in ("*", "//", "/", "%"):
            operator = self.take()
            self.products += 1
            if self.products > MAX_PRODUCTS:
                raise ValueError("too many products")
            right = self.unary()
            value = (
                value * right if operator == "*" else mod(value, right) if operator == "%" else floordiv(value, right)
            )
        return value

    def unary(self) -> Dim:
        if self.peek() == "-":
            self.take()
            return self.unary() * -1
        token = self.take()
        if token == "(":
            value = self.sum()
            self.expect(")")
            return value
        if token.isdigit():
            return int(token)
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise ValueError(token)
        return self.call(token) if self.peek() == "(" else symbol(token)

    def call(self, name: str) -> Dim:
        self.take()
        args = [self.sum()]
        while self.peek() == ",":
            self.take()
            args.append(self.sum())
        self.expect(")")
        if name not in _FUNCTIONS:
            raise ValueError(name)
        try:
            return functools.reduce(_FUNCTIONS[name], args) if len(args) > 1 else _FUNCTIONS[name](*args)
        except TypeError as error:
            raise ValueError(name) from error

    def expect(self, token: str) -> None:
        if self.take() != token:
            raise ValueError(f"expected {token}")
