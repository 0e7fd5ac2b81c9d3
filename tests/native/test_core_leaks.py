"""Nothing is left after many connections that end in all ways: descriptors, slots, places, memory.

Rules of this file: an ending is a function that opens a batch of clients at a server's address and
ends them; a round is the same number of each ending. Measured after two rounds and again at the
end. A normal run ends 20,000 connections per loop, the long one (`soak`) 100,000.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.loops import LoopFactory

import fastlisten
from fastlisten._arena import Arena
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Clients open at the same time; also the limit, so that one more is refused.
BATCH = 40
#: Blocks that may differ by chance (caches, free lists, the log): far below one per connection.
SLACK_BLOCKS = 400
#: Bytes of resident memory that may differ: an arena or two of the allocator.
SLACK_RSS = 3 << 20

#: More than a connection's buffers hold, and where clients put what they read. One object each,
#: so that resident memory does not depend on how many connections are slow at the same time.
UNSENT = bytes(300_000)
SINK = bytearray(1 << 20)

RESET = struct.pack("ii", 1, 0)


class Oops(Exception):
    """Raised by the protocol on purpose."""


class Victim(asyncio.Protocol):
    """Does what the first byte says, at once or in the callback that it names."""

    transport: Any
    order = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.order == b"M":
            raise Oops

    def data_received(self, data: bytes) -> None:
        self.order = data[:1]
        if self.order == b"C":
            self.transport.close()
        elif self.order == b"A":
            self.transport.abort()
        elif self.order == b"D":
            raise Oops
        elif self.order == b"W":
            self.transport.write(UNSENT)
            self.transport.close()
        elif self.order == b"Z":
            self.transport.write(UNSENT)
            self.transport.abort()
        elif self.order == b"S":
            self.transport.get_extra_info("socket")
            self.transport.get_extra_info("sockname")
            self.transport.write(b"ok")

    def eof_received(self) -> bool:
        if self.order == b"E":
            raise Oops
        if self.order == b"H":
            self.transport.write(b"bye")
            self.transport.close()
            return True
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.order == b"L":
            raise Oops


class MadeBadly(Victim):
    """Fails in connection_made, then does as it is told."""

    order = b"M"


class Playground:
    """Servers of each kind on one loop, and clients for them.

    Attributes:
        ended: connections that were opened and are gone, refused ones included.
        errors: how often the loop's exception handler was called.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._failed)
        self.ended = 0
        self.errors = 0
        self.turn = 0
        self.servers: list[fastlisten.ConnectionServer] = []

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        assert isinstance(context["exception"], Oops), context
        self.errors += 1

    async def serve(self, factory: Callable[[], Any], **options: Any) -> int:
        """Serve on all of 127/8, whose many addresses multiply the ports; return the port."""
        server = await fastlisten.create_server(
            factory,
            "0.0.0.0",
            0,
            backlog=1024,
            options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)],
            **options,
        )
        self.servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def connect(self, port: int, count: int) -> list[socket.socket]:
        """Return connected clients."""
        clients = []
        for _ in range(count):
            self.turn += 1
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.connect((f"127.0.{self.turn >> 6 & 63}.{1 + (self.turn & 63)}", port))
            sock.setblocking(False)
            clients.append(sock)
        return clients

    def count(self, what: str) -> int:
        """Return a counter, summed over the servers."""
        return sum(server.statistics()[what] for server in self.servers)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop until the condition holds."""
        end = self.loop.time() + 20
        while not condition():
            assert self.loop.time() < end
            await asyncio.sleep(0)

    async def quiet(self) -> None:
        """Wait until no connection is left."""
        await self.until(lambda: not any(server.connections for server in self.servers))


Ending = Callable[[Playground, list[socket.socket]], Awaitable[None]]


async def end_by_order(ground: Playground, clients: list[socket.socket], order: bytes) -> None:
    """Let the server carry out an order while the client reads to the end."""
    for client in clients:
        client.send(order)
    await ground.quiet()
    for client in clients:
        with contextlib.suppress(OSError):
            while client.recv_into(SINK):
                pass
        client.close()


def by_server(letter: bytes) -> Ending:
    """Return an ending that the server performs when told."""

    async def ending(ground: Playground, clients: list[socket.socket]) -> None:
        await end_by_order(ground, clients, letter)

    return ending


def by_client(letter: bytes, end: Callable[[socket.socket], object]) -> Ending:
    """Return an ending that the client performs after the server got a letter."""

    async def ending(ground: Playground, clients: list[socket.socket]) -> None:
        for client in clients:
            if letter:
                client.send(letter)
        for _ in range(3):
            await asyncio.sleep(0)
        for client in clients:
            end(client)
        await ground.quiet()
        for client in clients:
            client.close()

    return ending


def close(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    client.close()


def reset(client: socket.socket) -> None:
    client.close()


def finish(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)


async def unsent(ground: Playground, clients: list[socket.socket]) -> None:
    """The server closes with unsent bytes, which half of the clients read."""
    for client in clients:
        client.send(b"W")
    for _ in range(3):
        await asyncio.sleep(0)
    for client in clients[::2]:
        client.close()
    reading = clients[1::2]
    while reading:
        await asyncio.sleep(0)
        for client in tuple(reading):
            with contextlib.suppress(BlockingIOError):
                if not client.recv_into(SINK):
                    reading.remove(client)
    await ground.quiet()
    for client in clients:
        client.close()


async def refused(ground: Playground, clients: list[socket.socket]) -> None:
    """As many clients again as there are places: each is refused; half of them have spoken."""
    before = ground.count("refused_limit")
    more = ground.connect(clients[0].getpeername()[1], len(clients))
    for client in more[::2]:
        client.send(b"unread")
    await ground.until(lambda: ground.count("refused_limit") == before + len(more))
    for client in (*more, *clients):
        client.close()
    ground.ended += len(more)
    await ground.quiet()


EAGER: dict[str, Ending] = {
    "closed by the server": by_server(b"C"),
    "aborted by the server": by_server(b"A"),
    "aborted with unsent bytes": by_server(b"Z"),
    "failed in data_received": by_server(b"D"),
    "closed by the client": by_client(b"", close),
    "closed by the client after speaking": by_client(b"x", close),
    "reset": by_client(b"", reset),
    "reset after speaking": by_client(b"x", reset),
    "half-closed": by_client(b"", finish),
    "half-closed and answered": by_client(b"H", finish),
    "failed in eof_received": by_client(b"E", finish),
    "failed in connection_lost": by_client(b"L", finish),
    "with a socket object": by_client(b"S", finish),
    "closed with unsent bytes": unsent,
    "refused": refused,
}


async def churn(total: int) -> dict[str, Any]:
    """End this many connections; return what was measured before and after."""
    ground = Playground()
    arena = Arena(1, 1)
    places = arena.places(0, arena.join())
    places.limit = BATCH

    def broken() -> Any:
        raise Oops

    limited = {"max_connections": places, "refusal": b"421 too many\r\n", "server_first": True}
    eager = await ground.serve(Victim, **limited)
    made_badly = await ground.serve(MadeBadly, max_connections=BATCH)
    factory_fails = await ground.serve(broken, max_connections=BATCH)
    lazy = await ground.serve(Victim, lazy=True, greeting=b"220 hello\r\n", **limited)
    lazy_fails = await ground.serve(broken, lazy=True, max_connections=BATCH)
    engine = engine_for(ground.loop)

    plan: list[tuple[int, Ending]] = [
        *((eager, ending) for ending in EAGER.values()),
        *((lazy, ending) for ending in EAGER.values()),
        (made_badly, by_client(b"", finish)),
        (made_badly, by_server(b"C")),
        (factory_fails, by_client(b"", finish)),
        (lazy_fails, by_client(b"x", finish)),
        (lazy_fails, by_client(b"", reset)),
    ]

    async def round_of_all() -> None:
        for port, ending in plan:
            accepted = ground.count("accepted")
            clients = ground.connect(port, BATCH)
            await ground.until(lambda: ground.count("accepted") == accepted + BATCH)  # noqa: B023
            await ending(ground, clients)
            ground.ended += BATCH

    def measure() -> dict[str, Any]:
        gc.collect()
        with open("/proc/self/statm") as file:
            rss = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "census": engine.census(),
            "places": (places.count, places.held),
            "blocks": sys.getallocatedblocks(),
            "rss": rss,
        }

    for _ in range(2):
        await round_of_all()
    await asyncio.sleep(0.3)
    before = measure()
    while ground.ended < total:
        await round_of_all()
    # Within this time refusals are logged and parked ones end.
    await ground.until(lambda: engine.census()["parked"] == 0)
    await asyncio.sleep(0.3)
    after = measure()
    for server in ground.servers:
        server.close()
        await server.wait_closed()
    arena.heal(0)
    return {"before": before, "after": after, "errors": ground.errors, "ended": ground.ended}


def check(found: dict[str, Any]) -> None:
    """Assert that both measurements agree."""
    before, after = found["before"], found["after"]
    assert after["descriptors"] == before["descriptors"]
    assert after["census"] == before["census"]
    assert after["places"] == before["places"] == (0, 0)
    assert after["census"]["open"] == after["census"]["endpoints"] == 0
    assert abs(after["blocks"] - before["blocks"]) < SLACK_BLOCKS
    if not os.environ.get("FASTLISTEN_SANITIZE"):
        assert after["rss"] - before["rss"] < SLACK_RSS
    assert found["errors"] > found["ended"] // 10


@pytest.mark.parametrize(
    "total",
    [
        20_000,
        pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
    ids=["normal", "long"],
)
def test_every_kind_of_ending(
    loop_factory: LoopFactory, total: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        found = runner.run(churn(total))
    check(found)
