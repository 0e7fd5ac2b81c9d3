"""Kinds of values: numbers, words, durations, paths and the like.

Rules of this file: a parser looks only at one value and its row; it returns the typed value or
raises `BadValueError`, and nothing else. Writers turn a typed value back into TOML that parses to
the same value. Addresses and TLS are in `network.py` and `tls.py`; `kinds.py` joins them all.

Booleans and integers may be written as strings, because macros expand to strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fastlisten.config.notation import quote, show_value
from fastlisten.config.secret_names import NOT_SHOWN, Secret
from fastlisten.config.values.grammar import (
    NUMBER,
    BadValueError,
    Kind,
    format_duration,
    parse_duration,
    strings,
    text_of,
)
from fastlisten.mail.address import AddressError, parse_mailbox
from fastlisten.option import Option
from fastlisten.sizes import parse_size

__all__ = ["SCALARS"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_OBJECT = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
# TCP_CA_NAME_MAX of linux/tcp.h is 16 with the final NUL.
_CONGESTION = re.compile(r"[A-Za-z0-9_-]{1,15}")


def _range(option: Option) -> str:
    """Describe the range of a row's numbers."""
    low, high = option.minimum, option.maximum
    if low is not None and high is not None and high < 2**31 - 1:
        return f"{low:.15g} to {high:.15g}"
    return f"{low:.15g} or more" if low is not None else "any"


def _optional(option: Option, description: str) -> str:
    return description + (", or false" if option.extra.get("optional") else "")


def _in_range(option: Option, value: float, write: Callable[[Any], str]) -> None:
    if option.minimum is not None and value < option.minimum:
        raise BadValueError(f"this is too small; the minimum is {write(option.minimum)}")
    if option.maximum is not None and value > option.maximum:
        raise BadValueError(f"this is too large; the maximum is {write(option.maximum)}")


