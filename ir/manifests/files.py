"""Reading a manifest's file: bounded, text, one line where it cannot be."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import InputError
from .strict import MAX_TEXT


def read_text(path: Path) -> str:
    """The text of a file; InputError where it is missing, too large, or no UTF-8."""
    try:
        if path.stat().st_size > MAX_TEXT:
            raise InputError("is too large for a manifest", where=str(path), wanted=f"at most {MAX_TEXT} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("is no text", where=str(path), wanted="UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
