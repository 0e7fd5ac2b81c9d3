"""Hostile messages: bounds on parts, depth, boundaries and headers; work that stays linear.

Rules of this file: work is counted, never timed: the lines of Python that run, and the octets that
are searched. It is compared between a message and one twice as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, SupportsIndex

import pytest
from support.mime_messages import multipart

from fastlisten.mail.mime import parser
from fastlisten.mail.mime.addresses import parse_addresses
from fastlisten.mail.mime.base_subject import base_subject
from fastlisten.mail.mime.compact import pack, unpack
from fastlisten.mail.mime.content_fields import content_type
from fastlisten.mail.mime.encoded_words import decoded
from fastlisten.mail.mime.limits import MAX_BOUNDARY, MAX_DEPTH, MAX_HEADER, MAX_PARTS
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.sent_date import parse_date
from fastlisten.mail.mime.structure import Part


class Watched(bytes):
    """Octets that count how many of them are searched and copied."""

    touched = 0

    def find(self, what: Any, start: Any = None, end: Any = None) -> int:
        found = super().find(what, start, end)
        last = len(self) if end is None else min(end, len(self))
        self.touched += (last if found < 0 else found) - (start or 0)
        return found

    def count(self, what: Any, start: Any = None, end: Any = None) -> int:
        self.touched += (len(self) if end is None else end) - (start or 0)
        return super().count(what, start, end)

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        self.touched += len(found) if isinstance(found, bytes) else 1
        return found


def lines_run(work: Callable[[], object]) -> int:
    """Return how many lines of Python a piece of work runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def depth(part: Part) -> int:
    return 1 + max(map(depth, part.children), default=0)


def parts(part: Part) -> int:
    return 1 + sum(map(parts, part.children))


HEAD = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def nested(count: int, body: bytes) -> bytes:
    """Return multiparts in each other, none of them closed, around a body."""
    heads = [
        b"Content-Type: multipart/mixed; boundary=b%03d\n\n--b%03d\n" % (n, n) for n in range(count)
    ]
    return b"".join(heads) + body


