"""Numbers at their bounds: timeouts that a slot cannot hold, many that end at once, log records."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from support.listener import Echo, Listener, crowd_of, listening
from support.loops import LoopFactory, run
from support.waiting import eventually

from fastlisten._connection import ConnectionAcceptor

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_longer_than_a_slot_can_hold(loop_factory: LoopFactory) -> None:
    """2**32 ms and a little: without a bound the timeout would be over at once."""

    async def main() -> None:
        async with (
            listening(first_byte=2**32 / 1000 + 0.1) as long,
            listening(first_byte=0.3) as short,
            crowd_of(long, 1),
            crowd_of(short, 1) as clients,
        ):
            assert await clients[0].everything() == b""
            assert long.acceptor.connections == 1

    run(loop_factory, main)


def test_many_that_end_at_once(loop_factory: LoopFactory) -> None:
    """More than one sweep takes, after a loop that was blocked for less than a standstill."""

    async def main() -> None:
        async with listening(first_byte=0.6) as listener:
            async with crowd_of(listener, 400) as clients:
                await eventually(lambda: len(listener.protocols) == 400)
                time.sleep(0.8)
                await eventually(lambda: listener.acceptor.statistics()["timed_out"] == 400)
                for client in clients:
                    assert await client.everything() == b""
            assert listener.engine.census()["served"] == 0

    run(loop_factory, main)


def test_a_pause_at_the_first_byte_is_not_a_silence(loop_factory: LoopFactory) -> None:
    """A lazy client that has spoken is not ended by the timeout for those that have not."""

    class Pausing(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async def main() -> None:
        async with (
            listening(Pausing, lazy=True, first_byte=0.5) as listener,
            crowd_of(listener, 1, first=b"x") as spoke,
        ):
            await eventually(lambda: listener.protocols)
            async with crowd_of(listener, 1) as silent:
                assert await silent[0].everything() == b""
            assert listener.acceptor.connections == 1
            listener.protocols[0].transport.resume_reading()
            assert await spoke[0].read() == b"x"

    run(loop_factory, main)


def test_more_log_records_than_are_kept(loop_factory: LoopFactory) -> None:
    """While the loop has no turn for them; how many were lost is told."""

    async def main() -> None:
        told: list[tuple[int, int]] = []

        def sink(records: list[Any], dropped: int) -> None:
            told.append((len(records), dropped))

        async with listening(lazy=True) as listener:
            before = listener.engine.sink
            listener.engine.sink = sink
            listener.engine.log_connections(True)
            try:
                async with crowd_of(listener, 1):
                    await eventually(lambda: listener.acceptor.connections == 1)
                    await eventually(lambda: told)
                    told.clear()
                    # Each attached socket is a record, and each end of one is another.
                    await _many(listener, 1100)
                await eventually(lambda: sum(count + lost for count, lost in told) >= 2200)
                assert max(count for count, _ in told) <= 1024
                # Records of ends may be written in a later turn; those of attached sockets cannot.
                assert sum(lost for _, lost in told) >= 1100 - 1024
            finally:
                listener.engine.log_connections(False)
                listener.engine.sink = before

    run(loop_factory, main)


async def _many(listener: Listener, count: int) -> None:
    """Attach sockets and close them, all without a turn of the loop."""
    pairs = [socket.socketpair() for _ in range(count)]
    for ours, _ in pairs:
        ours.setblocking(False)
        listener.acceptor.attach(ours, Echo())
    listener.acceptor.abort()
    await asyncio.sleep(0)
    for _, peer in pairs:
        peer.close()


def test_a_listening_socket_is_served_once(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening() as listener:
            with pytest.raises(ValueError, match="is already being served"):
                ConnectionAcceptor(listener.engine, listener.sock, Echo)
            async with crowd_of(listener, 1) as clients:
                await clients[0].send(b"ping")
                assert await clients[0].read() == b"ping"

    run(loop_factory, main)


def test_a_connection_is_served_once(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening() as listener, crowd_of(listener, 1) as clients:
            await eventually(lambda: listener.protocols)
            sock = listener.protocols[0].transport.get_extra_info("socket")
            with pytest.raises(ValueError, match="is already being served"):
                listener.acceptor.attach(sock, Echo())
            await clients[0].send(b"ping")
            assert await clients[0].read() == b"ping"

    run(loop_factory, main)
