"""The server that `fastlisten.create_server` returns: starting, pausing, counting, closing.

Rules of this file: as in test_create_server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import Recorder, World, play, same_as_asyncio

import fastlisten

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_start_serving_false(loop_factory: LoopFactory) -> None:
    """Until start_serving the kernel refuses clients: the socket does not listen."""

    async def script(world: World) -> None:
        server = await world.create(lambda: Recorder(world), "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        world.note("serving", server.is_serving(), await world.reachable(address))
        await server.start_serving()
        await server.start_serving()
        world.note("serving", server.is_serving(), await world.reachable(address))
        await world.until("connection_lost")
        server.close()
        world.note("serving", server.is_serving(), await world.reachable(address))
        await server.wait_closed()

    log = same_as_asyncio(script, loop_factory)
    assert [note[1] for note in log if note[0] == "serving"] == [False, True, False]


def test_closing_a_server_that_never_started(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await world.create(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)
        server.close()
        server.close()
        await world.patience(server.wait_closed())
        world.note("sockets", server.sockets)

    same_as_asyncio(script, loop_factory)


def test_starting_a_closed_server(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0)
        server.close()
        for start in (server.start_serving, server.serve_forever):
            with pytest.raises(RuntimeError, match="is closed"):
                await start()
        with pytest.raises(RuntimeError, match="is closed"):
            server.resume_accepting()
        server.pause_accepting()
        world.note("done")

    play(script, loop_factory)


def test_serve_forever(loop_factory: LoopFactory) -> None:
    """It starts serving, cannot be awaited twice, and ends by cancellation or by close."""

    async def script(world: World) -> None:
        for ending in ("cancel", "close"):
            server = await world.create(
                lambda: Recorder(world), "127.0.0.1", 0, start_serving=False
            )
            address = server.sockets[0].getsockname()
            task = asyncio.ensure_future(server.serve_forever())
            await world.settle()
            world.note("serving", server.is_serving(), await world.reachable(address))
            try:
                await server.serve_forever()
            except RuntimeError as exc:
                world.note("twice", "is already being awaited" in str(exc))
            task.cancel() if ending == "cancel" else server.close()
            try:
                await world.patience(task)
            except asyncio.CancelledError:
                world.note("cancelled", server.is_serving(), server.sockets)

    log = same_as_asyncio(script, loop_factory)
    assert sum(note[0] == "cancelled" for note in log) == 2


def test_async_with(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await world.create(lambda: Recorder(world), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        async with server as entered:
            world.note("entered", entered is server, server.is_serving())
            world.note("loop", server.get_loop() is world.loop)
            world.note("reached", await world.reachable(address))
            await world.until("connection_lost")
        world.note("left", server.is_serving(), await world.reachable(address))

    same_as_asyncio(script, loop_factory)


def test_close_keeps_connections_and_wait_closed_waits(loop_factory: LoopFactory) -> None:
    """(asyncio waits since 3.12.)"""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world))
        first, second = await world.connect(), await world.connect()
        await world.until("connection_made", 2)
        server.close()
        waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(2)]
        waiting[1].cancel()
        await first.send(b"still served")
        await world.until("data_received")
        first.close()
        await world.until("connection_lost")
        await world.settle()
        world.note("done", waiting[0].done(), server.connections)
        second.close()
        await world.patience(waiting[0])
        world.note("done", world.count("connection_lost"), server.connections)
        await world.patience(server.wait_closed())

    log = play(script, loop_factory)
    assert [note[1:] for note in log if note[0] == "done"] == [(False, 1), (2, 0)]


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_close_clients_and_abort_clients(
    loop_factory: LoopFactory, method: str, lazy: bool
) -> None:
    """close_clients sends unsent data, abort_clients may drop it; both end silent lazy clients."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), send_buffer=8192, lazy=lazy)
        slow = await world.connect(receive_buffer=4096)
        await slow.send(b"x")
        await world.until("data_received")
        world.transports[0].write(bytes(200_000))
        silent = await world.connect()
        await world.settle()
        world.note("connections", server.connections)
        getattr(server, method)()
        server.close()
        world.note("silent", await silent.rest())
        if method == "close_clients":
            world.note("slow", await slow.rest() == (bytes(200_000), "eof"))
        else:
            world.note("slow", len((await slow.rest())[0]) < 200_000)
        await world.patience(server.wait_closed())
        world.note("lost", world.count("connection_lost"))

    log = play(script, loop_factory)
    assert ("connections", 2) in log
    assert ("silent", (b"", "eof")) in log
    assert ("slow", True) in log
    assert log[-1] == ("lost", 1 if lazy else 2)