#: Messages of about n lines each, all of them meant to be slow to parse.
HOSTILE: dict[str, Callable[[int], bytes]] = {
    "delimiters": lambda n: HEAD + b"--b\n" * n,
    "delimiters and blank lines": lambda n: HEAD + b"--b\n\n" * (n // 2),
    "closing delimiters": lambda n: HEAD + b"--b--\n" * n,
    "parts without an end of their header": lambda n: HEAD + b"--b\nX: y\n" * (n // 2),
    "lines like delimiters": lambda n: HEAD + b"--\n" * n + b"--bb\n",
    "multiparts one after the other": lambda n: (
        HEAD
        + b"".join(
            b"--b\nContent-Type: multipart/mixed; boundary=%d\n\n" % i for i in range(n // 3)
        )
    ),
    "multiparts in each other": lambda n: nested(80, b"\n" * n),
    "delimiters of the outermost of many": lambda n: nested(80, b"--b000\n" * n),
    "boundaries that begin alike": lambda n: (
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%s\n\n--%s\n" % (b"b" * i, b"b" * i)
            for i in range(1, 50)
        )
        + b"--b\n" * n
    ),
    "messages in messages": lambda n: b"Content-Type: message/rfc822\n\n" * (n // 2),
    "one field of many lines": lambda n: b"Subject: x\n" + b" y\n" * n,
    "many fields": lambda n: b"To: a@b\n" * n,
    "fields that describe": lambda n: b"Content-Type: text/plain; a=b\n" * n,
    "lines without a colon": lambda n: b"x\n" * n,
    "no line ends": lambda n: b"x" * (3 * n),
    "CRs": lambda n: HEAD + b"\r" * (3 * n),
    "line ends": lambda n: b"x\n" + b"\r\n" * n,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_work_is_linear(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "MAX_PARTS", 10**9)
    made = HOSTILE[kind]
    messages = [Watched(made(n)) for n in (1500, 3000)]
    first, second = [lines_run(partial(parse, data)) for data in messages]
    assert second < 2.1 * first + 1000
    short, long = messages
    assert long.touched < 2.1 * short.touched + 1000
    # A few passes over all, and one more for each multipart that is open (here, at most 80).
    assert long.touched < 90 * len(long)


#: Values of about n octets that are meant to be slow to read.
VALUES: dict[str, Callable[[int], bytes]] = {
    "quotes": lambda n: b'"' * n,
    "escaped quotes": lambda n: b'"' + b'\\"' * (n // 2),
    "backslashes": lambda n: b"\\" * n,
    "open comments": lambda n: b"(" * n,
    "comments": lambda n: b"()" * (n // 2),
    "open brackets": lambda n: b"[" * n,
    "open angles": lambda n: b"<" * n,
    "words": lambda n: b"a " * (n // 2),
    "dots": lambda n: b"a." * (n // 2),
    "domains": lambda n: b"a@" + b"a." * (n // 2),
    "ats": lambda n: b"@" * n,
    "routes": lambda n: b"<" + b"@a," * (n // 3),
    "groups": lambda n: b"g:" * (n // 2),
    "addresses": lambda n: b"a@b," * (n // 4),
    "spaces": lambda n: b" " * n + b"x",
    "semicolons": lambda n: b"a/b" + b";" * n,
    "parameters": lambda n: b"a/b" + b";n=1" * (n // 4),
    "pieces": lambda n: b"a/b" + b"".join(b";n*%d=1" % i for i in range(n // 8)),
    "equals": lambda n: b"a/b;n" + b"=" * n,
    "encoded words": lambda n: b"=?utf-8?q?a?= " * (n // 14),
    "charsets of encoded words": lambda n: b"=?utf-8?q?a?= =?koi8-r?q?a?= " * (n // 30),
    "beginnings of encoded words": lambda n: b"=?utf-8?q?" * (n // 10),
    "shorter beginnings": lambda n: b"=?" * (n // 2),
    "stars": lambda n: b"a/b;n" + b"*" * n + b"=1",
}


READERS: tuple[Callable[[bytes], object], ...] = (
    parse_addresses,
    content_type,
    decoded,
    parse_date,
    base_subject,
)


@pytest.mark.parametrize("kind", VALUES)
def test_reading_values_is_linear(kind: str) -> None:
    """The lines of Python; the regular expressions never go back over what they matched."""
    short, long = (VALUES[kind](n) for n in (4000, 8000))
    for read in READERS:
        first = lines_run(partial(read, short))
        second = lines_run(partial(read, long))
        assert second < 2.1 * first + 100


@pytest.mark.parametrize("kind", VALUES)
def test_long_values_are_read(kind: str) -> None:
    """If something went back, this would not end within the time that a test has."""
    value = VALUES[kind](500_000)
    for read in READERS:
        read(value)


def test_million_delimiters() -> None:
    data = HEAD + b"--b\r\n\r\nx\r\n" * 1_000_000
    part = parse(data)
    assert len(part.children) == MAX_PARTS - 1
    assert part.end == part.children[-1].end == len(data)
    assert part.children[-1].lines > 2_900_000


def test_number_of_parts_is_bounded_among_messages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "MAX_PARTS", 3)
    for data in (
        multipart(b"b", *[b"Content-Type: message/rfc822\r\n\r\nX: y"] * 9),
        b"Content-Type: message/rfc822\n\n" * 9,
    ):
        part = parse(data)
        assert parts(part) in (3, 4)  # one more, because a message/rfc822 always has a child
        assert unpack(pack(part)) == part


@pytest.mark.parametrize(
    "data",
    [nested(3 * MAX_DEPTH, b"\nx"), b"Content-Type: message/rfc822\n\n" * 3 * MAX_DEPTH],
    ids=["multiparts", "messages"],
)
def test_depth_is_bounded(data: bytes) -> None:
    part = parse(data)
    assert depth(part) in (MAX_DEPTH, MAX_DEPTH + 1)
    while part.children:
        (part,) = part.children
    assert part.end == len(data)
    assert part.lines > 3 * MAX_DEPTH
    assert not part.is_message


def test_length_of_a_boundary_is_bounded() -> None:
    for length, count in ((MAX_BOUNDARY, 1), (MAX_BOUNDARY + 1, 0)):
        assert len(parse(multipart(b"b" * length, b"\r\nx")).children) == count


def test_length_of_a_header_is_bounded() -> None:
    """It ends where its blank line is; fields at its very end are not seen."""
    data = b"X: y\n" * (MAX_HEADER // 5 + 1) + b"Content-Type: text/html\n\nbody"
    part = parse(data)
    assert data[part.body :] == b"body"
    assert part.subtype == b"plain"


def test_values_of_all_parts_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "MAX_VALUES", 100)
    data = multipart(b"b", *[b"Content-Type: text/html\r\n\r\nx"] * 9)
    kinds = [part.subtype for part in parse(data).children]
    assert kinds == [b"html"] * 6 + [b"plain"] * 3
    found = parse(b"Subject: x\nTo: " + b"a@b," * 25 + b"\nDate: x\n\n").envelope
    assert found is not None
    assert (found.subject, found.to, found.date) == (b"x", (), b"x")


def test_length_of_a_field_is_bounded() -> None:
    part = parse(b"Content-Description: " + b"x" * 10**6 + b"\nContent-Type: text/html\n\n")
    assert part.description is not None
    assert len(part.description) < 100_000
    assert part.subtype == b"html"
