"""Writes keys and values as TOML text, for messages and for `show`.

Rules of this file: any value can be written; messages stay short and never contain what looks like
a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fastlisten.config.secret_names import NOT_SHOWN, Secret, hide_secrets, is_secret_name
from fastlisten.toml_lines import KeyPath

__all__ = ["KeyPath", "dotted", "quote", "show_value"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# What must be escaped in a TOML basic string; also line separators, for readability.
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Values in messages are cut to this length.
_MAX_LENGTH = 60
# Characters of a text that are searched for secrets.
_MAX_SCANNED = 4096
# Tables and arrays nested deeper are shown as "...", which also limits the recursion.
_MAX_DEPTH = 3
# CPython refuses to print integers of more than 4,300 digits; far fewer are enough here.
_MAX_INTEGER = 10**30


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    # TOML cannot represent a lone surrogate.
    if "\ud800" <= character <= "\udfff":
        return "\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def quote(text: str) -> str:
    """Return a TOML basic string."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def dotted(path: Iterable[str | int]) -> str:
    """Return a key path as TOML writes it, array indices in brackets: ``a."b.c"[0].d``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else quote(part))
    return text


def show_value(value: Any) -> str:
    """Return a value of a TOML document for a message, cut to a readable length.

    Passwords, keys and hashes are left out if their name or form gives them away.
    """
    text = _show(value, 0)
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."


def _show(value: Any, depth: int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if isinstance(value, Secret):
            return NOT_SHOWN
        # Before cutting: the end may be what gives a secret away.
        value = hide_secrets(value[:_MAX_SCANNED])
        return quote(value if len(value) <= _MAX_LENGTH else value[:_MAX_LENGTH])
    if isinstance(value, int):
        return str(value) if abs(value) < _MAX_INTEGER else "a very long number"
    if isinstance(value, (list, tuple)):
        if depth >= _MAX_DEPTH and value:
            return "[...]"
        return "[" + ", ".join(_show(item, depth + 1) for item in value[:_MAX_LENGTH]) + "]"
    if isinstance(value, dict):
        if depth >= _MAX_DEPTH and value:
            return "{...}"
        items = list(value.items())[:_MAX_LENGTH]
        inner = ", ".join(
            f"{dotted((str(key),))} = "
            + (NOT_SHOWN if is_secret_name(str(key)) else _show(item, depth + 1))
            for key, item in items
        )
        return f"{{ {inner} }}" if inner else "{}"
    # Floats, dates and times are written the same way in Python and TOML.
    return str(value)
