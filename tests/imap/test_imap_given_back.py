"""What a session has taken is given back, however it ends, at whatever it was doing.

Rules of this file: a real server and real sockets. What is counted: places of the listener,
sessions of the account, descriptors, tasks, watchers of deliveries.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, ImapServer, Lines, serve_imap
from support.kernel import open_descriptors
from support.waiting import until

from fastlisten.mail.user_sessions import user_sessions

#: More than the buffers of a connection hold.
LONG = b"Subject: long\r\n\r\n" + b"0123456789abcd\r\n" * 500_000

LOGIN = f"LOGIN {ADDRESS} {PASSWORD}"


def nothing(client: Lines) -> None:
    client.ok("NOOP")


def in_idle(client: Lines) -> None:
    client.send(b"x IDLE\r\n")
    assert client.response() == b"+ idling"


def in_fetch(client: Lines) -> None:
    client.send(b"x FETCH 2 BODY.PEEK[]\r\n")
    assert client.stream.read(2) == b"* "


def in_append(client: Lines) -> None:
    client.send(b"x APPEND INBOX {%d+}\r\n%b" % (len(LONG), LONG[:70_000]))


def in_search(client: Lines) -> None:
    client.send(b"x SEARCH TEXT nothing\r\n")


def at_once(client: Lines) -> None:
    client.send(b"x STORE 1 +FLAGS (\\Flagged)\r\ny LOGOUT\r\n")


def close(client: Lines) -> None:
    client.close()


def reset(client: Lines) -> None:
    linger = struct.pack("ii", 1, 0)
    client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()


def half_close(client: Lines) -> None:
    assert isinstance(client.connection, ssl.SSLSocket)
    socket.socket.shutdown(client.connection, socket.SHUT_WR)


Act = Callable[[Lines], None]


class Counts:
    """What a server has in use now."""

    def __init__(self, server: ImapServer) -> None:
        self.server = server

    def now(self) -> dict[str, Any]:
        handler, loop, listener = self.server.handler, self.server.loop, self.server.listener
        assert handler is not None
        assert loop is not None
        assert listener is not None
        return {
            "places": listener.connections,
            "sessions": dict(user_sessions()._held),
            "tasks": len(asyncio.all_tasks(loop)),
            "watchers": len(handler.office.subscriptions),
            "descriptors": len(
                [name for name in open_descriptors().values() if name.startswith("socket:")]
            ),
        }


@pytest.mark.parametrize("end", [close, reset, half_close])
@pytest.mark.parametrize("doing", [nothing, in_idle, in_fetch, in_append, in_search, at_once])
def test_clients_that_go_away(tmp_path: Path, doing: Act, end: Act) -> None:
    with serve_imap(tmp_path, options={"sessions-per-user": 2}) as server:
        server.deliver(MESSAGE, LONG)
        # The first session opens what stays open: the index, threads.
        server.lines("INBOX").ok("LOGOUT")
        server.close_clients()
        counts = Counts(server)
        until(lambda: counts.now()["places"] == 0, "the end of the first session")
        before = counts.now()
        clients = [server.lines("INBOX") for _ in range(2)]
        assert counts.now() != before
        for client in clients:
            doing(client)
            end(client)
        server.close_clients()
        until(lambda: counts.now() == before, "everything of before")
        server.connect().ok(LOGIN)


@pytest.mark.parametrize("doing", [nothing, in_idle])
def test_sessions_that_the_server_ends(tmp_path: Path, doing: Act) -> None:
    with serve_imap(tmp_path, idle_timeout=0.5) as server:
        server.lines("INBOX").ok("LOGOUT")
        server.close_clients()
        counts = Counts(server)
        until(lambda: counts.now()["places"] == 0, "the end of the first session")
        before = counts.now()
        client = server.lines("INBOX")
        doing(client)
        assert client.stream.read() == b"* BYE Disconnected for inactivity.\r\n"
        server.close_clients()
        until(lambda: counts.now() == before, "everything of before")
