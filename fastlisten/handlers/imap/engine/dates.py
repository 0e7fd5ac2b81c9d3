"""Dates of SEARCH and of messages (RFC 3501 9: date, date-time).

Rules of this file: octets to values and back; no clock and no time zone of the machine's.
"""

from __future__ import annotations

import re
import time
from datetime import date, datetime, timedelta, timezone

from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner

__all__ = ["parse_date", "parse_date_time", "write_date_time"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NUMBERS = {name.upper().encode("ascii"): number for number, name in enumerate(_MONTHS, 1)}
_WRITTEN = tuple(name.encode("ascii") for name in ("", *_MONTHS))

_DATE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1(?=[ )]|\Z)')
# A day of one digit needs a space before it, which the mail programs of iOS 18.3 and of Outlook for
# Android leave out; nothing else can be meant.
_DATE_TIME = re.compile(
    rb'"([ 0-9]?[0-9])-([A-Za-z]{3})-([0-9]{4}) '
    rb'([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)


def parse_date(scanner: Scanner) -> date:
    """Read a date of SEARCH, with or without quotes.

    Raises:
        Refused: there is none, or no such day.
    """
    match = scanner.match(_DATE)
    if match is not None:
        try:
            return date(int(match[4]), _NUMBERS[match[3].upper()], int(match[2]))
        except (KeyError, ValueError):
            pass
    raise Refused("Invalid search date parameter")


def parse_date_time(scanner: Scanner) -> datetime:
    """Read the date of a message of APPEND.

    Raises:
        Refused: there is none, or no such moment.
    """
    match = scanner.match(_DATE_TIME)
    if match is not None:
        day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
        try:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            # Leap seconds are written, and there is no number for them.
            return datetime(
                int(year), _NUMBERS[month.upper()], int(day),
                int(hour), int(minute), 59 if second == b"60" else int(second),
                tzinfo=timezone(-offset if sign == b"-" else offset),
            )  # fmt: skip
        except (KeyError, ValueError):
            pass
    raise Refused("Invalid internal date")


def write_date_time(seconds: int) -> bytes:
    """Return a date-time in UTC, with its quotes.

    Args:
        seconds: since 1970, from year 1 to 9999.
    """
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    return b'"%2d-%b-%04d %02d:%02d:%02d +0000"' % (
        day, _WRITTEN[month], year, hour, minute, second,
    )  # fmt: skip
