"""Parses TOML, for the configuration and for the accounts.

Rules of this file: it knows TOML but no keys. Whatever the text, the result is tables or a
`TomlError`; tomli, and `int()` in it, raise other exceptions for some texts.
"""

from __future__ import annotations

import re
from typing import Any

import tomli

__all__ = ["TomlError", "parse_toml"]

# Deeper than any configuration. The limit makes recursion safe for code that walks the tables, and
# keeps a key with thousands of parts from using gigabytes when the lines of keys are recorded.
_MAX_DEPTH = 32

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

# A set, which some similar formats have but TOML does not: {"10.0.0.0/8", "::1"}.
_SET = re.compile(r"""=[ \t]*\{[ \t]*(?:"[^"\n]*+"|'[^'\n]*+')[ \t]*[,}]""")

# A value without quotes: yes, True, smtp.example.net.
_BARE_WORD = re.compile(r"=[ \t]*(?!(?:true|false|inf|nan)\b)[A-Za-z]")

# A number with a leading zero, such as a file mode: 0660.
_LEADING_ZERO = re.compile(r"[=\[,][ \t]*[+-]?(0[0-9]+)[ \t]*(?:[,\]#\r]|$)")

# A table's name in the parser's words: Cannot declare ('server', 'listener', 'it') twice.
_TWICE = re.compile(r"Cannot declare \(.*\) twice")

# The header of a table.
_HEADER = re.compile(r"[ \t]*(\[.*\])")

# Longer numbers are refused by int() itself (sys.int_info.default_max_str_digits, or less).
_LONG_NUMBER = re.compile(r"[0-9_]{640,}+")


class TomlError(Exception):
    """The text is not valid TOML; the message says why.

    Attributes:
        line: 1-based, 0 if unknown.
    """

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


def parse_toml(content: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return the text and the tables of a TOML document.

    Args:
        content: TOML, in UTF-8 if it is bytes; a byte order mark, as written by editors on
            Windows, is ignored.

    Raises:
        TomlError: it is not valid, or is nested too deeply.
    """
    text = (_decode(content) if isinstance(content, bytes) else content).removeprefix("\ufeff")
    try:
        text.encode()
        data = tomli.loads(text)
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise TomlError(line, "not valid Unicode: a lone surrogate") from None
    except RecursionError:
        raise TomlError(0, "arrays, tables or keys are nested too deeply") from None
    except ValueError as error:
        # TOMLDecodeError, or from int() for a number with thousands of digits.
        raise _explained(text, str(error)) from None
    if _is_deep(data):
        raise TomlError(0, f"tables are nested more than {_MAX_DEPTH} levels deep")
    return text, data


def _decode(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TomlError(line, f"byte {content[error.start]:#04x} is not UTF-8") from None


def _explained(text: str, message: str) -> TomlError:
    """Return the parser's error, with the line moved out of its message."""
    position = _POSITION.search(message)
    if position is None:
        if number := _LONG_NUMBER.search(text):
            line = text.count("\n", 0, number.start()) + 1
            return TomlError(line, f"a number with {len(number[0]):,} digits is too long")
        return TomlError(0, f"not valid TOML: {message}")
    column = f" (column {position[2]})" if position[2] else " at the end of the text"
    message = message[: position.start()] + column
    line = int(position[1]) if position[1] else text.count("\n") + 1
    content = text.split("\n")[line - 1]
    if zero := _LEADING_ZERO.search(content):
        message += f'; a number must not begin with 0, a file mode is a string: "{zero[1]}"'
    elif header := _TWICE.match(message) and _HEADER.match(content):
        message = f"the table {header[1]} is there already"
    elif _SET.search(content):
        message += "; arrays are written in brackets: [...]"
    elif message.startswith("Invalid value") and _BARE_WORD.search(content):
        message += "; strings need quotes; booleans are true and false"
    return TomlError(line, f"not valid TOML: {message}")


def _is_deep(data: dict[str, Any]) -> bool:
    """Tell whether tables and arrays are nested too deeply; without recursion."""
    level: list[Any] = [data]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True
