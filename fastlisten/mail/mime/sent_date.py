"""The date of a message: what its Date field says (RFC 5322 3.3, obsolete forms of 4.3).

Rules of this file: an unfolded value in, a `SentDate` out, or None if it names no day. What stands
around the date, such as the day of the week, is not checked. The forms of ``asctime`` and of
RFC 850, which mail has too, are read as well.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple

from fastlisten.mail.mime.lexical import without_comments

__all__ = ["SentDate", "parse_date"]

_NAMES = b"jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}

#: Hours east of UTC of the obsolete zones; all others are UTC (RFC 5322 4.3).
_ZONES = {b"edt": -4, b"est": -5, b"cdt": -5, b"cst": -6}
_ZONES |= {b"mdt": -6, b"mst": -7, b"pdt": -7, b"pst": -8}

_TIME = (
    rb"(?P<hour>[0-9]{1,2})[ \t]*:[ \t]*(?P<minute>[0-9]{1,2})"
    rb"(?:[ \t]*:[ \t]*(?P<second>[0-9]{1,2}))?"
)
_MONTH = rb"(?P<month>[A-Za-z]{3})[A-Za-z]*"
_ZONE = rb"(?:[ \t]*(?P<zone>[+-][0-9]{4}(?![0-9])|[A-Za-z]+))?"
_DATE = re.compile(
    rb"[ \t]*(?:[A-Za-z]+[ \t]*,?[ \t]*)?(?P<day>[0-9]{1,2})[ \t]*[ \t-][ \t]*" + _MONTH + rb"\.?"
    rb"[ \t]*[ \t-][ \t]*(?P<year>[0-9]{2,4})(?![0-9])(?:,?[ \t]+" + _TIME + _ZONE + rb")?"
)
_ASCTIME = re.compile(
    rb"[ \t]*[A-Za-z]+,?[ \t]+" + _MONTH + rb"[ \t]+(?P<day>[0-9]{1,2}),?[ \t]+"
    rb"(?:"
    + _TIME
    + rb"(?:[ \t]+(?P<zone>[+-][0-9]{4}|[A-Za-z]+))?[ \t]+)?(?P<year>[0-9]{4})(?![0-9])"
)

#: The longest value that is read: comments may make it longer than a date is.
_LONGEST = 1000

_EPOCH = datetime.date(1970, 1, 1).toordinal()


class SentDate(NamedTuple):
    """A date of a message.

    Attributes:
        day: the day as it is written, whatever the zone: what SENTON and its kind compare (RFC 3501
            6.4.4).
        time: seconds since 1970 began in UTC: what SORT and THREAD compare. A zone that is wrong
            or missing is UTC, a time that is wrong or missing is midnight (RFC 5256 2.2).
    """

    day: datetime.date
    time: int


def parse_date(value: bytes) -> SentDate | None:
    """Return the date that an unfolded value of the field Date names."""
    value = without_comments(value[:_LONGEST])
    match = _DATE.match(value) or _ASCTIME.match(value)
    if match is None:
        return None
    month = _MONTHS.get(match["month"].lower())
    if month is None:
        return None
    year = int(match["year"])
    # RFC 5322 4.3.
    if len(match["year"]) == 2:
        year += 2000 if year < 50 else 1900
    elif len(match["year"]) == 3:
        year += 1900
    try:
        day = datetime.date(year, month, int(match["day"]))
    except ValueError:
        return None
    time = (day.toordinal() - _EPOCH) * 86400
    if match["hour"] is not None:
        hour, minute = int(match["hour"]), int(match["minute"])
        second = int(match["second"] or 0)
        if hour < 24 and minute < 60 and second <= 60:
            time += hour * 3600 + minute * 60 + min(second, 59) - _offset(match["zone"] or b"")
    return SentDate(day, time)


def _offset(zone: bytes) -> int:
    """Return how many seconds a zone is east of UTC."""
    if zone[:1] not in (b"+", b"-"):
        return _ZONES.get(zone.lower(), 0) * 3600
    minutes = int(zone[3:])
    if minutes > 59:
        return 0
    offset = int(zone[1:3]) * 3600 + minutes * 60
    return offset if zone[:1] == b"+" else -offset
