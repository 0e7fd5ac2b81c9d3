"""`socket.linger`: what happens to data that is unsent when a connection is closed.

The client's receive buffer is small and it does not read, so that the kernel keeps most of what
`Flood` writes before it closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.marks import needs_ipv6
from support.server import read_all, served
from support.serving_handlers import Flood
from support.waiting import PATIENCE, eventually

from fastlisten.runtime.listener import State
from fastlisten.runtime.server import Server

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

#: How late the loop's timers may be while connections linger, seconds.
MOST_LAG = 0.020


def text(linger: str, bind: str = "127.0.0.1:0", server: str = "") -> str:
    return (
        f"[server]\n{server}\n"
        '[server.listener.it]\nprotocol = "http"\nhandler = "support.serving_handlers:Flood"\n'
        f'bind = "{bind}"\n'
        # Room for all of it, so that the loop is done with it when the connection is closed.
        'socket.send-buffer-size = "1MiB"\n'
        f"{linger}\n"
    )


@contextlib.asynccontextmanager
async def slow_client(server: Server) -> AsyncIterator[socket.socket]:
    """Connect, make the server write and close, and do not read."""
    loop = asyncio.get_running_loop()
    bound = server.listeners[0].sockets[0]
    with socket.socket(bound.sock.family) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (bound.bind.address, bound.port))
        await loop.sock_sendall(client, b"x")
        handler: Any = server.listeners[0].handler
        made = handler.made
        await eventually(lambda: handler.made > made or handler.open == [], "the protocol")
        yield client


async def closed(server: Server, clients: int = 1) -> None:
    """Wait until the server's protocols have been told that they are closed."""
    handler: Any = server.listeners[0].handler
    await eventually(lambda: handler.made == clients and not handler.open, "connection_lost")


async def read_until_reset(client: socket.socket) -> int:
    """Return how many octets arrive before the connection is reset."""
    loop = asyncio.get_running_loop()
    received = 0
    while True:
        try:
            data = await asyncio.wait_for(loop.sock_recv(client, 65536), PATIENCE)
        except ConnectionResetError:
            return received
        assert data, "the connection ended without a reset"
        received += len(data)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", pytest.param("[::1]:0", marks=needs_ipv6)])
def test_unsent_data_is_sent_while_lingering(loop_factory: LoopFactory, bind: str) -> None:
    async def main() -> None:
        async with served(text('socket.linger = "1m"', bind)) as server:
            listener = server.listeners[0]
            async with slow_client(server) as client:
                await closed(server)
                # The protocol is done with it, the listener is not.
                assert listener.connections == 1
                assert listener.places is not None
                assert listener.places.count == 1
                assert await read_all(client) == bytes(Flood.size)
                await eventually(lambda: listener.connections == 0, "the end of the lingering")
                assert listener.places.count == 0

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("bind", ["127.0.0.1:0", pytest.param("[::1]:0", marks=needs_ipv6)])
def test_unsent_data_is_dropped_after_the_linger_time(loop_factory: LoopFactory, bind: str) -> None:
    async def main() -> None:
        async with served(text("socket.linger = 1", bind)) as server:
            listener = server.listeners[0]
            async with slow_client(server) as client:
                await closed(server)
                assert listener.connections == 1
                await eventually(lambda: listener.connections == 0, "the reset")
                assert await read_until_reset(client) < Flood.size

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_linger_0_resets_at_once(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with served(text("socket.linger = 0")) as server, slow_client(server) as client:
            await closed(server)
            await eventually(lambda: server.listeners[0].connections == 0, "the close")
            assert await read_until_reset(client) < Flood.size

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("linger", ["", "socket.linger = false"])
def test_without_linger_the_kernel_sends_in_the_background(linger: str) -> None:
    async def main() -> None:
        async with served(text(linger)) as server, slow_client(server) as client:
            await closed(server)
            await eventually(lambda: server.listeners[0].connections == 0, "the close")
            assert await read_all(client) == bytes(Flood.size)

    asyncio.run(main())


def test_client_reset_ends_lingering() -> None:
    async def main() -> None:
        async with served(text('socket.linger = "1h"')) as server:
            listener = server.listeners[0]
            async with slow_client(server) as client:
                await closed(server)
                assert listener.connections == 1
                # Closing with unread data resets.
                client.close()
                await eventually(lambda: listener.connections == 0, "the end of the lingering")

    asyncio.run(main())


def test_drain_waits_for_lingering_connections() -> None:
    async def main() -> None:
        async with served(text('socket.linger = "1h"')) as server:
            listener = server.listeners[0]
            async with slow_client(server) as client:
                await closed(server)
                server.stop()
                draining = asyncio.create_task(server.shutdown())
                await eventually(lambda: listener.state is State.DRAINING, "the drain")
                assert await read_all(client) == bytes(Flood.size)
                await draining
                assert listener.state is State.CLOSED

    asyncio.run(main())


def test_drain_ends_connections_that_linger_too_long() -> None:
    async def main() -> None:
        settings = text('socket.linger = "1h"', server='shutdown-timeout = "100ms"')
        async with served(settings) as server, slow_client(server) as client:
            await closed(server)
            server.stop()
            await server.shutdown()
            assert server.listeners[0].state is State.CLOSED
            # From here on the kernel sends in the background, as without linger.
            assert await read_all(client) == bytes(Flood.size)

    asyncio.run(main())


def run_delay() -> float:
    """Return how long this thread was ready to run while another ran instead, in seconds."""
    try:
        # proc(5): time on the processor, time on the run queue (nanoseconds), turns.
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


def test_loop_is_not_blocked_while_connections_linger(loop_factory: LoopFactory) -> None:
    """An inherited SO_LINGER with a time would make every close() block the loop for that time.

    A busy machine may delay any timer, which is subtracted as far as the kernel reports it; a
    blocked loop is late every time, so one round of several must be without delay.
    """

    async def main() -> float:
        loop = asyncio.get_running_loop()
        lag = 0.0
        async with (
            served(text("socket.linger = 1")) as server,
            contextlib.AsyncExitStack() as stack,
        ):
            listener = server.listeners[0]
            for _ in range(10):
                await stack.enter_async_context(slow_client(server))
            await eventually(lambda: listener.connections == 10, "the clients")
            while listener.connections:
                due, before = loop.time() + 0.005, run_delay()
                await asyncio.sleep(0.005)
                lag = max(lag, loop.time() - due - (run_delay() - before))
        return lag

    lags = []
    for _ in range(5):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            lags.append(runner.run(main()))
        if lags[-1] < MOST_LAG:
            return
    raise AssertionError(f"the loop's timers were late by {lags} s")
