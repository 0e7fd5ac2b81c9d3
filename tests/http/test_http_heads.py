"""The reader of heads: no head changes how the next one is read, and which octets may stand where.

One reader, with one httptools parser, serves all connections of a listener, so a state that a head
leaves behind would reach the requests of other clients.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from httptools import HttpRequestParser
from support.http_hostile import HOSTILE

from fastlisten.handlers.http.head import HeadReader, RequestError, find_end

HOST = b"Host: a\r\n"
PLAIN = b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n"

#: Lines after which a parser of httptools is not as new.
STATES = [
    b"Connection: close\r\n",
    b"Connection: Close, x\r\n",
    b"Connection: x\r\nConnection: close\r\n",
    b"Proxy-Connection: close\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
    b"Connection: keep-alive\r\n",
    b"connection: KEEP-ALIVE\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: x\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"No colon\r\n",
    b" folded\r\n",
    b"Host: twice\r\n",
]
LINES = (b"GET / HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"CONNECT a:1 HTTP/1.1\r\n")
BEFORE = [line + HOST + state + b"\r\n" for line in LINES for state in STATES]
BEFORE += [data[: find_end(data, 0)] for data, _ in HOSTILE.values() if find_end(data, 0) > 0]


def outcome(reader: HeadReader, head: bytes) -> object:
    """Return what the reader makes of a head."""
    try:
        request = reader.read(head)
    except RequestError as error:
        return error.status
    return request.target, request.headers, request.length, request.close, request.websocket


@pytest.mark.parametrize("before", BEFORE)
def test_head_is_read_alike_after_any_other(before: bytes) -> None:
    reader = HeadReader()
    for head in (PLAIN, before, PLAIN, PLAIN, before, before, PLAIN):
        assert outcome(reader, head) == outcome(HeadReader(), head)


def test_refused_head_leaves_no_fields_to_the_next() -> None:
    reader = HeadReader()
    assert outcome(reader, b"GET / HTTP/1.1\r\nSecret: x\r\nbad line\r\n\r\n") == 400
    assert outcome(reader, PLAIN) == (b"/next", [(b"host", b"b")], 0, False, False)


def test_interrupted_head_leaves_no_fields_to_the_next() -> None:
    """Not every error comes from httptools: memory may run out, a signal handler may raise."""
    reader = HeadReader()

    class Interrupted(HttpRequestParser):
        def feed_data(self, data: Any) -> None:
            super().feed_data(data)
            raise MemoryError

    reader._parser = Interrupted(reader._fields)
    with pytest.raises(MemoryError):
        reader.read(b"GET / HTTP/1.1\r\nSecret: x\r\n\r\n")
    assert outcome(reader, PLAIN) == (b"/next", [(b"host", b"b")], 0, False, False)


@pytest.mark.parametrize(
    ("form", "allowed"),
    [
        (b"X: a%bb\r\n", b"\t \x80\xff"),
        (b"X:%bb\r\n", b"\t \x80\xff"),
        (b"X: a%b\r\n", b"\t \x80\xff"),
        (b"X%bY: b\r\n", b"!#$%&'*+-.^_`|~:"),
        (b"%bX: b\r\n", b"!#$%&'*+-.^_`|~"),
        (b"X%b: b\r\n", b"!#$%&'*+-.^_`|~:"),
        (b"X: a%bY: b\r\n", b"\t \x80\xff"),
        (b"X: a\r%bY: b\r\n", b"\n"),
        (b"X: a\r\n%b\n", b"\r"),
    ],
)
def test_only_valid_octets_are_accepted(form: bytes, allowed: bytes) -> None:
    """All control characters, and some other octets of each kind."""
    for octet in (*range(0x21), *b"!#$%&'*+-.^_`|~:\"(),/;<=>?@[\\]{}", *range(0x7F, 0x100)):
        head = b"GET / HTTP/1.1\r\n" + HOST + form % bytes([octet]) + b"\r\n"
        good = octet in allowed
        if form.startswith((b"X: a%b", b"X:%b")):
            good = good or 0x20 <= octet != 0x7F
        if find_end(head, 0) < len(head):
            head = head[: find_end(head, 0)]  # it ends before: by a bare LF, or none
        assert (outcome(HeadReader(), head) != 400) is good, (form, octet)


@pytest.mark.parametrize("line", [b"a:\r\n", b"a\n"])
def test_256_lines_are_allowed_however_short(line: bytes) -> None:
    """They include the request line and the empty line."""
    start = b"GET / HTTP/1.1\r\n" + HOST
    assert outcome(HeadReader(), start + line * 253 + b"\r\n") != 431
    assert outcome(HeadReader(), start + line * 254 + b"\r\n") == 431


@pytest.mark.parametrize("lines", [b"X: a\nY: b\r\n", b"X: a\r\nY: b\n"])
def test_bare_lf_is_refused_even_if_the_parser_accepts_it(lines: bytes) -> None:
    if not hasattr(HttpRequestParser, "set_dangerous_leniencies"):
        pytest.skip("an httptools whose parser is always strict")
    reader = HeadReader()
    reader._parser = HttpRequestParser(reader._fields)
    reader._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
    assert outcome(reader, b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n") == 400
    # It did accept it.
    parser = HttpRequestParser(reader._fields)
    parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
    parser.feed_data(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")


def test_long_hosts_are_not_remembered() -> None:
    """What clients send must not stay in memory once they have gone."""
    reader = HeadReader()
    reader.read(PLAIN)
    tracemalloc.start()
    try:
        for number in range(32):
            host = b"a" * 60_000 + b"%d" % number
            reader.read(PLAIN.replace(b"Host: b", b"Host: " + host))
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
