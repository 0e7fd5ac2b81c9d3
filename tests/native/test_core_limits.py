"""max-connections of one listener: what takes a place, what gives it back, and who waits.

Rules of this file: few clients, one after the other. Crowds are in test_core_race.py, the reply to
refused clients in test_core_refusal.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.forked import Child, serving
from support.kernel import cpu_time
from support.listener import Echo, Listener, bound_socket, crowd_of, listening
from support.loops import LOOPS, LoopFactory, run
from support.raw_client import RawClient
from support.waiting import eventually

from fastlisten import ConnectionServer, create_server
from fastlisten._arena import Arena

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"
REFUSAL = b"421 full\r\n"
#: How long to wait for something that must not happen, seconds.
A_WHILE = 0.05


def test_served_up_to_the_limit_and_again_after_one_left(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            listening(limit=3, greeting=GREETING, refusal=REFUSAL, server_first=True) as listener,
            crowd_of(listener, 3) as guests,
        ):
            assert [await guest.read() for guest in guests] == [GREETING] * 3
            for guest in guests:
                late = await listener.connect()
                assert await late.everything() == REFUSAL
                late.close()
                guest.close()
                await eventually(lambda: listener.places is not None and listener.places.count == 2)
                guest.sock = (await listener.connect()).sock
                assert await guest.read() == GREETING
            assert listener.acceptor.statistics()["accepted"] == 6
            assert listener.acceptor.statistics()["refused_limit"] == 3
            assert listener.acceptor.connections == 3

    run(loop_factory, main)


# --- every way to end gives the place back ----------------------------------------------------


class Ending(Echo):
    """Ends the connection as the client's word says."""

    def data_received(self, data: bytes) -> None:
        if data == b"close":
            self.transport.close()
        elif data == b"abort":
            self.transport.abort()
        elif data == b"raise":
            raise ValueError("as asked")
        elif data == b"eof":
            self.transport.write_eof()
        elif data == b"unsent":
            self.transport.write(bytes(4_000_000))
            self.transport.close()


async def ends_after(client: RawClient, word: bytes) -> None:
    await client.send(word)
    with contextlib.suppress(ConnectionResetError):
        while await client.read():
            pass
    client.close()


async def client_shuts_down(client: RawClient) -> None:
    client.sock.shutdown(socket.SHUT_WR)
    assert await client.read() == b""
    client.close()


async def client_leaves_unread_data(client: RawClient) -> None:
    await client.send(b"unsent")
    await client.read(1)
    client.reset()


ENDINGS: dict[str, Callable[[RawClient], Awaitable[None] | None]] = {
    "close by the client": RawClient.close,
    "reset by the client": RawClient.reset,
    "half close": client_shuts_down,
    "close": lambda client: ends_after(client, b"close"),
    "abort": lambda client: ends_after(client, b"abort"),
    "exception": lambda client: ends_after(client, b"raise"),
    "write_eof": lambda client: ends_after(client, b"eof"),
    "close with unsent bytes": lambda client: ends_after(client, b"unsent"),
    "reset with unsent bytes": client_leaves_unread_data,
}


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_gives_the_place_back(
    loop_factory: LoopFactory, ending: str, lazy: bool
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        # The protocol survives the client's end, so that something else can end it.
        async with listening(Ending, limit=2, lazy=lazy, refusal=REFUSAL) as listener:
            assert listener.places is not None
            for _ in range(5):
                async with crowd_of(listener, 2) as guests:
                    await eventually(lambda: listener.acceptor.connections == 2)
                    assert listener.places.count == 2
                    for guest in guests:
                        ended = ENDINGS[ending](guest)
                        if ended is not None:
                            await ended
                    await eventually(lambda: listener.acceptor.connections == 0)
                    assert listener.places.count == 0
            assert listener.engine.census()["open"] == 0
            assert listener.acceptor.statistics()["refused_limit"] == 0

    run(loop_factory, main)


def failing() -> Any:
    raise ValueError("as asked")


class FailingAtOnce(Echo):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
        raise ValueError("as asked")


@pytest.mark.parametrize("factory", [failing, FailingAtOnce])
def test_failed_protocol_gives_its_place_back(
    loop_factory: LoopFactory, factory: Callable[[], asyncio.BaseProtocol]
) -> None:
    async def main() -> None:
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(str(context["exception"]))
        )
        async with listening(factory, limit=1) as listener:
            assert listener.places is not None
            for number in range(1, 4):
                async with crowd_of(listener, 1) as guests:
                    assert await guests[0].read() == b""
                    await eventually(lambda: listener.acceptor.connections == 0)
                    assert listener.places.count == 0
                assert complaints == ["as asked"] * number

    run(loop_factory, main)


# --- one limit, several sockets ---------------------------------------------------------------


def test_limit_covers_all_sockets_of_a_server(loop_factory: LoopFactory, tmp_path: Path) -> None:
    async def main() -> None:
        places = Arena(1).places(0, 0)
        places.limit = 3
        path = str(tmp_path / "socket")
        settings: dict[str, Any] = {"places": places, "refusal": REFUSAL, "greeting": GREETING}
        async with (
            listening(**settings) as first,
            listening(sock=bound_socket(socket.AF_INET6), **settings) as second,
            listening(sock=bound_socket(socket.AF_UNIX, path), **settings) as third,
        ):
            listeners: list[Listener] = [first, second, third]
            guests = [await listener.connect() for listener in listeners]
            assert [await guest.read() for guest in guests] == [GREETING] * 3
            for listener in listeners:
                late = await listener.connect()
                assert await late.everything() == REFUSAL
                late.close()
            guests[2].close()
            await eventually(lambda: places.count == 2)
            async with crowd_of(first, 1) as more:
                assert await more[0].read() == GREETING
                assert [listener.acceptor.connections for listener in listeners] == [2, 1, 0]
            for guest in guests:
                guest.close()

    run(loop_factory, main)


def test_limit_changes_while_serving(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            listening(limit=1, greeting=GREETING, refusal=REFUSAL, server_first=True) as listener,
            crowd_of(listener, 1) as first,
        ):
            assert listener.places is not None
            assert await first[0].read() == GREETING
            listener.places.limit = 2
            async with crowd_of(listener, 2) as more:
                assert [await one.read() for one in more] == [GREETING, REFUSAL]
                listener.places.limit = 1
                # Nobody is closed because of it, and nobody is admitted before two have left.
                await more[0].send(b"ping")
                assert await more[0].read() == b"ping"
            await eventually(lambda: listener.acceptor.connections == 1)
            async with crowd_of(listener, 1) as late:
                assert await late[0].read() == REFUSAL

    run(loop_factory, main)


# --- limit-action = wait ----------------------------------------------------------------------


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