def test_close_in_callbacks(loop_factory: LoopFactory) -> None:
    """The factory or connection_made closes the server while more clients are waiting."""

    async def script(world: World) -> None:
        server: Any = None

        def factory() -> Recorder:
            server.close()
            return Recorder(world, {"connection_made": lambda p, t: server.close()})

        server = await world.serve(factory)
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(5):
                clients.append(stack.enter_context(socket.socket()))
                clients[-1].setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    clients[-1].connect(world.address)
            await world.until("connection_made")
            await world.settle()
            for client in clients:
                client.close()
        await world.patience(server.wait_closed())
        world.note("balance", world.count("connection_made") - world.count("connection_lost"))
        world.note("connections", server.connections)

    log = play(script, loop_factory)
    assert log[-2:] == [("balance", 0), ("connections", 0)]


def test_pause_and_resume_accepting(loop_factory: LoopFactory) -> None:
    """Meanwhile clients wait in the backlog and connections go on."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world))
        first = await world.connect()
        await world.until("connection_made")
        server.pause_accepting()
        server.pause_accepting()
        world.note("serving", server.is_serving())
        second = await world.connect()
        await second.send(b"hello?")
        await first.send(b"going on")
        await world.until("data_received")
        await world.settle()
        world.note("waiting", world.count("connection_made"), server.connections)
        server.resume_accepting()
        server.resume_accepting()
        world.note("serving", server.is_serving())
        await world.until("data_received", 2)
        second.close()
        await world.until("connection_lost")

    log = play(script, loop_factory)
    assert [note[1] for note in log if note[0] == "serving"] == [False, True]
    assert ("waiting", 1, 1) in log
    assert ("data_received", "bytes", b"hello?") in log


def test_statistics(loop_factory: LoopFactory) -> None:
    """They are sums over all sockets, and kept after the end."""

    async def script(world: World) -> None:
        server = await fastlisten.create_server(
            lambda: Recorder(world), ["127.0.0.1", "::1"], 0, max_connections=2, refusal=b"no\r\n"
        )
        world.note("start", server.statistics())
        world.note("connections", server.connections)
        with contextlib.ExitStack() as stack:
            for sock in server.sockets:
                stack.enter_context(socket.create_connection(sock.getsockname()[:2]))
            await world.until("connection_made", 2)
            refused = socket.create_connection(server.sockets[0].getsockname())
            stack.enter_context(refused).setblocking(False)
            world.note("refused", await world.loop.sock_recv(refused, 10))
            world.note("connections", server.connections)
        await world.until("connection_lost", 2)
        await world.settle()
        world.note("connections", server.connections)
        server.close()
        await world.patience(server.wait_closed())
        world.note("end", server.statistics())

    log = play(script, loop_factory)
    names = {
        "accepted",
        "refused_limit",
        "refused_total",
        "refused_overload",
        "accept_errors",
        "option_errors",
        "timed_out",
        "handshake_failures",
        "truncated",
    }
    assert log[0] == ("start", dict.fromkeys(names, 0))
    assert [note[1] for note in log if note[0] == "connections"] == [0, 2, 0]
    assert ("refused", b"no\r\n") in log
    assert log[-1] == ("end", dict.fromkeys(names, 0) | {"accepted": 2, "refused_limit": 1})


def test_repr(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        server = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0)
        assert repr(server).startswith("<ConnectionServer sockets=(<asyncio.TransportSocket fd=")
        server.close()
        assert repr(server) == "<ConnectionServer sockets=()>"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_place_is_held_until_connection_lost(loop_factory: LoopFactory) -> None:
    """It is free once connection_lost was called, not before."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), max_connections=1, limit_action="wait")
        first = await world.connect()
        await world.until("connection_made")
        second = await world.connect()
        await world.settle()
        world.note("connections", server.connections)
        first.close()
        await world.until("connection_made", 2)
        second.close()
        await world.until("connection_lost", 2)

    log = play(script, loop_factory)
    assert [note[0] for note in log] == [
        "connection_made",
        "connections",
        "eof_received",
        "connection_lost",
        "connection_made",
        "eof_received",
        "connection_lost",
    ]
