"""SEARCH and SORT by texts, subjects and dates, compared with Dovecot's.

Rules of this file: both get the same messages and the same keys. Where we differ on purpose, the
RFC's section that settles it is named.
"""

from __future__ import annotations

import base64
import random

from support.dovecot_imap import DOVECOT_IMAP, dovecot
from support.marks import external
from support.mime_messages import multipart

from fastlisten.mail.mime.base_subject import base_subject
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.sent_date import parse_date
from fastlisten.mail.mime.text import body_contains, field_contains, fold, text_contains

HTML = b"Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable"
BASE64 = b"Content-Transfer-Encoding: base64\n\n"
INNER = b"Content-Type: message/rfc822\n\n"

MESSAGES = (
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nneedle\n",
    "Subject: Grüße\n\nKäse\n".encode(),
    b"Subject: =?iso-8859-1?q?Gr=FC?= =?iso-8859-1?b?32U=?=\n\n",
    b"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n"
    b"k=E4=\nse needle\n",
    b"Content-Type: text/plain; charset=utf-8\n" + BASE64 + base64.encodebytes("Käse".encode()),
    b"Content-Type: text/plain; charset=koi8-r\n\n" + "игла".encode("koi8-r"),
    b"Content-Type: text/plain; charset=iso-2022-jp\n\n" + "日本語 needle".encode("iso-2022-jp"),
    b"Content-Type: application/octet-stream\n\nneedle\n",
    b"Content-Type: application/pdf; name=needle\n\nx\n",
    multipart(b"b", HTML + b"\r\nX-Needle: x\r\n\r\n<b>k=E4se", b"Content-ID: <needle>\r\n\r\n"),
    multipart(b"b", b"\r\nx").replace(b"--b", b"needle\r\n--b", 1),
    INNER + b"Subject: needle\n\ntext\n",
    INNER + b"Subject: =?utf-8?q?K=C3=A4se?=\n\nneedle\n",
    INNER + b"Content-Type: application/x\n\nneedle\n",
    b"Content-Type: message/rfc822\n" + BASE64 + base64.encodebytes(b"Subject: needle\n\nx\n"),
    b"Content-Type: message/delivery-status\n\nneedle: x\n",
    b"Content-Type: message/partial; id=x; number=2\n\nneedle\n",
    b"Subject: two\n words\nTo: =?utf-8?q?K=C3=A4se?= <needle@example.org>\n\nnee\ndle\n",
)  # fmt: skip

KEYS = (
    *("needle", "NEEDLE", "käse", "KÄSE", "kase", "grüße", "GRÜSSE", "two words", "nee dle"),
    *("x-needle", "игла", "ИГЛА", "日本", "<b>", "subject: two", "needle@", "e"),
)  # fmt: skip


@external(DOVECOT_IMAP)
def test_searches() -> None:
    with dovecot(MESSAGES) as server:
        for key in KEYS:
            folded = fold(key)
            found: dict[str, set[int]] = {"SUBJECT": set(), "BODY": set(), "TEXT": set()}
            for number, data in enumerate(MESSAGES, 1):
                root = parse(data)
                assert root.envelope is not None
                read = lambda offset, size, data=data: data[offset : offset + size]  # noqa: E731
                if field_contains(root.envelope.subject or b"", folded):
                    found["SUBJECT"].add(number)
                if body_contains(read, root, folded):
                    found["BODY"].add(number)
                if text_contains(read, root, folded):
                    found["TEXT"].add(number)
            for kind, numbers in found.items():
                assert numbers == server.search(kind, key), (kind, key)


@external(DOVECOT_IMAP)
def test_octets_in_an_unknown_charset_are_found_by_us_only() -> None:
    """RFC 3501 6.4.4 leaves it open; mail without or with a wrong charset is mostly one of two."""
    data = b"Content-Type: text/plain; charset=nonsense\n\nk\xe4se k\xc3\xa4se needle\n"
    read = lambda offset, size: data[offset : offset + size]  # noqa: E731
    with dovecot([data]) as server:
        assert server.search("BODY", "needle") == {1}
        assert body_contains(read, parse(data), fold("käse käse"))
        assert server.search("BODY", "käse käse") == set()


SUBJECTS = (
    *(b"b", b"Re: b", b"[x] b", b"a", b"Fwd: a (fwd)", b"[fwd: c]", b"A", b"re[2]: B", b"", b"Re:"),
    *(b"  d  e", b"d e", b"=?utf-8?q?=C3=84?=", "ä".encode(), b"az", b"[x]", b"[x][y]"),
    b"c (fwd) (fwd)",
)  # fmt: skip


@external(DOVECOT_IMAP)
def test_subjects_are_sorted_alike() -> None:
    subjects = [*SUBJECTS, *SUBJECTS]
    random.Random(1).shuffle(subjects)
    keys = [fold(base_subject(subject).text) for subject in subjects]
    expected = sorted(range(1, len(subjects) + 1), key=lambda number: (keys[number - 1], number))
    with dovecot([b"Subject: " + subject + b"\n\n" for subject in subjects]) as server:
        assert server.sort("SUBJECT") == expected


DATES = (
    *(b"Mon, 30 Nov 2026 14:05:06 +0000", b"30 Nov 2026 14:05:05 -0100", b"1 Dec 2026 02:00 +1300"),
    *(b"21 Nov 97 09:55:06 GMT", b"21 Nov 1997 09:55:06 EST", b"Fri, 21 Nov 1997 09:55:06 -0600"),
    *(b"Mon, 30 Nov 2026 14:05:06 PDT (x)", b"30 Nov 2026 14:05:07 Z", b"1 Jan 2026 00:30 +0100"),
)  # fmt: skip


@external(DOVECOT_IMAP)
def test_dates_are_sorted_alike() -> None:
    found = [parse_date(date) for date in DATES]
    numbers = range(1, len(DATES) + 1)
    times = {number: date.time for number, date in zip(numbers, found, strict=True) if date}
    assert len(times) == len(DATES)
    with dovecot([b"Date: " + date + b"\n\n" for date in DATES]) as server:
        assert server.sort("DATE") == sorted(numbers, key=lambda number: (times[number], number))
        for day in ("30-Nov-2026", "1-Dec-2026", "21-Nov-1997", "1-Jan-2026", "31-Dec-2025"):
            ours = {
                n
                for n, date in zip(numbers, found, strict=True)
                if date and f"{date.day:%-d-%b-%Y}" == day
            }
            assert server.search(f"SENTON {day}") == ours, day