def _boolean(option: Option, raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return raw.strip().lower() == "true"
    raise BadValueError("this is neither true nor false")


def _is_off(option: Option, raw: Any) -> bool:
    """Tell whether an optional row is set to `false`, which means not set."""
    if not option.extra.get("optional"):
        return False
    return raw is False or (isinstance(raw, str) and raw.strip().lower() == "false")


def _whole(option: Option, raw: Any) -> int:
    """Return an integer within the row's range."""
    if isinstance(raw, str) and _INTEGER.fullmatch(raw.strip()):
        raw = int(raw.strip())
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise BadValueError("this is not a whole number")
    if raw == 0 and option.unit == "connections" and option.minimum == 1:
        # In other programs it often does, so do not just say that it is too small.
        raise BadValueError("0 is not allowed; it does not mean unlimited")
    _in_range(option, raw, lambda number: f"{number:.15g}")
    return raw


def _integer(option: Option, raw: Any) -> int | None:
    return None if _is_off(option, raw) else _whole(option, raw)


def _duration(option: Option, raw: Any) -> float | None:
    if _is_off(option, raw):
        return None
    seconds = parse_duration(raw)
    _in_range(option, seconds, format_duration)
    if option.extra.get("whole") and seconds != int(seconds):
        raise BadValueError("the kernel counts this in whole seconds")
    return seconds


def _linger(option: Option, raw: Any) -> float | None:
    if _is_off(option, raw):
        return None
    if isinstance(raw, str) and NUMBER.fullmatch(raw.strip()):
        raw = float(raw)
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        # Written this way round so that NaN fails too.
        if not (option.minimum or 0) <= raw <= (option.maximum or 0):
            raise BadValueError("this is not a number of seconds from 0 to 3600")
        # 1.001 * 1000 is not exactly 1001 in binary, so allow a thousandth of a millisecond.
        if abs(raw * 1000 - round(raw * 1000)) > 0.001:
            raise BadValueError("a duration must be a whole number of milliseconds")
        return round(raw * 1000) / 1000
    seconds: float | None = _duration(option, raw)
    return seconds


def _size(option: Option, raw: Any) -> int | None:
    if _is_off(option, raw):
        return None
    try:
        size = parse_size(raw)
    except ValueError as error:
        raise BadValueError(str(error)) from None
    _in_range(option, size, lambda number: f"{number:.0f}")
    return size


def _optional_string(option: Option, raw: Any) -> str | None:
    return None if _is_off(option, raw) else _string(option, raw)


def _string(option: Option, raw: Any) -> str:
    if not (text := text_of(raw)):
        raise BadValueError("this is empty")
    if text == NOT_SHOWN:
        raise BadValueError("this is the placeholder that is shown instead of a secret")
    return text


def _secret(option: Option, raw: Any) -> Secret:
    return Secret(_string(option, raw))


def _hidden(value: str | None) -> str | None:
    return None if value is None else repr(Secret(value))


def _name(option: Option, raw: Any) -> str:
    # An id may be any TOML key, even with control characters; it is only compared.
    if not isinstance(raw, str):
        raise BadValueError("this is not a string")
    return raw


def _mailbox(option: Option, raw: Any) -> str:
    try:
        return parse_mailbox(text_of(raw)).text
    except AddressError as error:
        raise BadValueError(f"this is not an address: {error}") from None


def _line(option: Option, raw: Any) -> str:
    text = text_of(raw)
    if not text.isascii():  # RFC 5321 4.2: no client has announced SMTPUTF8 yet
        raise BadValueError("only ASCII characters are allowed here")
    if option.maximum is not None and len(text.encode()) > option.maximum:
        raise BadValueError(f"this is longer than {option.maximum:.0f} bytes")
    return text


def _choice(option: Option, raw: Any) -> str | None:
    if _is_off(option, raw):
        return None
    if isinstance(raw, str) and raw.strip().lower() in option.choices:
        return raw.strip().lower()
    raise BadValueError("this is not one of the allowed values")


def _choices(option: Option, raw: Any) -> tuple[str, ...]:
    known = {word.lower(): word for word in option.choices}
    chosen = set()
    for text in strings(raw):
        word = known.get(text.strip().lower())
        if word is None:
            raise BadValueError(f"{show_value(text)} is not one of the allowed values")
        chosen.add(word)
    if not chosen and option.minimum:
        raise BadValueError("at least one is needed")
    return tuple(word for word in option.choices if word in chosen)


def _workers(option: Option, raw: Any) -> int | str:
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return "auto"
    return _whole(option, raw)


def _mode(option: Option, raw: Any) -> int | None:
    if _is_off(option, raw):
        return None
    # TOML's 0o660 arrives as 432, like a decimal 432: only a string is unambiguous.
    if not isinstance(raw, str) or not re.fullmatch(r"(?:0o)?[0-7]{3,4}", raw.strip()):
        digits = str(raw) if type(raw) is int and 0 < raw <= 777 else ""
        near = quote(f"0{digits}") if re.fullmatch(r"[0-7]{3}", digits) else ""
        raise BadValueError("this is not a file mode", suggestion=near)
    if (mode := int(raw.strip().removeprefix("0o"), 8)) > 0o777:
        raise BadValueError("only permission bits can be set on a socket")
    return mode


def _object(option: Option, raw: Any) -> str:
    text = text_of(raw)
    name = text.removesuffix("()") if option.extra.get("factory") else text
    if not _OBJECT.fullmatch(name):
        raise BadValueError("this is not the name of a Python object")
    return text


def _congestion(option: Option, raw: Any) -> str | None:
    if _is_off(option, raw):
        return None
    text = text_of(raw)
    if not _CONGESTION.fullmatch(text):
        raise BadValueError("this is not the name of a congestion control algorithm")
    return text


def _path(option: Option, raw: Any) -> str:
    if not (text := text_of(raw)):
        raise BadValueError("this is empty")
    return text


def _text_or_false(value: str | None) -> str:
    return "false" if value is None else quote(value)


def _number_or_false(value: float | None) -> str:
    return "false" if value is None else str(value)


def _duration_or_false(value: float | None) -> str:
    return "false" if value is None else quote(format_duration(value))


def _same(value: Any) -> Any:
    return value


def _words(text: str) -> Callable[[Option], str]:
    return lambda option: _optional(option, text)


def _describe_duration(option: Option) -> str:
    text = 'a duration in ms, s, m, h or d, such as "30s"'
    if option.minimum is not None and option.maximum is not None:
        low, high = format_duration(option.minimum), format_duration(option.maximum)
        text += f", {low} to {high}"
    return _optional(option, text)


def _describe_object(option: Option) -> str:
    more = ' or "package.module:function()"' if option.extra.get("factory") else ""
    return _optional(option, _OBJECT_WORDS + more)


def _describe_size(option: Option) -> str:
    text = 'bytes, or a size such as "256KiB"'
    if option.minimum is not None and option.maximum is not None:
        text += f", {option.minimum:.0f} to {option.maximum:.0f}"
    return _optional(option, text)


def _describe_integer(option: Option) -> str:
    return _optional(option, f"a whole number, {_range(option)}")


def _describe_workers(option: Option) -> str:
    return f'{_range(option)}, or "auto"'


def _describe_choice(option: Option) -> str:
    *others, last = map(quote, option.choices)
    return _optional(option, f"{', '.join(others)} or {last}" if others else last)


def _describe_choices(option: Option) -> str:
    return f"an array of {', '.join(map(quote, option.choices))}"


def _describe_line(option: Option) -> str:
    limit = f", at most {option.maximum:.0f} bytes" if option.maximum else ""
    return f"one line of ASCII{limit}"


_OBJECT_WORDS = '"package.module:Name"'
_MODE_WORDS = 'a string of octal digits such as "0660"'
_LINGER_WORDS = 'seconds, or a duration such as "2s", 0 to 3600 seconds'
_CONGESTION_WORDS = 'a name such as "bbr"'

SCALARS: dict[str, Kind] = {
    "boolean": Kind(_boolean, lambda value: str(value).lower(), _same, _words("true or false")),
    "integer": Kind(_integer, _number_or_false, _same, _describe_integer),
    "duration": Kind(_duration, _duration_or_false, _same, _describe_duration),
    "linger": Kind(_linger, _duration_or_false, _same, _words(_LINGER_WORDS)),
    "size": Kind(_size, _number_or_false, _same, _describe_size),
    "string": Kind(_optional_string, _text_or_false, _same, _words("a non-empty string")),
    "secret": Kind(
        _secret,
        lambda value: _text_or_false(_hidden(value)),
        _hidden,
        _words("a non-empty string"),
    ),
    "name": Kind(_name, _text_or_false, _same, _words("an ID")),
    "mailbox": Kind(
        _mailbox, _text_or_false, _same, _words('an address such as "alice@example.org"')
    ),
    "line": Kind(_line, _text_or_false, _same, _describe_line),
    "choice": Kind(_choice, _text_or_false, _same, _describe_choice),
    "choices": Kind(
        _choices, lambda value: f"[{', '.join(map(quote, value))}]", list, _describe_choices
    ),
    "workers": Kind(
        _workers,
        lambda value: quote(value) if isinstance(value, str) else str(value),
        _same,
        _describe_workers,
    ),
    "mode": Kind(
        _mode,
        lambda value: "false" if value is None else quote(f"{value:04o}"),
        lambda value: None if value is None else f"{value:04o}",
        _words(_MODE_WORDS),
    ),
    "object": Kind(_object, _text_or_false, _same, _describe_object),
    "path": Kind(_path, _text_or_false, _same, _words("a path")),
    "congestion": Kind(_congestion, _text_or_false, _same, _words(_CONGESTION_WORDS)),
}
