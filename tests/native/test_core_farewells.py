"""The last words to clients that are drained or cut: they arrive, and no reset overtakes them.

Rules of this file: clients have sent something that nobody has read, where that matters; closing
such a connection at once would be a reset.
"""

from __future__ import annotations

import asyncio

import pytest
from support.listener import Echo, crowd_of, listening, small_sender
from support.loops import LoopFactory, run
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

SHUTDOWN = b"421 shutting down\r\n"


class Silent(Echo):
    """Reads nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()


class Worded(Echo):
    """Has words of its own for the end."""

    last_words = b"421 my own words\r\n"


def test_abort_with_unread_input(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            listening(Silent, farewell_shutdown=SHUTDOWN) as listener,
            crowd_of(listener, 3, first=b"x" * 1000) as clients,
        ):
            await eventually(lambda: len(listener.protocols) == 3)
            await asyncio.sleep(0)
            assert listener.acceptor.abort(farewell=True) == 3
            for client in clients:
                assert await client.everything() == SHUTDOWN

    run(loop_factory, main)


@pytest.mark.parametrize("way", ["drain", "close_clients", "abort"])
def test_the_protocols_own_words(loop_factory: LoopFactory, way: str) -> None:
    async def main() -> None:
        async with (
            listening(Worded, farewell_shutdown=SHUTDOWN) as listener,
            crowd_of(listener, 1) as clients,
        ):
            await eventually(lambda: listener.protocols)
            if way == "abort":
                listener.acceptor.abort(farewell=True)
            else:
                getattr(listener.acceptor, way)()
            assert await clients[0].everything() == Worded.last_words

    run(loop_factory, main)


@pytest.mark.parametrize("way", ["drain", "close_clients", "abort"])
def test_a_lazy_client_that_is_silent(loop_factory: LoopFactory, way: str) -> None:
    async def main() -> None:
        async with (
            listening(lazy=True, greeting=b"220 hi\r\n", farewell_shutdown=SHUTDOWN) as listener,
            crowd_of(listener, 1) as clients,
        ):
            assert await clients[0].receive(8) == b"220 hi\r\n"
            if way == "abort":
                listener.acceptor.abort(farewell=True)
            else:
                getattr(listener.acceptor, way)()
            assert await clients[0].everything() == SHUTDOWN
            assert listener.protocols == []

    run(loop_factory, main)


@pytest.mark.parametrize("way", ["drain", "close_clients", "abort"])
def test_no_words_in_the_middle_of_a_greeting(loop_factory: LoopFactory, way: str) -> None:
    async def main() -> None:
        greeting = b"220 " + b"x" * 60_000 + b"\r\n"
        async with (
            listening(
                sock=small_sender(), lazy=True, greeting=greeting, farewell_shutdown=SHUTDOWN
            ) as listener,
            crowd_of(listener, 1, receive_buffer=2048) as clients,
        ):
            await eventually(lambda: listener.acceptor.connections == 1)
            # Room for the words, of which the engine knows nothing before its next turn.
            received = b""
            while (more := clients[0].at_hand()) is not None:
                received += more
            if way == "abort":
                listener.acceptor.abort(farewell=True)
            else:
                getattr(listener.acceptor, way)()
            received += (await clients[0].rest())[0]
            assert len(received) < len(greeting)
            assert greeting.startswith(received)

    run(loop_factory, main)


@pytest.mark.parametrize("way", ["drain", "close_clients"])
def test_unread_input_does_not_reset_a_farewell(loop_factory: LoopFactory, way: str) -> None:
    async def main() -> None:
        async with (
            listening(Silent, farewell_shutdown=SHUTDOWN) as listener,
            crowd_of(listener, 3, first=b"x" * 1000) as clients,
        ):
            await eventually(lambda: len(listener.protocols) == 3)
            getattr(listener.acceptor, way)()
            await eventually(lambda: listener.engine.census()["served"] == 0)
            for client in clients:
                assert await client.everything() == SHUTDOWN

    run(loop_factory, main)
