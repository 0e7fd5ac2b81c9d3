"""socket.linger: data unsent at close is sent for this long, then dropped.

Rules of this file: real slow readers with small buffers, so that unsent data is in the kernel.
Meanwhile the loop must stay free: SO_LINGER with a time would make close(2) block.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.forked import Child
from support.listener import Echo, Listener, bound_socket, crowd_of, listening
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Fits into the kernel's buffers of both sides, but not into the client's alone.
CONTENT = bytes(range(256)) * 400
SMALL = 4096
#: How long the loop may be blocked at most, seconds.
LAG = 0.02


def run_delay() -> float:
    """Return how long this thread has waited for a CPU, seconds: not the loop's fault."""
    with open("/proc/thread-self/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


class Lag:
    """Measures how late the loop's timers are."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.ticks = 0

    async def measure(self) -> None:
        while True:
            begin, waited = time.monotonic(), run_delay()
            await asyncio.sleep(0.005)
            late = time.monotonic() - begin - 0.005 - (run_delay() - waited)
            self.worst = max(self.worst, late)
            self.ticks += 1


@contextlib.asynccontextmanager
async def timers_on_time() -> AsyncIterator[Lag]:
    """Measure during the block; fail if the loop was ever blocked."""
    measured = Lag()
    task = asyncio.ensure_future(measured.measure())
    try:
        yield measured
    finally:
        task.cancel()
    assert measured.ticks > 5
    assert measured.worst < LAG


class Speaker(Echo):
    """Sends everything at once and closes; notes when it is told of the end."""

    content = CONTENT
    ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(self.content)
        assert self.transport.get_write_buffer_size() == 0, "not all of it is in the kernel"
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        assert exc is None
        self.ended = True


@contextlib.asynccontextmanager
async def speaking_server(factory: Any = Speaker, **settings: Any) -> AsyncIterator[Listener]:
    """Serve one client at a time, with a send buffer that holds `CONTENT`."""
    sock = bound_socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(CONTENT))
    async with listening(factory, sock, limit=1, **settings) as listener:
        yield listener


def lingering(listener: Listener) -> int:
    """Return how many connections linger; they hold a place, and nothing else."""
    counts = listener.engine.census()
    assert counts["served"] == counts["endpoints"]
    assert listener.places is not None
    assert listener.places.count == counts["open"] == listener.acceptor.connections
    return counts["lingering"]


def test_slow_reader_receives_everything(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            speaking_server(linger=PATIENCE) as listener,
            crowd_of(listener, 1, receive_buffer=SMALL) as clients,
            timers_on_time(),
        ):
            await eventually(lambda: lingering(listener) == 1)
            # The protocol has been told, although the place is not free yet.
            assert listener.protocols[0].ended
            found = b""
            while len(found) < len(CONTENT) - 20_000:
                found += await clients[0].read(5000)
                await asyncio.sleep(0.005)
            assert lingering(listener) == 1
            found += await clients[0].everything()
            assert found == CONTENT
            await eventually(lambda: lingering(listener) == 0)
            assert listener.acceptor.connections == 0

    run(loop_factory, main)


def test_reader_that_stops_is_reset_after_the_linger_time(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            speaking_server(linger=0.3, refusal=b"full", server_first=True) as listener,
            crowd_of(listener, 1, receive_buffer=SMALL) as clients,
            timers_on_time(),
        ):
            begin = time.monotonic()
            await eventually(lambda: lingering(listener) == 1)
            async with crowd_of(listener, 1) as late:
                heard = await late[0].read()
                if time.monotonic() < begin + 0.3:
                    assert heard == b"full"
            await eventually(lambda: lingering(listener) == 0)
            assert time.monotonic() >= begin + 0.3
            assert listener.acceptor.connections == 0
            with pytest.raises(ConnectionResetError):
                await clients[0].everything()

    run(loop_factory, main)


def test_fast_reader_does_not_linger(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with speaking_server(linger=PATIENCE * 2) as listener:
            for _ in range(5):
                async with crowd_of(listener, 1) as clients:
                    assert await clients[0].everything() == CONTENT
                    await eventually(lambda: listener.acceptor.connections == 0)

    run(loop_factory, main)


def test_without_linger_the_place_is_free_at_close(
    loop_factory: LoopFactory,
) -> None:
    async def main() -> None:
        async with (
            speaking_server() as listener,
            crowd_of(listener, 1, receive_buffer=SMALL) as clients,
        ):
            await eventually(lambda: listener.protocols and listener.protocols[0].ended)
            await eventually(lambda: listener.acceptor.connections == 0)
            assert lingering(listener) == 0
            assert await clients[0].everything() == CONTENT

    run(loop_factory, main)


@pytest.mark.parametrize("sent", [b"", b"unread"])
def test_client_reset_ends_lingering(loop_factory: LoopFactory, sent: bytes) -> None:
    async def main() -> None:
        async with speaking_server(linger=PATIENCE * 2) as listener:
            client = await listener.connect(receive_buffer=SMALL)
            await eventually(lambda: lingering(listener) == 1)
            await asyncio.sleep(0.02)
            assert lingering(listener) == 1
            if sent:
                await client.send(sent)
            client.reset()
            await eventually(lambda: listener.acceptor.connections == 0)

    run(loop_factory, main)


def test_client_eof_does_not_end_lingering(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with speaking_server(linger=PATIENCE * 2) as listener:
            client = await listener.connect(receive_buffer=SMALL)
            await eventually(lambda: lingering(listener) == 1)
            await client.send(b"QUIT\r\n")
            client.sock.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.02)
            assert lingering(listener) == 1
            assert await client.everything() == CONTENT
            await eventually(lambda: listener.acceptor.connections == 0)
            client.close()

    run(loop_factory, main)


def test_input_while_lingering_uses_no_cpu(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with speaking_server(linger=1.0) as listener:

            def body(channel: socket.socket) -> None:
                with socket.socket() as flooding:
                    flooding.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
                    flooding.connect(listener.address)
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        while True:
                            flooding.send(bytes(1 << 20))

            with Child(body):
                await eventually(lambda: lingering(listener) == 1)
                async with timers_on_time():
                    await asyncio.sleep(0.5)
                    assert lingering(listener) == 1
                await eventually(lambda: listener.acceptor.connections == 0)

    run(loop_factory, main)


def test_abort_does_not_linger(loop_factory: LoopFactory) -> None:
    class Waiting(Speaker):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            Echo.connection_made(self, transport)
            self.transport.write(self.content)

    async def main() -> None:
        async with speaking_server(Waiting, linger=PATIENCE * 2) as listener:
            for ending in ("transport", "acceptor", "acceptor while it lingers"):
                client = await listener.connect(receive_buffer=SMALL)
                await eventually(lambda: listener.acceptor.connections == 1)
                if ending == "transport":
                    listener.protocols[-1].transport.abort()
                elif ending == "acceptor":
                    assert listener.acceptor.abort() == 1
                else:
                    listener.protocols[-1].transport.close()
                    await eventually(lambda: lingering(listener) == 1)
                    assert listener.acceptor.abort() == 1
                await eventually(lambda: listener.acceptor.connections == 0)
                assert listener.protocols[-1].ended
                client.close()

    run(loop_factory, main)


def test_unix_socket_does_not_linger(loop_factory: LoopFactory, tmp_path: Path) -> None:
    async def main() -> None:
        sock = bound_socket(socket.AF_UNIX, str(tmp_path / "socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(CONTENT))
        async with listening(Speaker, sock, limit=1, linger=PATIENCE * 2) as listener:
            client = await RawClient.connect(listener.address)
            await eventually(lambda: listener.acceptor.statistics()["accepted"] == 1)
            await eventually(lambda: listener.acceptor.connections == 0)
            assert await client.everything() == CONTENT
            client.close()

    run(loop_factory, main)


def test_so_linger_is_not_set(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(linger=3.0) as listener, crowd_of(listener, 1) as clients:
            await clients[0].send(b"ping")
            assert await clients[0].read() == b"ping"
            for sock in (listener.sock, listener.protocols[0].transport.get_extra_info("socket")):
                found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
                assert struct.unpack("ii", found) == (0, 0)

    run(loop_factory, main)
