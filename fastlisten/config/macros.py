"""Macros in strings: ``%{file:PATH}%`` and ``%{env:NAME}%``.

Rules of this file: what a macro yields is text and is not searched for macros again. Each text is
gone through once, from the left: what it costs grows with its length and no faster.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from fastlisten.config.notation import show_value
from fastlisten.config.values.grammar import BadValueError
from fastlisten.files import read_file

__all__ = ["expand", "read_text"]

# A value of a configuration is short, a certificate with its chain some 10 KiB; the bound keeps a
# device or a log named by mistake out of memory.
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
            raise BadValueError("a macro is not closed by }%", allowed=_ALLOWED)
        body = text[start:end]
        if _OPEN in body:
            raise BadValueError("a macro stands within another one", allowed=_ALLOWED)
        end += len(_CLOSE)
        pieces.append(_value(body, environ, directory))
        if (size := size + len(pieces[-1])) > _MAX_FILE_SIZE:
            raise BadValueError("its macros give more than 1 MiB", allowed="")
    pieces.append(text[end:])
    return "".join(pieces)


_OPEN, _CLOSE = "%{", "}%"
_ALLOWED = "%{file:PATH}% and %{env:NAME}%"


def _value(body: str, environ: Mapping[str, str], directory: str) -> str:
    kind, _, argument = body.partition(":")
    if kind == "env" and argument:
        if argument not in environ:
            raise BadValueError(f"the environment has no variable {argument}", allowed="")
        value = environ[argument]
        # Bytes that are not UTF-8 arrive as lone surrogates.
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BadValueError(f"the variable {argument} is not UTF-8", allowed="")
        return value
    if kind == "file" and argument:
        return read_text(os.path.join(directory, argument))
    shown = show_value(f"{_OPEN}{body}{_CLOSE}")
    raise BadValueError(f"the macro {shown} is not known", allowed=_ALLOWED)


def read_text(path: str) -> str:
    """Return a small file's text without the line end that editors put at the end of it.

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
