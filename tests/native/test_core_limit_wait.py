"""limit-action = "wait": clients beyond max-connections stay in the queue until a place is free.

Rules of this file: as in test_core_limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
from support.forked import Child, serving
from support.kernel import cpu_time
from support.listener import Echo, bound_socket, crowd_of, listening
from support.loops import LOOPS, LoopFactory, run
from support.waiting import eventually

from fastlisten import ConnectionServer, create_server
from fastlisten._arena import Arena

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"
#: How long to wait for something that must not happen, seconds.
A_WHILE = 0.05


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_waiting_clients_are_served_in_turn(loop_factory: LoopFactory, lazy: bool) -> None:
    async def main() -> None:
        async with (
            listening(limit=2, wait=True, greeting=GREETING, lazy=lazy) as listener,
            crowd_of(listener, 8) as guests,
        ):
            await eventually(lambda: listener.acceptor.full)
            for number in range(0, 8, 2):
                assert await guests[number].read() == GREETING
                assert await guests[number + 1].read() == GREETING
                await asyncio.sleep(A_WHILE)
                assert [guest.at_hand() for guest in guests[number + 2 :]] == [None] * (6 - number)
                assert not listener.acceptor.accepting
                guests[number + 1].close()
                guests[number].reset()
            await eventually(lambda: listener.acceptor.accepting)
            assert not listener.acceptor.full
            assert listener.acceptor.statistics()["accepted"] == 8
            assert listener.acceptor.statistics()["refused_limit"] == 0

    run(loop_factory, main)


def test_raised_limit_admits_waiting_clients(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            listening(limit=1, wait=True, greeting=GREETING) as listener,
            crowd_of(listener, 3) as guests,
        ):
            assert listener.places is not None
            assert await guests[0].read() == GREETING
            await eventually(lambda: listener.acceptor.full)
            listener.places.limit = 2
            assert await guests[1].read() == GREETING
            await asyncio.sleep(A_WHILE)
            assert guests[2].at_hand() is None
            listener.places.limit = 0
            assert await guests[2].read() == GREETING

    run(loop_factory, main)


def test_clients_that_stop_waiting_take_no_place(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            listening(limit=1, wait=True, greeting=GREETING) as listener,
            crowd_of(listener, 1) as first,
        ):
            assert listener.places is not None
            assert await first[0].read() == GREETING
            for _ in range(20):
                impatient = await listener.connect()
                impatient.reset()
                impatient = await listener.connect()
                impatient.close()
            patient = await listener.connect()
            first[0].close()
            assert await patient.read() == GREETING
            assert listener.places.count == listener.acceptor.connections == 1
            patient.close()
            await eventually(lambda: listener.places is not None and listener.places.count == 0)

    run(loop_factory, main)


def test_pause_a_full_listener(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            listening(limit=1, wait=True, greeting=GREETING) as listener,
            crowd_of(listener, 2) as guests,
        ):
            assert await guests[0].read() == GREETING
            await eventually(lambda: listener.acceptor.full)
            listener.acceptor.pause()
            guests[0].close()
            await eventually(lambda: not listener.acceptor.full)
            await asyncio.sleep(A_WHILE)
            assert guests[1].at_hand() is None
            listener.acceptor.resume()
            assert await guests[1].read() == GREETING

    run(loop_factory, main)


def test_full_listener_uses_no_cpu() -> None:
    # Both loops idle at the same time. One place is given back by the other process.
    arena = Arena(1, 3)
    mine = arena.places(0, arena.join())
    mine.limit = 3
    assert mine.take()
    sock = bound_socket()
    keep = [sock.fileno(), arena.fd, *arena.wakeups]

    async def start() -> ConnectionServer:
        return await create_server(
            Echo,
            sock=sock,
            backlog=4096,
            max_connections=arena.places(0, arena.join()),
            limit_action="wait",
            greeting=GREETING,
        )

    with contextlib.ExitStack() as stack:
        stack.callback(sock.close)
        servers = [
            stack.enter_context(Child(serving(factory, start), keep)) for factory in LOOPS.values()
        ]
        assert [server.hear() for server in servers] == ["ready"] * 2

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(sock.getsockname(), 20))

        served = [connect() for _ in range(2)]
        assert [client.recv(100) for client in served] == [GREETING] * 2
        queued = [connect() for _ in range(30)]
        time.sleep(0.1)
        before = [cpu_time(server.pid) for server in servers]
        time.sleep(1)
        used = [cpu_time(server.pid) - start for server, start in zip(servers, before, strict=True)]
        assert max(used) < 0.05, dict(zip(LOOPS, used, strict=True))
        assert sum(server.ask("connections") for server in servers) == 2
        # A place given back here, in neither of them, is taken by one of them, and then by each
        # client of the queue in turn.
        mine.give()
        for client in queued:
            assert client.recv(100) == GREETING
            client.close()


def test_two_waiting_sockets_share_one_wakeup_bit(loop_factory: LoopFactory) -> None:
    """If one finds no client it gives its place back, and the other must be woken."""

    async def main() -> None:
        arena = Arena(1, 1)
        places = arena.places(0, arena.join())
        places.limit = 1
        servers = [
            await create_server(
                asyncio.Protocol,
                "127.0.0.1",
                0,
                max_connections=places,
                limit_action="wait",
                greeting=b"hello\r\n",
                lazy=True,
            )
            for _ in range(2)
        ]
        addresses = [server.sockets[0].getsockname() for server in servers]
        for turn in range(40):
            first = await asyncio.open_connection(*addresses[turn % 2])
            assert await first[0].readline() == b"hello\r\n"
            waiting = await asyncio.open_connection(*addresses[(turn + 1) % 2])
            await asyncio.sleep(0.002)
            first[1].close()
            assert await asyncio.wait_for(waiting[0].readline(), 5) == b"hello\r\n"
            waiting[1].close()
        for server in servers:
            server.close()
        for server in servers:
            await server.wait_closed()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
