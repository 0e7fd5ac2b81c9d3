"""What SORT and THREAD compare: the date in Date, the base subject.

Rules of this file: values and what is read in them; email.utils is the second opinion on dates.
"""

from __future__ import annotations

import datetime
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.mail.mime.base_subject import base_subject
from fastlisten.mail.mime.sent_date import parse_date


def read(value: bytes) -> str | None:
    """Return a date as the day that is written, and the time in UTC."""
    found = parse_date(value)
    if found is None:
        return None
    time = datetime.datetime.fromtimestamp(found.time, datetime.UTC)
    return f"{found.day} = {time:%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Mon, 30 Nov 2026 14:05:06 +0000", "2026-11-30 = 2026-11-30 14:05:06"),
        (b"1 Jan 2026 00:30 +0100", "2026-01-01 = 2025-12-31 23:30:00"),
        (b"Thu, 31 Dec 2026 23:30:00 -0230", "2026-12-31 = 2027-01-01 02:00:00"),
        (b"Mon, 30 Nov 2026 14:05:06 -0000 (a comment)", "2026-11-30 = 2026-11-30 14:05:06"),
        # RFC 5322 4.3 and A.6.2.
        (b"21 Nov 97 09:55:06 GMT", "1997-11-21 = 1997-11-21 09:55:06"),
        (b"21 Nov 26 09:55:06 EST", "2026-11-21 = 2026-11-21 14:55:06"),
        (b"21 Nov 126 09:55:06 PDT", "2026-11-21 = 2026-11-21 16:55:06"),
        (b"21 Nov 49 09:55 ut", "2049-11-21 = 2049-11-21 09:55:00"),
        (b"21 Nov 50 09:55 Z", "1950-11-21 = 1950-11-21 09:55:00"),
        (b"21 Nov 2026 09:55:06 A", "2026-11-21 = 2026-11-21 09:55:06"),
        (b"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", "1997-11-21 = 1997-11-21 15:55:06"),
        (b"Thu , 13 Feb 1969 23:32 -0330", "1969-02-13 = 1969-02-14 03:02:00"),
        # What is wrong with the time or zone (RFC 5256 2.2).
        (b"30 Nov 2026", "2026-11-30 = 2026-11-30 00:00:00"),
        (b"30 Nov 2026 25:00:00 +0100", "2026-11-30 = 2026-11-30 00:00:00"),
        (b"30 Nov 2026 noon", "2026-11-30 = 2026-11-30 00:00:00"),
        (b"30 Nov 2026 14:05:06 FOO", "2026-11-30 = 2026-11-30 14:05:06"),
        (b"30 Nov 2026 14:05:06 +0199", "2026-11-30 = 2026-11-30 14:05:06"),
        (b"30 Nov 2026 14:05:06", "2026-11-30 = 2026-11-30 14:05:06"),
        (b"30 Nov 2026 23:59:60 +0000", "2026-11-30 = 2026-11-30 23:59:59"),
        # Other forms.
        (b"Monday, 30-Nov-26 14:05:06 GMT", "2026-11-30 = 2026-11-30 14:05:06"),
        (b"Mon Nov 30 14:05:06 2026", "2026-11-30 = 2026-11-30 14:05:06"),
        (b"Mon Nov  3 14:05:06 +0100 2026", "2026-11-03 = 2026-11-03 13:05:06"),
        (b"Mon, 30 November 2026 14:05:06 +0000", "2026-11-30 = 2026-11-30 14:05:06"),
        (b"Mon 30 nov. 2026 14:05:06+0100", "2026-11-30 = 2026-11-30 13:05:06"),
        # No day.
        (b"31 Feb 2026 10:00:00 +0000", None),
        (b"30 Foo 2026 10:00:00 +0000", None),
        (b"0 Nov 2026", None),
        (b"30 Nov 20260", None),
        (b"30 Nov 0000", None),
        (b"2026-11-30", None),
        (b"yesterday", None),
        (b"", None),
    ],
)
def test_dates(value: bytes, expected: str | None) -> None:
    assert read(value) == expected


@given(
    st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(9999, 12, 30)),
    st.integers(-23 * 60, 23 * 60),
)
def test_dates_that_python_writes(moment: datetime.datetime, minutes: int) -> None:
    zone = datetime.timezone(datetime.timedelta(minutes=minutes))
    moment = moment.replace(microsecond=0, tzinfo=zone)
    found = parse_date(email.utils.format_datetime(moment).encode())
    assert found is not None
    assert found.day == moment.date()
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert found.time == (moment - epoch) // datetime.timedelta(seconds=1)


@given(st.text("0123456789 :+-,()ANJanNov", max_size=40))
def test_dates_that_python_reads_too(text: str) -> None:
    """Of what both read, both say the same, unless Python makes up a day that is not there."""
    ours, theirs = parse_date(text.encode()), email.utils.parsedate(text)
    if ours is not None and theirs is not None:
        assert (ours.day.month, ours.day.day) == theirs[1:3]


def test_long_comments_of_a_date_are_cut_off() -> None:
    assert read(b"(" * 10**6 + b"30 Nov 2026") is None
    assert read(b"30 Nov 2026 (" + b"x" * 10**6) == "2026-11-30 = 2026-11-30 00:00:00"


@pytest.mark.parametrize(
    ("value", "expected", "is_reply"),
    [
        (b"hello", "hello", False),
        (b"  hello \t world ", "hello world", False),
        (b"Re: hello", "hello", True),
        (b"RE : Fwd: fw:hello", "hello", True),
        (b"re[2]: hello", "hello", True),
        (b"[list] Re: [list] hello", "hello", True),
        (b"[a] [b] hello", "hello", False),
        (b"[a][b]", "[b]", False),
        (b"[a]", "[a]", False),
        (b"Re:", "", True),
        (b"hello (fwd) (FWD)", "hello", True),
        (b"[fwd: Re: hello (fwd)]", "hello", True),
        (b"[Fwd: [fwd: hello]] (fwd)", "hello", True),
        (b"[fwd: hello", "[fwd: hello", False),
        (b"Regards: x", "Regards: x", False),
        (b"Re hello", "Re hello", False),
        (b"=?utf-8?q?Re=3A_Gr=C3=BC=C3=9Fe?=", "Grüße", True),
        (b"Re: [a [b] c", "[a [b] c", True),
        (b"", "", False),
    ],
)
def test_base_subjects(value: bytes, expected: str, is_reply: bool) -> None:
    assert base_subject(value) == (expected, is_reply)


@given(st.text("re:fwd()[] xR", max_size=30))
def test_base_subject_of_a_base_subject_is_itself(text: str) -> None:
    base = base_subject(text.encode()).text
    assert base_subject(base.encode()) == (base, False)


@pytest.mark.parametrize(
    "part", [b"[", b"[a]", b"re:", b"re[a]", b"[fwd:", b" ", b"(fwd)", b"[a]re"]
)
def test_long_subjects(part: bytes) -> None:
    """Only so many characters are looked at that this ends at all."""
    assert len(base_subject(part * 500_000).text) <= 2000
