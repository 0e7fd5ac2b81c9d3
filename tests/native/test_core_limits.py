"""max-connections of one listener: what takes a place, and what gives it back.

Rules of this file: few clients, one after the other. Crowds are in test_core_race.py, clients that
wait in test_core_limit_wait.py, the reply to refused ones in test_core_refusal.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.listener import Echo, Listener, bound_socket, crowd_of, listening
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.waiting import eventually

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
