"""A loop that is closed while it serves: nothing leaks or crashes, and a warning says so.

Rules of this file: everything is released by closing sockets, by the garbage collector or by both;
the fixture checks that no descriptor is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from typing import Any

import pytest
from support.loops import LoopFactory

import fastlisten
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Keeper(asyncio.Protocol):
    """Keeps its transport and notes its callbacks."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.heard.append("made")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.heard.append("lost")


def serve_and_close_the_loop(
    loop_factory: LoopFactory, keepers: list[Keeper], clients: list[socket.socket], **options: Any
) -> tuple[fastlisten.ConnectionServer, weakref.ref[Any]]:
    """Serve three connections and close the loop; return the server and a weak reference to the
    engine."""
    loop = loop_factory()

    async def main() -> tuple[fastlisten.ConnectionServer, weakref.ref[Any]]:
        def factory() -> Keeper:
            keepers.append(Keeper())
            return keepers[-1]

        server = await fastlisten.create_server(factory, "127.0.0.1", 0, **options)
        address = server.sockets[0].getsockname()
        clients.extend(socket.create_connection(address) for _ in range(3))
        # A connection counts as soon as it is accepted; its protocol may be made in a later turn.
        while server.connections < 3 or len(keepers) < (0 if options.get("lazy") else 3):
            await asyncio.sleep(0)
        for keeper in keepers:
            keeper.transport.write(b"hello")
        return server, weakref.ref(engine_for(loop))

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_unclosed_server_of_a_closed_loop(loop_factory: LoopFactory, lazy: bool) -> None:
    """A ResourceWarning, as for an unclosed transport; then the clients see the end."""
    keepers: list[Keeper] = []
    with contextlib.ExitStack() as stack:
        clients: list[socket.socket] = []
        server, engine = serve_and_close_the_loop(loop_factory, keepers, clients, lazy=lazy)
        for client in clients:
            stack.enter_context(client)
        for listening in server._sockets or ():
            listening.close()
        heard = [keeper.heard for keeper in keepers]
        keepers.clear()
        del server
        with pytest.warns(ResourceWarning, match="event loop gone with 3 connections open") as seen:
            gc.collect()
        # Since 3.15 the warning about an object that is being collected may keep it.
        seen.list.clear()
        gc.collect()
        assert engine() is None
        for client in clients:
            client.settimeout(5)
            assert client.recv(5) == (b"" if lazy else b"hello")
            assert client.recv(5) == b""
    assert heard == ([] if lazy else [["made"]] * 3)


def test_unclosed_server_in_a_reference_cycle(loop_factory: LoopFactory) -> None:
    """The collector can't see through connections: the next engine closes what is left."""

    class Holder(asyncio.Protocol):
        server: Any

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

    async def main(client: socket.socket) -> list[socket.socket]:
        made: list[Holder] = []

        def factory() -> Holder:
            made.append(Holder())
            return made[-1]

        server = await fastlisten.create_server(factory, "127.0.0.1", 0)
        client.connect(server.sockets[0].getsockname())
        while not made:
            await asyncio.sleep(0.001)
        made[0].server = server
        return list(server._sockets or ())

    async def again() -> None:
        server = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0)
        server.close()
        await server.wait_closed()

    def afterwards() -> None:
        gc.collect()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(again())
        gc.collect()

    with socket.socket() as client:
        client.settimeout(5)
        loop = loop_factory()
        for listening in loop.run_until_complete(main(client)):
            listening.close()
        loop.close()
        del loop
        with pytest.warns(ResourceWarning, match="event loop gone with 1 connections open"):
            afterwards()
        assert client.recv(1) == b""


def test_transports_outlive_the_loop(loop_factory: LoopFactory) -> None:
    """They are closed with the engine, and calling their methods is harmless."""
    keepers: list[Keeper] = []
    clients: list[socket.socket] = []
    server, _ = serve_and_close_the_loop(loop_factory, keepers, clients)
    transports = [keeper.transport for keeper in keepers]
    views = [transport.get_extra_info("socket") for transport in transports]
    for listening in server._sockets or ():
        listening.close()
    engine = engine_of(server)
    engine.close()
    engine.close()
    assert engine.open == 0
    for transport, view in zip(transports, views, strict=True):
        assert transport.is_closing()
        assert view.fileno() == -1
        transport.write(b"late")
        transport.pause_reading()
        transport.resume_reading()
        transport.close()
        transport.abort()
        assert transport.get_extra_info("peername")[0] == "127.0.0.1"
        assert repr(transport) == "<fastlisten.Connection closed>"
    for client in clients:
        client.close()


def engine_of(server: fastlisten.ConnectionServer) -> Any:
    """Return the engine behind a server whose loop is closed."""
    return server._acceptors[0].engine


def test_close_server_after_closing_the_loop(loop_factory: LoopFactory) -> None:
    """The listening sockets are closed; connections end with the engine."""
    keepers: list[Keeper] = []
    clients: list[socket.socket] = []
    server, _ = serve_and_close_the_loop(loop_factory, keepers, clients)
    engine = engine_of(server)
    server.close()
    assert server.sockets == ()
    # asyncio also raises when a transport has to schedule its end on a closed loop.
    for keeper in keepers:
        with pytest.raises(RuntimeError, match="loop is closed"):
            keeper.transport.close()
    assert engine.open == 0
    assert engine.closed
    for client in clients:
        client.close()


def test_engine_closed_in_a_callback(loop_factory: LoopFactory) -> None:
    """No program should do it; it must end the batch of events, not the process."""
    for callback in ("factory", "connection_made", "data_received", "connection_lost"):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_close_engine_in(callback, lazy=False))
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_close_engine_in(callback, lazy=True))


async def _close_engine_in(callback: str, *, lazy: bool) -> None:
    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context))

    class Closing(Keeper):
        def __init__(self) -> None:
            super().__init__()
            self.note("factory")

        def note(self, what: str) -> None:
            if what == callback:
                engine.close()

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.note("connection_made")

        def data_received(self, data: bytes) -> None:
            self.note("data_received")

        def connection_lost(self, exc: BaseException | None) -> None:
            self.note("connection_lost")

    server = await fastlisten.create_server(Closing, "127.0.0.1", 0, lazy=lazy)
    engine = engine_for(loop)
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(5)]
    for client in clients:
        client.sendall(b"x")
    for _ in range(25):
        await asyncio.sleep(0)
    for client in clients:
        client.close()
    for _ in range(25):
        await asyncio.sleep(0)
    assert engine.closed
    assert engine.open == 0
    server.close()
    await asyncio.wait_for(server.wait_closed(), 5)
    assert errors == []
