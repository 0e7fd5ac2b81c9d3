"""Hostile clients over real sockets: nothing of them is left, and others are served meanwhile.

Rules of this file: what the server holds is counted (connections, tasks, descriptors) before and
after. What a session makes of any octets is in test_imap_session_hostile.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, ImapServer, Lines, serve_imap
from support.kernel import open_below, open_descriptors
from support.waiting import PATIENCE, until

LOGIN = f"a LOGIN {ADDRESS} {PASSWORD}\r\nb SELECT INBOX\r\n".encode()

#: What is said, after which the client goes away without reading.
LAST: tuple[bytes, ...] = (
    b"", b"\0" * 5000, b"a" * 70_000, b"a LOGIN {99", b"a AUTHENTICATE PLAIN\r\n", LOGIN,
    LOGIN + b"c IDLE\r\n",
    LOGIN + b"c FETCH 1:* BODY[]\r\n" * 30,
    LOGIN + b"c APPEND INBOX {9}\r\n",
    LOGIN + b"c APPEND INBOX {900000+}\r\n" + b"x" * 100_000,
    LOGIN + b"c NOOP\r\n" * 20_000,
    LOGIN + b"c STORE 1:* +FLAGS (\\Seen)\r\nd MOVE 1:* INBOX\r\n" * 20,
    LOGIN + b"c SEARCH TEXT x\r\n",
)  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE + b"x" * 60_000] * 20)
        yield served


def tasks(server: ImapServer) -> int:
    """Return how many tasks the server's loop has."""
    assert server.loop is not None

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return asyncio.run_coroutine_threadsafe(count(), server.loop).result(PATIENCE)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def attack(server: ImapServer, last: bytes, end: Callable[[socket.socket], None]) -> None:
    """Connect, say something, and go away."""
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    connection = server.encrypt(plain)
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.send(last)
    end(connection)


def ended(server: ImapServer) -> int:
    assert server.handler is not None
    return sum(server.handler.counts.ends.values())


def test_nothing_is_left(server: ImapServer) -> None:
    user = server.lines("INBOX")
    user.ok("NOOP")
    work, files = tasks(server), open_below(server.directory)
    before = len(open_descriptors())
    rng = random.Random(0)
    for _ in range(5):
        for last in LAST:
            attack(server, last, rng.choice([reset, socket.socket.close]))
        user.ok("NOOP")
        user.ok("FETCH 1 FLAGS")
    server.connect().close()  # those before it have been accepted too
    until(lambda: tasks(server) == work, "the end of tasks")
    until(lambda: open_below(server.directory) == files, "the end of files")
    until(lambda: len(open_descriptors()) <= before, "the end of descriptors")


@pytest.mark.parametrize(
    "garbage",
    [b"", b"a NOOP\r\n", b"\x16\x03\x01\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 20_000],
)
def test_no_handshake(tmp_path: Path, garbage: bytes) -> None:
    """What comes instead of the handshake after STARTTLS ends the session: nothing is done."""
    with serve_imap(tmp_path, tls="starttls") as server:
        work = tasks(server)
        for count in range(1, 6):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
            client = Lines(connection)
            client.ok("STARTTLS")
            client.send(garbage)
            if garbage[:1] in (b"", b"\x16"):  # the rest may come yet
                connection.shutdown(socket.SHUT_WR)
            assert b"NOOP" not in client.stream.read()
            client.close()
            until(lambda count=count: ended(server) == count)  # type: ignore[misc]
        until(lambda: tasks(server) == work, "the end of tasks")
        assert server.handler is not None
        assert set(server.handler.counts.ends) == {"tls-failed"}
