"""Macros in strings: ``%{file:PATH}%`` and ``%{env:NAME}%``.

Rules of this file: the value of a macro is not expanded again. Each string is scanned once, from
left to right, so the cost is linear in its length.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from fastlisten.config.notation import show_value
from fastlisten.config.values.grammar import BadValueError
from fastlisten.files import read_file

__all__ = ["expand", "read_text"]

# A certificate with its chain has about 10 KiB, other values less. The limit is for a large file
# that is named by mistake.
_MAX_FILE_SIZE = 1 << 20


def expand(text: str, environ: Mapping[str, str], directory: str) -> str:
    """Return a text with its macros replaced.

    Args:
        text: a string value; a macro begins at ``%{`` and ends at the next ``}%``.
        environ: the variables that `env` reads.
        directory: what relative paths of `file` are relative to.

    Raises:
        BadValueError: for an unknown macro, a missing variable, an unreadable file.
    """
    pieces = []
    size = end = 0
    while (start := text.find(_OPEN, end)) >= 0:
        pieces.append(text[end:start])
        start += len(_OPEN)
        end = text.find(_CLOSE, start)
        if end < 0:
            raise BadValueError("a macro is missing its closing }%", allowed=_ALLOWED)
        body = text[start:end]
        if _OPEN in body:
            raise BadValueError("macros cannot be nested", allowed=_ALLOWED)
        end += len(_CLOSE)
        pieces.append(_value(body, environ, directory))
        if (size := size + len(pieces[-1])) > _MAX_FILE_SIZE:
            raise BadValueError("the macros expand to more than 1 MiB", allowed="")
    pieces.append(text[end:])
    return "".join(pieces)


_OPEN, _CLOSE = "%{", "}%"
_ALLOWED = "%{file:PATH}% and %{env:NAME}%"


def _value(body: str, environ: Mapping[str, str], directory: str) -> str:
    kind, _, argument = body.partition(":")
    if kind == "env" and argument:
        if argument not in environ:
            raise BadValueError(f"environment variable {argument} is not set", allowed="")
        value = environ[argument]
        # Bytes that are not UTF-8 arrive as lone surrogates.
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BadValueError(f"environment variable {argument} is not UTF-8", allowed="")
        return value
    if kind == "file" and argument:
        return read_text(os.path.join(directory, argument))
    shown = show_value(f"{_OPEN}{body}{_CLOSE}")
    raise BadValueError(f"unknown macro {shown}", allowed=_ALLOWED)


def read_text(path: str) -> str:
    """Return the text of a small file, without its last line end.

    Raises:
        BadValueError: if it cannot be read, is too large, or is not UTF-8.
    """
    try:
        content = read_file(path, _MAX_FILE_SIZE, "a value")
    except OSError as error:
        raise BadValueError(f"{path} cannot be read: {error.strerror}", allowed="") from None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise BadValueError(f"{path} is not UTF-8", allowed="") from None
    return text.removesuffix("\n").removesuffix("\r")
