"""What all kinds of values share: `Kind`, `BadValueError`, strings and durations.

Rules of this file: nothing here reads a row; a helper takes one value and returns it parsed or
raises `BadValueError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastlisten.config.notation import show_value
from fastlisten.option import Option

__all__ = [
    "NUMBER",
    "BadValueError",
    "Kind",
    "format_duration",
    "parse_duration",
    "strings",
    "text_of",
]

#: A number without unit, as text.
NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")

_UNITS_OF_TIME = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))? ?(ms|s|m|h|d)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class BadValueError(Exception):
    """A value that is not allowed.

    Attributes:
        message: what is wrong.
        allowed: what would be accepted; None: the kind's description of it.
        suggestion: the value that was probably meant.
    """

    def __init__(self, message: str, allowed: str | None = None, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.allowed = allowed
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    Attributes:
        parse: from the TOML value to the typed one; raises BadValueError.
        write: from the typed value to TOML text.
        plain: from the typed value to one that JSON can represent.
        describe: returns what a row of this kind accepts, in words.
    """

    parse: Callable[[Option, Any], Any]
    write: Callable[[Any], str]
    plain: Callable[[Any], Any]
    describe: Callable[[Option], str]


def text_of(raw: Any) -> str:
    """Return a string value, or raise BadValueError for another type and for control characters."""
    if not isinstance(raw, str):
        raise BadValueError("this is not a string")
    if _CONTROL.search(raw):
        raise BadValueError("control characters, such as CR and LF, are not allowed")
    return raw


def strings(raw: Any) -> list[str]:
    """Return a string or an array of strings as a list."""
    if isinstance(raw, list):
        for item in raw:
            if not isinstance(item, str):
                raise BadValueError(f"{show_value(item)} in this array is not a string")
        return [text_of(item) for item in raw]
    return [text_of(raw)]


def parse_duration(raw: Any) -> float:
    """Return a duration in seconds; the resolution is a millisecond.

    Raises:
        BadValueError: for anything but a number with its unit.
    """
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise BadValueError("this is not a duration")
    if not isinstance(raw, str) or NUMBER.fullmatch(raw.strip()):
        raise BadValueError("a duration needs a unit", suggestion=_with_unit(raw))
    match = _DURATION.fullmatch(raw.strip())
    if match is None:
        raise BadValueError("this is not a duration")
    whole, fraction, unit = match.groups()
    scale: int = 10 ** len(fraction or "")
    units = int(whole) * scale + int(fraction or 0)
    milliseconds, rest = divmod(units * _UNITS_OF_TIME[unit], scale)
    if rest:
        raise BadValueError("a duration must be a whole number of milliseconds")
    return milliseconds / 1000


def _with_unit(raw: Any) -> str:
    """Suggest seconds for a small bare number, milliseconds for a large one, as in older files."""
    if isinstance(raw, str) or not 0 < raw < 10**9 or raw != int(raw):
        return ""
    return f'"{raw:.0f}s"' if raw < 1000 else f'"{raw:.0f}ms"'


def format_duration(seconds: float) -> str:
    """Return the shortest text for a duration, without quotes."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _UNITS_OF_TIME[unit] == 0:
            return f"{milliseconds // _UNITS_OF_TIME[unit]}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"
