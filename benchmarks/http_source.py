"""An HTTP client that sends an exact number of requests, or of websocket messages.

Rules of this file: it is for counting instructions, where the number must be exact; wrk stops when
its time is up. All connections send one request, then all read one response, so a server sees the
same input in every run. Its own speed does not matter.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from benchmarks.process import MeasurementError

__all__ = ["WORK", "ask_exactly"]

#: Seconds for a response: valgrind makes a server 50 times slower.
_PATIENCE = 60.0

_HOST = b"Host: 127.0.0.1:8080\r\n"

#: The masked text frame of 14 octets that is sent to websockets; the mask is zero.
_FRAME = b"\x81\x8e\0\0\0\0Hello, world!\n"

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\n" + _HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

#: What the connections send once, and then for each operation; how each answer begins.
WORK = {
    # The request of wrk.
    "hello": (b"", b"GET / HTTP/1.1\r\n" + _HOST + b"\r\n", b"HTTP/1.1 200 "),
    # Ten header fields, as a browser sends them.
    "browser": (
        b"",
        b"GET /index.html?page=1 HTTP/1.1\r\n" + _HOST + b"Connection: keep-alive\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
        b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        b"Cookie: session=0123456789abcdef0123456789abcdef\r\nUpgrade-Insecure-Requests: 1\r\n"
        b"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\n\r\n",
        b"HTTP/1.1 200 ",
    ),
    "body": (
        b"",
        b"POST / HTTP/1.1\r\n" + _HOST + b"Content-Length: 1024\r\n\r\n" + bytes(1024),
        b"HTTP/1.1 200 ",
    ),
    "chunked": (
        b"",
        b"POST / HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        b"400\r\n" + bytes(1024) + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 ",
    ),
    "websocket": (_HANDSHAKE, _FRAME, b"\x81\x0eHello, world!\n"),
}


def ask_exactly(port: int, work: str, connections: int, count: int) -> None:
    """Do some operations on each of several connections.

    Args:
        port: the server's port on 127.0.0.1.
        work: a key of `WORK`.
        connections: how many connections.
        count: operations, a multiple of `connections`.

    Raises:
        MeasurementError: a response is not the expected one, or the number is no multiple.
    """
    if count % connections:
        raise MeasurementError(f"{count} is not a multiple of {connections}")
    handshake, request, expected = WORK[work]
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), _PATIENCE))
            for _ in range(connections)
        ]
        if handshake:
            for one in opened:
                one.sendall(handshake)
                _read(one, b"HTTP/1.1 101 ", b"\r\n\r\n")
        # Responses have a body of the same 14 octets.
        ending = b"Hello, world!\n"
        for _ in range(count // connections):
            _turn(opened, request, expected, ending)


def _turn(opened: Sequence[socket.socket], request: bytes, expected: bytes, ending: bytes) -> None:
    for one in opened:
        one.sendall(request)
    for one in opened:
        _read(one, expected, ending)


def _read(sock: socket.socket, expected: bytes, ending: bytes) -> None:
    """Read a response, which must begin and end in a certain way."""
    answer = b""
    while not answer.endswith(ending):
        data = sock.recv(65536)
        answer += data
        if not data or not expected.startswith(answer[: len(expected)]):
            raise MeasurementError(f"unexpected response: {answer[:200]!r}")
