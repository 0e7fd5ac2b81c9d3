"""TOML text to tables: one way for the configuration and for the accounts.

Rules of this file: it knows TOML and no key. Whatever a text holds, the answer is tables or a
`TomlError`: the parser itself, and `int()` behind it, answer some texts with other exceptions.
"""

from __future__ import annotations

import re
from typing import Any

import tomli

__all__ = ["TomlError", "parse_toml"]

# Deeper than any configuration. What walks tables later may then call itself, and the lines of a
# key of thousands of parts, each of which is a path of its own, need no gigabytes.
_MAX_DEPTH = 32

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

# A set as some files of this format have it, which is no TOML: {"10.0.0.0/8", "::1"}.
_SET = re.compile(r"""=[ \t]*\{[ \t]*(?:"[^"\n]*+"|'[^'\n]*+')[ \t]*[,}]""")

# A word without quotes where a value belongs: yes, True, smtp.example.net.
_BARE_WORD = re.compile(r"=[ \t]*(?!(?:true|false|inf|nan)\b)[A-Za-z]")

# Longer numbers are refused by int() itself (sys.int_info.default_max_str_digits, or less).
_LONG_NUMBER = re.compile(r"[0-9_]{640,}+")


class TomlError(Exception):
    """A text that is no TOML; the message says why.

    Attributes:
        line: 1-based, 0 where none can be named.
    """

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


def parse_toml(content: str | bytes) -> tuple[str, dict[str, Any]]:
    """Return the text and the tables of a TOML document.

    Args:
        content: TOML, in UTF-8 if it is bytes; a byte order mark before it, as editors on Windows
            put there, is left out.

    Raises:
        TomlError: it is none, or is nested too deeply to be meant.
    """
    text = (_decode(content) if isinstance(content, bytes) else content).removeprefix("\ufeff")
    try:
        text.encode()
        data = tomli.loads(text)
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise TomlError(line, "a lone surrogate is not Unicode text") from None
    except RecursionError:
        raise TomlError(0, "arrays, tables or keys are nested too deeply") from None
    except ValueError as error:
        # TOMLDecodeError is one; a number of thousands of digits is refused by int() itself.
        raise _explained(text, str(error)) from None
    if _is_deep(data):
        raise TomlError(0, f"tables are nested more than {_MAX_DEPTH} deep")
    return text, data


def _decode(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TomlError(line, f"byte {content[error.start]:#04x} is not UTF-8") from None


def _explained(text: str, message: str) -> TomlError:
    """Return what the parser has said, with the line taken out of it."""
    position = _POSITION.search(message)
    if position is None:
        if number := _LONG_NUMBER.search(text):
            line = text.count("\n", 0, number.start()) + 1
            return TomlError(line, f"a number of {len(number[0]):,} digits is too long")
        return TomlError(0, f"not valid TOML: {message}")
    column = f" (column {position[2]})" if position[2] else " at the end of the text"
    message = message[: position.start()] + column
    line = int(position[1]) if position[1] else text.count("\n") + 1
    content = text.split("\n")[line - 1]
    if _SET.search(content):
        message += "; an array stands in brackets: [...]"
    elif message.startswith("Invalid value") and _BARE_WORD.search(content):
        message += "; text needs quotes; booleans are true and false"
    return TomlError(line, f"not valid TOML: {message}")


def _is_deep(data: dict[str, Any]) -> bool:
    """Tell whether tables and arrays are nested deeper than is meant; without recursion."""
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
