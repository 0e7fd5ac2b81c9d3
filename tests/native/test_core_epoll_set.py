"""An ended connection is no longer in the epoll set, even if there is a copy of its descriptor.

Closing does not suffice: the kernel takes a socket out of a set only with its last descriptor, and
a forked child or a dup may hold one. It would be reported for ever, for whichever connection has
the number next.

Rules of this file: the kernel says what is in the set (/proc/self/fdinfo, proc(5)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.listener import Listener, crowd_of, listening, small_sender
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

REFUSAL = b"421 too many connections\r\n"


def watched(listener: Listener) -> set[int]:
    """Return the descriptors in the engine's epoll set."""
    lines = Path(f"/proc/self/fdinfo/{listener.engine.fd}").read_text().splitlines()
    return {int(line.split()[1]) for line in lines if line.startswith("tfd:")}


@contextlib.asynccontextmanager
async def copied(listener: Listener):  # type: ignore[no-untyped-def]
    """Connect a client and hold a copy of the server's descriptor; give (client, descriptor)."""
    before = watched(listener)
    async with crowd_of(listener, 1) as clients:
        await eventually(lambda: watched(listener) - before)
        (fd,) = watched(listener) - before
        copy = os.dup(fd)
        try:
            yield clients[0], fd
        finally:
            os.close(copy)


async def by_the_client(listener: Listener, client: RawClient) -> None:
    client.close()


async def by_the_server(listener: Listener, client: RawClient) -> None:
    listener.acceptor.abort()


async def by_a_farewell(listener: Listener, client: RawClient) -> None:
    listener.acceptor.close_clients()


@pytest.mark.parametrize("end", [by_the_client, by_the_server, by_a_farewell])
@pytest.mark.parametrize("lazy", [True, False])
def test_ended_connection_is_removed(
    loop_factory: LoopFactory,
    end: Callable[[Listener, RawClient], Awaitable[None]],
    lazy: bool,
) -> None:
    async def main() -> None:
        async with listening(lazy=lazy) as listener, copied(listener) as (client, fd):
            await end(listener, client)
            await eventually(lambda: listener.acceptor.connections == 0)
            assert fd not in watched(listener)

    run(loop_factory, main)


def test_refused_connection_is_removed(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(limit=1, refusal=REFUSAL) as listener, crowd_of(listener, 1):
            await eventually(lambda: listener.acceptor.connections == 1)
            async with copied(listener) as (client, fd):
                assert listener.engine.census()["parked"] == 1
                client.close()
                await eventually(lambda: listener.engine.census()["parked"] == 0)
                assert fd not in watched(listener)

    run(loop_factory, main)


def test_lingering_connection_is_removed(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            listening(sock=small_sender(), linger=20.0) as listener,
            copied(listener) as (client, fd),
        ):
            transport = listener.protocols[0].transport
            transport.write(bytes(200_000))
            while transport.get_write_buffer_size():
                assert await client.receive(4096)
            transport.close()
            await eventually(lambda: listener.engine.census()["lingering"] == 1)
            assert fd in watched(listener)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            await eventually(lambda: listener.engine.census()["lingering"] == 0)
            assert fd not in watched(listener)

    run(loop_factory, main)


def test_paused_or_closed_listening_socket_is_removed(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening() as other:
            async with listening() as listener:
                fd = listener.sock.fileno()
                copy = os.dup(fd)
                assert fd in watched(listener)
                listener.acceptor.pause()
                assert fd not in watched(listener)
                listener.acceptor.resume()
                assert fd in watched(listener)
            try:
                await asyncio.sleep(0)
                assert fd not in watched(other)
            finally:
                os.close(copy)

    run(loop_factory, main)
