"""Requests that two servers might interpret differently are refused, in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_hostile import CHUNKED, HEAD, HOSTILE

from fastlisten.handlers.http.body import ChunkedBody, CountedBody
from fastlisten.handlers.http.head import HeadReader, Request, RequestError
from fastlisten.handlers.http.reader import RequestReader

#: Requests that are as they should be, and the bodies that are in them.
GOOD: dict[str, tuple[bytes, bytes]] = {
    "a length": (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc"),
    "chunks": (CHUNKED + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", b"abcdefg"),
    "extensions": (CHUNKED + b'3;a=b;c="d e"\r\nabc\r\n0;x\r\n\r\n', b"abc"),
    "commas elsewhere": (HEAD + b"Content-Length: 3\r\nAccept: a, b\r\n\r\nabc", b"abc"),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX: a\r\nY: b\r\n\r\n", b"abc"),
    "line ends as data": (CHUNKED + b"6\r\n\r\r\n\n \0\r\n0\r\n\r\n", b"\r\r\n\n \0"),
    "line ends in a body": (HEAD + b"Content-Length: 5\r\n\r\n\n\r\n \r", b"\n\r\n \r"),
    "many fields": (HEAD + b"a:\r\n" * 250 + b"\r\n", b""),
    "nothing": (HEAD + b"\r\n", b""),
    "the largest body": (HEAD + b"Content-Length: 1000\r\n\r\n" + bytes(1000), bytes(1000)),
}


MAX_HEAD, MAX_BODY = 8192, 1000

#: More than any of these requests.
WHOLE = 1 << 20


def read(data: bytes, sizes: list[int]) -> tuple[list[Request], bytes, bytes]:
    """Give octets in pieces; return the requests, their bodies, and what was not read."""
    reader = RequestReader(HeadReader(), MAX_HEAD, MAX_BODY)
    requests: list[Request] = []
    bodies = b""
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        reader.buffer += data[at : at + size]
        at += size
        number += 1
        while reader.buffer:
            before = len(reader.buffer)
            if reader.body is not None:
                bodies += reader.next_data()
            elif (request := reader.next_request()) is not None:
                requests.append(request)
            if len(reader.buffer) == before:
                break
    return requests, bodies, bytes(reader.buffer)


def one(data: bytes) -> Request:
    """Return the one request in some octets."""
    ((request,), _, _) = read(data, [WHOLE])
    return request


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("size", [1, 7, WHOLE])
def test_hostile_requests_are_refused(name: str, size: int) -> None:
    data, status = HOSTILE[name]
    with pytest.raises(RequestError) as caught:
        read(data, [size])
    assert caught.value.status == status


@pytest.mark.parametrize("name", GOOD)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_good_requests_are_read_in_any_pieces(name: str, sizes: list[int]) -> None:
    data, body = GOOD[name]
    requests, found, rest = read(data, sizes)
    assert (len(requests), found, rest) == (1, body, b"")


@given(
    data=st.binary(max_size=200),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    start=st.sampled_from([b"", HEAD, CHUNKED, CHUNKED + b"3\r\nabc\r\n"]),
)
def test_any_bytes_are_read_alike_in_any_pieces(
    data: bytes, sizes: list[int], start: bytes
) -> None:
    def outcome(pieces: list[int]) -> object:
        try:
            requests, bodies, rest = read(start + data, pieces)
        except RequestError:
            return "refused"
        return [(each.method, each.target, each.headers) for each in requests], bodies, rest

    whole, cut = outcome([WHOLE]), outcome(sizes)
    assert "refused" in (whole, cut) or whole == cut


def test_host_of_an_absolute_target_replaces_the_field() -> None:
    request = one(b"GET http://Example.com:81/a?b HTTP/1.1\r\nHost: other\r\nX: y\r\n\r\n")
    assert request.target == b"/a?b"
    assert request.headers == [(b"host", b"Example.com:81"), (b"x", b"y")]


@pytest.mark.parametrize(
    ("target", "path"), [(b"http://a", b"/"), (b"HTTPS://a?b", b"/?b"), (b"http://[::1]/", b"/")]
)
def test_absolute_target_becomes_a_path(target: bytes, path: bytes) -> None:
    assert one(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target).target == path


def test_options_asterisk_is_accepted() -> None:
    assert one(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target == b"*"


def test_unknown_method_and_minor_version_are_accepted() -> None:
    request = one(b"FROB /x HTTP/1.7\r\nHost: a\r\n\r\n")
    assert (request.method, request.version, request.close) == (b"FROB", "1.7", False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"", (False, False)),
        (b"Connection: close\r\n", (True, False)),
        (b"Connection: keep-alive,  CLOSE \r\n", (True, False)),
        (b"Connection: foo\r\nConnection: close\r\n", (True, False)),
        (b"Connection: closed\r\n", (False, False)),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", (False, True)),
        (b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c, WebSocket\r\n", (False, True)),
        (
            b"Connection: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
            (False, True),
        ),
        (b"Upgrade: websocket\r\n", (False, False)),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", (False, False)),
    ],
)
def test_connection_and_upgrade_are_lists(fields: bytes, expected: tuple[bool, bool]) -> None:
    request = one(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert (request.close, request.websocket) == expected


GOOD_HOSTS = [
    *("", "a", "a:", "a:80", "A.b-c_d~e", "127.0.0.1:8080", "[::1]", "[::1]:443", "a%20b"),
    *("[v1.a:b]", "xn--bcher-kva.example", "a!$&'()*+,;=b", "example.org."),
]
BAD_HOSTS = [
    *("a b", "a/b", "a?b", "a#b", "u@a", "a\\b", "a:b", "a:80:80", "a:-1", "a:+80", "a:8 0"),
    *("a:999999", "[::1", "::1", "[::1]x", "[]", "[::1]:x", "[g::1]", "a%", "a%2", "a%zz", '"a"'),
    *("<a>", "a|b", "a^b", "a`b", "{a}", "127.0.0.1%evil.example", "[fe80::1%eth0]", "a\xe9"),
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_valid_host_is_accepted(host: str) -> None:
    data = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode("latin-1")
    assert one(data).headers == [(b"host", host.encode())]


@pytest.mark.parametrize(
    ("host", "absolute"),
    [(host, False) for host in BAD_HOSTS]
    # With these the path begins, or the query.
    + [(host, True) for host in BAD_HOSTS if host not in ("a/b", "a?b")],
)
def test_invalid_host_is_refused(host: str, absolute: bool) -> None:
    form = b"GET http://%b/ HTTP/1.1\r\nHost: a" if absolute else b"GET / HTTP/1.1\r\nHost: %b"
    with pytest.raises(RequestError) as caught:
        one(form % host.encode("latin-1") + b"\r\n\r\n")
    assert caught.value.status == 400


def test_counted_body_is_read_in_slices_up_to_its_end() -> None:
    body, buffer = CountedBody(100_000), bytearray(100_005)
    sizes = []
    while not body.done:
        sizes.append(len(body.read(buffer)))
    assert (sizes, len(buffer)) == ([65536, 34464], 5)


def test_chunks_read_in_one_call_are_bounded() -> None:
    body, buffer = ChunkedBody(None, MAX_HEAD), bytearray(b"1\r\na\r\n" * 1000 + b"0\r\n\r\nGET")
    calls = 0
    found = b""
    while not body.done:
        piece = body.read(buffer)
        assert len(piece) <= 128
        found += piece
        calls += 1
    assert (found, bytes(buffer)) == (b"a" * 1000, b"GET")
    assert calls > 10


def test_chunk_extensions_are_bounded() -> None:
    body = ChunkedBody(None, MAX_HEAD)
    buffer = bytearray((b"1;" + b"x" * 4000 + b"\r\na\r\n") * 10)
    with pytest.raises(RequestError) as caught:
        body.read(buffer)
    assert caught.value.status == 400
