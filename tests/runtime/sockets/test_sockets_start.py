"""From binds to listening sockets, phase by phase.

All sockets are created, set up and bound, then all listen, then all accept; no client is accepted
or greeted before every listen has succeeded.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from support.marks import external, needs_ipv6
from support.program import program
from support.server import served

from fastlisten.config import loads
from fastlisten.errors import FastlistenError, StartError
from fastlisten.runtime.listener import State
from fastlisten.runtime.server import Server
from fastlisten.runtime.sockets.bound_socket import close_all
from fastlisten.runtime.sockets.opening import listen_all, open_all

# No test machine has it: RFC 5737 reserves it for documentation.
NOWHERE = "192.0.2.77"


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def table(name: str, bind: str, *lines: str) -> str:
    head = f'[server.listener."{name}"]\nprotocol = "smtp"\n'
    head += 'handler = "support.serving_handlers:Echo"\n'
    return head + f"bind = {bind}\n" + "".join(f"{line}\n" for line in lines)


@needs_ipv6
def test_no_socket_listens_before_all_are_bound() -> None:
    text = "".join(table(f"l{i}", '["127.0.0.1:0", "[::1]:0"]') for i in range(5))
    sockets = open_all(loads(text).listeners)
    try:
        assert len(sockets) == 10
        assert all(bound.port for bound in sockets)
        assert not any(listens(bound.sock) for bound in sockets)
        for bound in sockets:
            client = socket.socket(bound.sock.family)
            with client, pytest.raises(ConnectionRefusedError):
                client.connect((bound.bind.address, bound.port))
        listen_all(sockets)
        assert all(listens(bound.sock) for bound in sockets)
        assert not any(bound.sock.getblocking() for bound in sockets)
    finally:
        close_all(sockets)


@needs_ipv6
def test_sockets_are_opened_in_order_of_id_and_bind() -> None:
    text = table("b", '["[::1]:0", "127.0.0.1:0"]') + table("a", '"127.0.0.1:0"')
    sockets = open_all(loads(text).listeners)
    found = [(bound.listener, bound.bind.address) for bound in sockets]
    close_all(sockets)
    assert found == [("a", "127.0.0.1"), ("b", "::1"), ("b", "127.0.0.1")]


def test_failed_bind_keeps_all_from_listening(descriptors_back: None) -> None:
    text = (
        table("a", '"127.0.0.1:0"') + table("b", f'"{NOWHERE}:2525"') + table("c", '"127.0.0.1:0"')
    )
    with pytest.raises(StartError) as caught:
        open_all(loads(text).listeners)
    assert [failure.listener for failure in caught.value.failures] == ["b"]


def test_failed_listen_closes_all(descriptors_back: None) -> None:
    sockets = open_all(loads(table("a", '"127.0.0.1:0"') + table("b", '"127.0.0.1:0"')).listeners)
    # Both can be bound, since nothing listens yet and both ask for reuse; only one can listen.
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", sockets[1].port))
        thief.listen()
        with pytest.raises(StartError) as caught:
            listen_all(sockets)
        failure = caught.value.failures[0]
    assert len(caught.value.failures) == 1
    assert (failure.listener, failure.operation) == ("b", "listen")
    assert failure.errno == errno.EADDRINUSE
    assert f"held by PID {os.getpid()}, " in failure.text
    assert all(bound.sock.fileno() == -1 for bound in sockets)


def test_server_accepts_only_after_every_listen() -> None:
    """The one listen that fails is the last; clients of the first were never served."""

    async def main() -> None:
        config = loads(table("a", '"127.0.0.1:0"') + table("b", '"127.0.0.1:0"'))
        server = Server(config)
        made: list[Any] = [handler for _, handler in server._worker.handlers]
        first, last = made
        thief = socket.socket()

        async def start() -> None:
            """Take the port of `b` after it is bound and before it listens."""
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(("127.0.0.1", last.settings.port))
            thief.listen()

        last.start = start
        with thief, pytest.raises(StartError):
            await server.startup()
        assert not server.started
        assert first.made == 0
        assert first.events == ["start", "stop"]

    asyncio.run(main())


def test_handlers_are_started_before_anything_listens() -> None:
    async def main() -> None:
        server = Server(loads(table("a", '"127.0.0.1:0"')))
        handler: Any = server._worker.handlers[0][1]
        refused = []

        async def start() -> None:
            with socket.socket() as client:
                refused.append(client.connect_ex(("127.0.0.1", handler.settings.port)))

        handler.start = start
        async with server:
            assert refused == [errno.ECONNREFUSED]
            assert server.accepting

    asyncio.run(main())


@pytest.mark.parametrize("handler", ["NotReady", "WrongWords"])
def test_unusable_handler_leaves_nothing(handler: str, descriptors_back: None) -> None:
    text = table("a", '"127.0.0.1:0"')
    # One whose stop fails as well: neither the others nor the error may be lost because of it.
    text += table("b", '"127.0.0.1:0"').replace("Echo", "NeverEnds")
    text += table("c", '"127.0.0.1:0"').replace("Echo", handler)

    async def main() -> None:
        server = Server(loads(text))
        error = {"NotReady": RuntimeError, "WrongWords": FastlistenError}[handler]
        with pytest.raises(error):
            await server.startup()
        assert not server.started
        first: Any = server._worker.handlers[0][1]
        assert first.events == ["start", "stop"]
        assert all(listener.state is State.CLOSED for listener in server.listeners)

    asyncio.run(main())


@external("strace")
def test_system_calls_follow_the_phases(tmp_path: Path) -> None:
    """Every bind comes before every listen, and every listen before the first accept."""
    trace = tmp_path / "trace"
    wrapper = ["strace", "-f", "-o", str(trace), "-e", "trace=bind,listen,accept4"]
    text = "".join(table(f"l{i}", '["127.0.0.1:0", "[::]:0"]') for i in range(10))
    with program(tmp_path, text, listeners=10, wrapper=wrapper) as started:
        for name, addresses in started.addresses.items():
            assert len(addresses) == 2
            socket.create_connection(("127.0.0.1", started.port(name)), 20).close()
        assert started.stop() == 0
    calls = re.findall(r"^\d+ +(bind|listen|accept4)\(", trace.read_text(), re.MULTILINE)
    kinds = "".join(call[0] for call in calls)
    # Meanwhile, loopback pairs are opened to see what accepted sockets inherit. They are closed
    # before the server's first listen, so the longest tail of listens is the server's.
    assert re.search(r"bl{20}a+$", kinds), kinds


@external("strace")
def test_nothing_listens_when_a_bind_fails(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    wrapper = ["strace", "-f", "-yy", "-o", str(trace), "-e", "trace=listen,accept4"]
    # Without options no loopback pair is needed.
    text = table("a", '"127.0.0.1:0"', "socket.nodelay = false")
    text += table("b", f'"{NOWHERE}:2525"', "socket.nodelay = false")
    with program(tmp_path, text, listeners=0, wrapper=wrapper) as started:
        assert started.ended() == 3
    # The control socket listens before.
    calls = re.findall(r"^\d+ +(\w+\([^,)]*)", trace.read_text(), re.MULTILINE)
    assert [call for call in calls if "<UNIX" not in call] == []


@needs_ipv6
def test_served_configuration_reports_its_addresses() -> None:
    async def main() -> None:
        async with served(table("a", '["127.0.0.1:0", "[::1]:0"]')) as server:
            four, six = server.listeners[0].sockets
            assert four.address == f"127.0.0.1:{four.port}"
            assert six.address == f"[::1]:{six.port}"
            assert server.describe() == [
                f'listener "a": smtp on {four.address}, {six.address}; max-connections 8192, '
                "then refuse",
                'listener "a": it echoes',
            ]

    asyncio.run(main())
