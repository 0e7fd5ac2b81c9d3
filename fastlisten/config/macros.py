"""Macros in strings: ``%{file:PATH}%`` and ``%{env:NAME}%``.

Rules of this file: what a macro yields is text and is not searched for macros again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from fastlisten.config.grammar import BadValueError

__all__ = ["expand", "read_text"]

_MACRO = re.compile(r"%\{([^:{}]*)(?::(.*?))?\}%", re.DOTALL)

# A value of a configuration is short, a certificate with its chain some 10 KiB; the bound keeps a
# device or a log named by mistake out of memory.
_LARGEST_FILE = 1 << 20


def expand(text: str, environ: Mapping[str, str], directory: str) -> str:
    """Return a text with its macros replaced.

    Args:
        text: a string value.
        environ: the variables that `env` reads.
        directory: what relative paths of `file` are relative to.

    Raises:
        BadValueError: for an unknown macro, a missing variable, an unreadable file.
    """
    if "%{" not in text:
        return text
    if "%{" in _MACRO.sub("", text):
        raise BadValueError("a macro is not closed by }%", allowed=_ALLOWED)
    return _MACRO.sub(lambda match: _value(match, environ, directory), text)


_ALLOWED = "%{file:PATH}% and %{env:NAME}%"


def _value(match: re.Match[str], environ: Mapping[str, str], directory: str) -> str:
    kind, argument = match[1], match[2] or ""
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
    raise BadValueError(f"the macro {match[0]} is not known", allowed=_ALLOWED)


def read_text(path: str) -> str:
    """Return a small file's text without the line end that editors put at the end of it.

    Raises:
        BadValueError: if it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadValueError(f"{path} cannot be read: {reason}", allowed="") from None
    if len(content) > _LARGEST_FILE:
        raise BadValueError(f"{path} is larger than 1 MiB", allowed="")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise BadValueError(f"{path} is not UTF-8", allowed="") from None
    return text.removesuffix("\n").removesuffix("\r")
