"""Requests that two servers may read in two ways are refused, however their bytes arrive."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http_hostile import CHUNKED, HEAD, HOSTILE

from fastlisten.handlers.http.framing import SLICE, RequestReader

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


def reader() -> RequestReader:
    return RequestReader(max_head=8192, max_body=1000)


def read(data: bytes, sizes: list[int]) -> list[Any]:
    """Give bytes in pieces; return what came of them."""
    connection, at = reader(), 0
    events: list[Any] = []
    while at < len(data):
        size = min(sizes[len(events) % len(sizes)] if sizes else SLICE, SLICE)
        connection.receive_data(data[at : at + size])
        at += size
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            events.append(event)
    return events


def shown(events: list[Any]) -> tuple[list[type], bytes]:
    kinds = [type(event) for event in events if not isinstance(event, h11.Data)]
    return kinds, b"".join(event.data for event in events if isinstance(event, h11.Data))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("size", [1, 7, SLICE])
def test_hostile_requests_are_refused(name: str, size: int) -> None:
    data, status = HOSTILE[name]
    with pytest.raises(h11.RemoteProtocolError) as caught:
        read(data, [size])
    assert caught.value.error_status_hint == status


@pytest.mark.parametrize("name", GOOD)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_good_requests_are_read_however_they_are_cut(name: str, sizes: list[int]) -> None:
    data, body = GOOD[name]
    assert shown(read(data, sizes)) == ([h11.Request, h11.EndOfMessage], body)


@given(
    data=st.binary(max_size=200),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    start=st.sampled_from([b"", HEAD, CHUNKED, CHUNKED + b"3\r\nabc\r\n"]),
)
def test_any_bytes_are_read_the_same_way_however_they_are_cut(
    data: bytes, sizes: list[int], start: bytes
) -> None:
    def outcome(pieces: list[int]) -> object:
        try:
            return shown(read(start + data, pieces))
        except h11.RemoteProtocolError:
            return "refused"

    whole, cut = outcome([SLICE]), outcome(sizes)
    assert "refused" in (whole, cut) or whole == cut


def test_the_host_of_an_address_replaces_the_header() -> None:
    request = b"GET http://Example.com:81/a?b HTTP/1.1\r\nHost: other\r\nX: y\r\n\r\n"
    (event, _) = read(request, [])
    assert isinstance(event, h11.Request)
    assert event.target == b"/a?b"
    assert list(event.headers) == [(b"host", b"Example.com:81"), (b"x", b"y")]


@pytest.mark.parametrize(
    ("target", "path"), [(b"http://a", b"/"), (b"HTTPS://a?b", b"/?b"), (b"http://[::1]/", b"/")]
)
def test_addresses_become_paths(target: bytes, path: bytes) -> None:
    (event, _) = read(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target, [])
    assert isinstance(event, h11.Request)
    assert event.target == path


def test_options_of_the_server_as_a_whole() -> None:
    (event, _) = read(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [])
    assert isinstance(event, h11.Request)
    assert event.target == b"*"


def test_no_limit_of_bodies() -> None:
    connection = RequestReader(max_head=8192, max_body=None)
    connection.receive_data(HEAD + b"Content-Length: %d\r\n\r\n" % 2**60)
    assert isinstance(connection.next_event(), h11.Request)


def test_what_is_partial() -> None:
    connection, found = reader(), []
    for data in (b"", b"G", b"ET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        if data:
            connection.receive_data(data)
        connection.next_event()
        found.append(connection.partial)
    assert found == [False, True, False]


def test_little_is_worked_at_in_one_go_where_it_may_be_many_chunks() -> None:
    connection = RequestReader(max_head=8192, max_body=None)
    assert connection.portion == 512
    tiny, large = b"1\r\na\r\n" * 20, b"3000;x\r\n" + bytes(0x3000)
    found = []
    for data in (CHUNKED, tiny, large[:7], large[7:], b"\r", b"\n0\r\n1: a\r\n", b"\r\n"):
        connection.receive_data(data)
        while connection.next_event() not in (h11.NEED_DATA, h11.PAUSED):
            pass
        found.append(connection.portion)
    assert found == [512] * 7


def test_much_is_taken_where_it_is_the_data_of_one_chunk_or_of_a_length() -> None:
    connection = RequestReader(max_head=8192, max_body=None)
    data = CHUNKED + b"1\r\na\r\n2100;x\r\n"
    found = []
    for piece in (data[:-1], b"\n", b"a" * 0x100, b"a" * 0x1000, b"a" * 0x900, b"a" * 0x700):
        connection.receive_data(piece)
        while connection.next_event() is not h11.NEED_DATA:
            pass
        found.append(connection.portion)
    assert found == [512, SLICE, SLICE, 0x1000, 0x700, 512]
    connection = reader()
    connection.receive_data(HEAD + b"Content-Length: 3\r\n\r\n")
    connection.next_event()
    assert connection.portion == SLICE


@pytest.mark.parametrize("coding", [False, True])
def test_lengths_of_bodies_count_for_each_request(coding: bool) -> None:
    body = b"Content-Length: 600\r\n\r\n" + bytes(600)
    if coding:
        body = b"Transfer-Encoding: chunked\r\n\r\n258\r\n" + bytes(600) + b"\r\n0\r\n\r\n"
    connection = reader()
    for request in (HEAD + body, HEAD + b"Content-Length: 600\r\n\r\n" + bytes(600)):
        connection.receive_data(request)
        events = []
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            events.append(event)
        assert isinstance(events[-1], h11.EndOfMessage)
        connection.send(h11.Response(status_code=204, headers=[]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()
    connection.receive_data(HEAD + b"Content-Length: 600\r\n\r\n")
    connection.next_event()
    assert connection.portion == SLICE
