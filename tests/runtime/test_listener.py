"""The states of a listener: each one in the diagram at the head of runtime/listener.py, and each
transition between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator

import pytest
from support.loops import on_loops
from support.server import connect, read_all, read_some
from support.serving_handlers import Echo, LazyEcho
from support.waiting import eventually

from fastlisten._arena import Arena
from fastlisten.config import loads
from fastlisten.handlers.base import HandlerSettings
from fastlisten.loop.engines import engine_for
from fastlisten.runtime.listener import ConnectionPolicy, Listener, State
from fastlisten.runtime.sockets.opening import listen_all, open_all

pytestmark = pytest.mark.usefixtures("descriptors_back")

TEXT = """
[server.listener.it]
protocol = "http"
handler = "x:y"
bind = ["127.0.0.1:0", "127.0.0.2:0"]
"""


class Bench:
    """A listener with two sockets, its handler, and what it needs to listen."""

    def __init__(self, wait: bool, kind: type[Echo]) -> None:
        self.handler = kind(HandlerSettings("it", "echo", "host.example"))
        self.sockets = open_all(loads(TEXT).listeners)
        self.ports = [bound.port for bound in self.sockets]
        self.listener = Listener("it", self.handler, self.sockets, ConnectionPolicy(wait=wait))
        self.arena = Arena(1, 1)
        self.places = self.arena.places(0, self.arena.join())
        self.places.limit = 2
        self.engine = engine_for(asyncio.get_running_loop())

    def at(self, state: State) -> bool:
        return self.listener.state is state

    def listen(self) -> None:
        listen_all(self.sockets)
        self.listener.listen(self.engine, self.places)

    async def client(self, index: int = 0) -> socket.socket:
        """Connect to one of the two sockets."""
        return await connect(("127.0.0.1", "127.0.0.2")[index], self.ports[index])

    async def fill(self) -> tuple[socket.socket, socket.socket]:
        """Take both places."""
        clients = await self.client(0), await self.client(1)
        await eventually(lambda: self.listener.connections == 2, "two connections")
        return clients


@contextlib.asynccontextmanager
async def bench(*, wait: bool = False, kind: type[Echo] = Echo) -> AsyncIterator[Bench]:
    made = Bench(wait, kind)
    try:
        yield made
    finally:
        while made.listener.drain():
            made.listener.abort()
            await asyncio.sleep(0)
        await made.listener.closed()
        if made.engine.idle:
            made.engine.close()


@on_loops
async def test_bound_does_not_listen() -> None:
    async with bench() as made:
        assert made.at(State.BOUND)
        assert made.listener.connections == 0
        assert made.listener.statistics() == {}
        assert made.listener.places is None
        with socket.socket() as client:
            address = ("127.0.0.1", made.ports[0])
            assert client.connect_ex(address) == errno.ECONNREFUSED
        # Neither can do anything yet.
        made.listener.pause()
        made.listener.resume()
        assert made.at(State.BOUND)
        assert made.listener.abort() == 0


@on_loops
async def test_bound_to_listening() -> None:
    async with bench() as made:
        made.listen()
        assert made.at(State.LISTENING)
        assert made.listener.places is made.places
        for index in (0, 1):
            with await made.client(index) as client:
                client.send(b"x")
                assert await read_some(client, 1) == b"x"
        assert made.listener.statistics()["accepted"] == 2


@on_loops
async def test_listen_twice_is_an_error() -> None:
    async with bench() as made:
        made.listen()
        with pytest.raises(RuntimeError, match='listener "it" is listening, not bound'):
            made.listener.listen(made.engine, made.places)


@on_loops
async def test_bound_to_closed() -> None:
    async with bench() as made:
        assert made.listener.drain() == 0
        assert made.at(State.CLOSED)
        await made.listener.closed()
        with pytest.raises(RuntimeError, match="is closed, not bound"):
            made.listener.listen(made.engine, made.places)


@on_loops
async def test_listening_to_paused_and_back() -> None:
    async with bench() as made:
        made.listen()
        with await made.client() as served:
            await eventually(lambda: made.handler.open, "the connection")
            made.listener.pause()
            assert made.at(State.PAUSED)
            with await made.client(0) as first, await made.client(1) as second:
                # Connections go on, and no further client is accepted.
                for _ in range(3):
                    served.send(b"x")
                    assert await read_some(served, 1) == b"x"
                assert made.handler.made == 1
                made.listener.pause()
                made.places.limit = 10
                made.listener.resume()
                assert made.at(State.LISTENING)
                for client in (first, second):
                    client.send(b"y")
                    assert await read_some(client, 1) == b"y"
        made.listener.resume()
        assert made.at(State.LISTENING)


@on_loops
async def test_listening_to_full_and_back() -> None:
    async with bench(wait=True) as made:
        made.listen()
        one, two = await made.fill()
        with one, two:
            await eventually(lambda: made.at(State.FULL), "the limit")
            with await made.client() as waiting:
                waiting.send(b"x")
                assert made.handler.made == 2
                one.close()
                assert await read_some(waiting, 1) == b"x"
                await eventually(lambda: made.at(State.FULL), "the limit again")
                two.close()
                await eventually(lambda: made.at(State.LISTENING), "room")


@on_loops
async def test_refusing_listener_is_never_full() -> None:
    async with bench() as made:
        made.listen()
        one, two = await made.fill()
        with one, two, await made.client() as refused:
            assert await read_all(refused) == b"refused: limit\n"
            assert made.at(State.LISTENING)


@on_loops
async def test_full_to_paused_and_back() -> None:
    async with bench(wait=True) as made:
        made.listen()
        one, two = await made.fill()
        with one, two, await made.client() as waiting:
            waiting.send(b"x")
            await eventually(lambda: made.at(State.FULL), "the limit")
            made.listener.pause()
            assert made.at(State.PAUSED)
            # A place given back meanwhile is not taken.
            one.close()
            await eventually(lambda: made.listener.connections == 1, "the end of a connection")
            two.send(b"still there")
            assert await read_some(two, 11) == b"still there"
            assert made.handler.made == 2
            made.listener.resume()
            assert await read_some(waiting, 1) == b"x"


@pytest.mark.parametrize("way", ["listening", "full", "paused"])
@on_loops
async def test_drain_in_every_state(way: str) -> None:
    async with bench(wait=way == "full") as made:
        made.listen()
        one, two = await made.fill()
        with one, two:
            one.send(b"begin")
            assert await read_some(one, 5) == b"begin"
            if way == "paused":
                made.listener.pause()
            await eventually(lambda: made.at(State(way)), way)
            assert made.listener.drain() == 2
            assert made.at(State.DRAINING)
            # The idle one gets its reply and goes; the busy one is left alone, sweep after sweep.
            assert await read_all(two) == b"farewell: shutdown\n"
            await eventually(lambda: made.listener.connections == 1, "its end")
            assert made.listener.drain() == 1
            assert made.listener.drain() == 1
            with socket.socket() as late:
                refused = late.connect_ex(("127.0.0.1", made.ports[0]))
                assert refused == errno.ECONNREFUSED
            assert all(bound.sock.fileno() == -1 for bound in made.sockets)
            # There is no way back.
            made.listener.pause()
            made.listener.resume()
            assert made.at(State.DRAINING)
            one.send(b"end")
            assert await read_some(one, 3) == b"end"
            made.listener.drain()
            assert await read_all(one) == b"farewell: shutdown\n"
            await asyncio.wait_for(made.listener.closed(), 20)
            assert made.at(State.CLOSED)
            assert made.listener.drain() == 0
            assert made.places.count == 0


@on_loops
async def test_drain_without_connections() -> None:
    async with bench() as made:
        made.listen()
        assert made.listener.drain() == 0
        assert made.at(State.CLOSED)
        await made.listener.closed()


@on_loops
async def test_drain_lazy_connections() -> None:
    """They have no Python object, but get the reply all the same."""
    async with bench(kind=LazyEcho) as made:
        made.listen()
        one, two = await made.fill()
        with one, two:
            assert await read_some(one, 6) == b"hello\n"
            made.listener.drain()
            assert await read_all(one) == b"farewell: shutdown\n"
            assert await read_all(two) == b"hello\nfarewell: shutdown\n"
            assert made.handler.made == 0
            assert made.at(State.CLOSED)


@on_loops
async def test_abort_ends_a_drain() -> None:
    async with bench() as made:
        made.listen()
        one, two = await made.fill()
        with one, two:
            for client in (one, two):
                client.send(b"begin")
                assert await read_some(client, 5) == b"begin"
            assert made.listener.drain() == 2
            assert made.listener.abort() == 2
            await asyncio.wait_for(made.listener.closed(), 20)
            assert made.at(State.CLOSED)
            assert made.handler.open == []
            assert await read_all(one) == b"farewell: shutdown\n"


@on_loops
async def test_abort_without_drain_keeps_listening() -> None:
    async with bench() as made:
        made.listen()
        one, two = await made.fill()
        with one, two:
            assert made.listener.abort() == 2
            await eventually(lambda: made.listener.connections == 0, "their end")
            assert made.at(State.LISTENING)
            with await made.client() as client:
                client.send(b"x")
                assert await read_some(client, 1) == b"x"


@on_loops
async def test_listener_report() -> None:
    async with bench() as made:
        text = "['127.0.0.1:0', '127.0.0.2:0']"
        assert repr(made.listener) == f"<Listener 'it' bound {text}>"
        made.listen()
        assert repr(made.listener) == f"<Listener 'it' listening {text}>"


@on_loops
async def test_two_listeners_are_independent() -> None:
    """One is paused and drained while the other goes on, on the same engine."""
    async with bench() as one, bench() as other:
        assert one.engine is other.engine
        one.listen()
        other.listen()
        one.listener.pause()
        with await other.client() as client:
            client.send(b"x")
            assert await read_some(client, 1) == b"x"
            one.listener.drain()
            assert one.at(State.CLOSED)
            client.send(b"y")
            assert await read_some(client, 1) == b"y"
            assert other.at(State.LISTENING)


class Draining(Echo):
    """Notes each drain, and fails in it."""

    def drain(self) -> None:
        self.events.append("drain")
        raise ValueError("the handler is broken")


@on_loops
async def test_handler_is_told_once_that_the_listener_drains(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench(kind=Draining) as made:
        made.listen()
        with await made.client() as client:
            client.send(b"begin")
            assert await read_some(client, 5) == b"begin"
            assert made.listener.drain() == made.listener.drain() == 1
            assert made.handler.events == ["drain"]
            client.send(b"end")
            assert await read_some(client, 3) == b"end"
            # Its failure keeps no connection open.
            made.listener.drain()
            assert await read_all(client) == b"farewell: shutdown\n"
    assert [record.getMessage() for record in caplog.records] == [
        'listener "it": its handler failed to drain'
    ]
    # Its traceback refers to the listener.
    caplog.clear()
