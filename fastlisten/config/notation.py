"""How keys and values are written in TOML text: for messages and for `show`.

Rules of this file: whatever the value, writing it succeeds, messages stay short, and what looks
like a secret is not in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fastlisten.config.secret_names import NOT_SHOWN, Secret, hide_secrets, is_secret_name

__all__ = ["KeyPath", "dotted", "quote", "show_value"]

#: A key path: table and key names, and indices of arrays.
KeyPath = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# What a TOML basic string cannot hold as it is; line separators are escaped for the reader's sake.
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Values longer than this are cut in messages: enough to recognise, too little to flood a log.
_MAX_LENGTH = 60
# So much of a text is searched for what must not be shown.
_MAX_SCANNED = 4096
# Deeper tables and arrays are shown as "...", which also bounds the recursion.
_MAX_DEPTH = 3
# Longer integers cannot be printed in decimal: CPython refuses above 4,300 digits by default.
_MAX_INTEGER = 10**30


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    # A lone surrogate cannot be in TOML; U+FFFD stands for it.
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

    Passwords, keys and their hashes are left out as far as they can be told by name or form.
    """
    text = _show(value, 0)
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."


def _show(value: Any, depth: int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if isinstance(value, Secret):
            return NOT_SHOWN
        # What is cut off may be what tells that it is one.
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
    # Floats, dates and times: Python's text is TOML's.
    return str(value)
