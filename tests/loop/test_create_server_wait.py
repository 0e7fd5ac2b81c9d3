"""`wait_for_connections`: waiting until the connections of a server have ended, or most of them.

Rules of this file: as in test_create_server. Nothing is timed: what must not have ended yet is
looked at after the loop has counted the connections at least once.
"""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.loops import on_loops
from support.server import connect
from support.waiting import PATIENCE, eventually

import fastlisten
from fastlisten.loop import connection_server

pytestmark = pytest.mark.usefixtures("descriptors_back")


async def served(count: int) -> tuple[connection_server.ConnectionServer, list[socket.socket]]:
    """Return a server and its clients, all of them accepted."""
    server = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clients = [await connect("127.0.0.1", port) for _ in range(count)]
    await eventually(lambda: server.connections == count, "the connections")
    return server, clients


@on_loops
async def test_waits_until_the_last_connection_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_server, "_COUNT_INTERVAL", 0)
    server, clients = await served(2)
    server.close()
    waiting = asyncio.ensure_future(server.wait_for_connections())
    clients.pop().close()
    await eventually(lambda: server.connections == 1, "the end of the first")
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    clients.pop().close()
    await asyncio.wait_for(waiting, PATIENCE)
    assert server.connections == 0
    await server.wait_for_connections()  # nothing to wait for any more
    await server.wait_closed()


@on_loops
async def test_waits_for_some_of_them_while_paused() -> None:
    server, clients = await served(3)
    server.pause_accepting()
    await server.wait_for_connections(at_most=3)
    waiting = asyncio.ensure_future(server.wait_for_connections(at_most=1))
    clients.pop().close()
    clients.pop().close()
    await asyncio.wait_for(waiting, PATIENCE)
    assert server.connections == 1
    assert server.sockets  # it was not closed
    clients.pop().close()
    server.close()
    await server.wait_closed()


@on_loops
async def test_timeout_leaves_the_connections_open() -> None:
    server, (client,) = await served(1)
    server.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await server.wait_for_connections()
    assert server.connections == 1
    server.abort_clients()
    await asyncio.wait_for(server.wait_for_connections(), PATIENCE)
    client.close()
    await server.wait_closed()


@on_loops
async def test_negative_number_is_an_error() -> None:
    server, _ = await served(0)
    with pytest.raises(ValueError, match="0 or more, not -1"):
        await server.wait_for_connections(-1)
    server.close()
    await server.wait_closed()
