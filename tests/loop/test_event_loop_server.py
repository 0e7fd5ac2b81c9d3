"""The server object of the loop's create_server: that of the running Python version, and more.

Rules of this file: asyncio is the oracle, even where its versions differ; what only some of them
have is compared where it exists and tested on its own elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any

import pytest
from support.loop_worlds import play_on, same_on_asyncio
from support.loops import LoopFactory
from support.world import Recorder, World

import fastlisten
from fastlisten.loop import connection_server

pytestmark = pytest.mark.usefixtures("descriptors_back")

ADDRESS = ("127.0.0.1", 0)


async def turns(task: asyncio.Task[Any], world: World) -> bool:
    """Return whether a task is done once everything has settled."""
    await world.settle()
    return task.done()


def test_wait_closed(our_loop_factory: LoopFactory) -> None:
    """Before, during and after: 3.11 does not wait for the connections of a closed server."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world))
        early = asyncio.ensure_future(server.wait_closed())
        world.note("open", await turns(early, world))
        client = await world.connect()
        await world.until("connection_made")
        server.close()
        late = asyncio.ensure_future(server.wait_closed())
        world.note("closed, a client left", await turns(early, world), await turns(late, world))
        client.close()
        await world.until("connection_lost")
        world.note("all gone", await turns(early, world), await turns(late, world))
        again = asyncio.ensure_future(server.wait_closed())
        world.note("afterwards", await turns(again, world))

    log = same_on_asyncio(script, our_loop_factory)
    waits = sys.version_info >= (3, 12)
    assert ("closed, a client left", False, not waits) in log


def test_wait_closed_waits_on_every_version(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await fastlisten.create_server(lambda: Recorder(world), *ADDRESS)
        client = socket.create_connection(server.sockets[0].getsockname())
        await world.until("connection_made")
        server.close()
        late = asyncio.ensure_future(server.wait_closed())
        world.note("a client left", await turns(late, world))
        client.close()
        await world.patience(late)

    assert ("a client left", False) in play_on(script, our_loop_factory)


def test_cancelled_wait_closed(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world))
        waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(3)]
        await world.settle()
        waiting[1].cancel()
        await world.settle()
        server.close()
        await world.settle()
        world.note("done", *(task.done() for task in waiting), waiting[1].cancelled())

    same_on_asyncio(script, our_loop_factory)


@pytest.mark.parametrize("client", [False, True], ids=["idle", "with a client"])
def test_serve_forever_is_cancelled(our_loop_factory: LoopFactory, client: bool) -> None:
    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), start_serving=False)
        serving = asyncio.ensure_future(server.serve_forever())
        await world.settle()
        world.note("serving", server.is_serving())
        if client:
            one = await world.connect()
            await world.until("connection_made")
        serving.cancel()
        world.note("ended", await turns(serving, world), server.is_serving(), server.sockets)
        if client:
            one.close()
            await world.until("connection_lost")
        with pytest.raises(asyncio.CancelledError):
            await world.patience(serving)

    same_on_asyncio(script, our_loop_factory)


@pytest.mark.parametrize("closes", [False, True])
def test_serve_forever_closes_clients_as_asyncio_does(
    our_loop_factory: LoopFactory, closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some releases of asyncio do; servers made by the library never do."""
    monkeypatch.setattr(connection_server, "CLOSES_CLIENTS", closes)
    monkeypatch.setattr(connection_server, "WAITS_FOR_CONNECTIONS", True)

    async def script(world: World) -> None:
        for create in (world.loop.create_server, fastlisten.create_server):
            make: Any = create
            server = await make(lambda: Recorder(world), *ADDRESS)
            serving = asyncio.ensure_future(server.serve_forever())
            with socket.create_connection(server.sockets[0].getsockname()):
                made = world.count("connection_made")
                await world.until("connection_made", made + 1)
                serving.cancel()
                world.note("done", await turns(serving, world))
            with pytest.raises(asyncio.CancelledError):
                await world.patience(serving)

    log = play_on(script, our_loop_factory)
    assert [note[1] for note in log if note[0] == "done"] == [closes, False]


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_close_clients_and_abort_clients(our_loop_factory: LoopFactory, method: str) -> None:
    """(asyncio has it since 3.13.)"""

    async def script(world: World) -> None:
        server: Any = await world.serve(lambda: Recorder(world))
        clients = [await world.connect() for _ in range(3)]
        await world.until("connection_made", 3)
        getattr(server, method)()
        server.close()
        await world.patience(server.wait_closed())
        await world.until("connection_lost", 3)
        for client in clients:
            world.note("client", await client.rest())

    if hasattr(asyncio.Server, method):
        same_on_asyncio(script, our_loop_factory)
    log = play_on(script, our_loop_factory)
    assert [note for note in log if note[0] == "client"] == [("client", (b"", "eof"))] * 3


def test_server_has_all_public_names_of_asyncio(our_loop_factory: LoopFactory) -> None:
    """None is missing."""
    names = {name for name in dir(asyncio.Server) if not name.startswith("_")}
    assert names - set(dir(fastlisten.ConnectionServer)) == set()

    async def script(world: World) -> None:
        served = await world.serve(lambda: Recorder(world))
        assert isinstance(served, asyncio.AbstractServer)
        server: Any = served
        world.note("loop", server.get_loop() is world.loop)
        world.note("before", server._sockets is None, server._waiters is None)
        server.close()
        await world.settle()
        world.note("after", server._sockets is None, server._waiters is None)

    same_on_asyncio(script, our_loop_factory)


def test_pause_resume_and_statistics(our_loop_factory: LoopFactory) -> None:
    """asyncio has neither."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world))
        server.pause_accepting()
        await world.connect()
        await world.settle()
        world.note("paused", server.connections, server.is_serving())
        server.resume_accepting()
        await world.until("connection_made")
        world.note("resumed", server.connections, server.is_serving())
        world.note("accepted", server.statistics()["accepted"])

    log = play_on(script, our_loop_factory)
    assert ("paused", 0, False) in log
    assert ("resumed", 1, True) in log
    assert ("accepted", 1) in log


def test_debug_log_line(our_loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncio")

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        world.note("served")

    same_on_asyncio(script, our_loop_factory, debug=True)
    said = [one.getMessage() for one in caplog.records if "is serving" in one.getMessage()]
    assert len(said) == 2


def test_keep_alive(our_loop_factory: LoopFactory) -> None:
    """(An argument of asyncio's since 3.13.)"""

    async def script(world: World) -> None:
        for wanted in (True, False, None):
            server = await fastlisten_create(world, keep_alive=wanted)
            async with server:
                sock = server.sockets[0]
                world.note("set", sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0)

    log = play_on(script, our_loop_factory)
    assert [note[1] for note in log] == [True, False, False]
    if sys.version_info >= (3, 13):
        same_on_asyncio(script, our_loop_factory)


async def fastlisten_create(world: World, **options: Any) -> Any:
    """Call the loop's create_server with arguments that not every version knows."""
    return await world.create(lambda: Recorder(world), *ADDRESS, **options)


@pytest.mark.parametrize("host", [None, "", "127.0.0.1", "localhost"])
def test_names_are_resolved_by_getaddrinfo(our_loop_factory: LoopFactory, host: str | None) -> None:
    """Programs may replace loop.getaddrinfo; an address is not looked up."""

    async def script(world: World) -> None:
        asked: list[Any] = []

        async def getaddrinfo(name: Any, port: Any, **options: Any) -> Any:
            asked.append(name)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        loop: Any = world.loop
        loop.getaddrinfo = getaddrinfo
        async with await world.create(lambda: Recorder(world), host, 0) as server:
            world.note("asked", *asked)
            world.note("bound", *(sock.getsockname()[0] for sock in server.sockets))

    same_on_asyncio(script, our_loop_factory)


def test_getaddrinfo_finds_no_address(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def getaddrinfo(name: Any, port: Any, **options: Any) -> Any:
            return []

        loop: Any = world.loop
        loop.getaddrinfo = getaddrinfo
        try:
            await world.create(lambda: Recorder(world), "mail.example.org", 0)
        except OSError as exc:
            world.note("error", str(exc))

    same_on_asyncio(script, our_loop_factory)


def test_unusable_address_families(our_loop_factory: LoopFactory) -> None:
    """Families that the kernel does not know are skipped; if none is left, that is an error."""

    async def script(world: World) -> None:
        async def getaddrinfo(name: Any, port: Any, **options: Any) -> Any:
            return [(9999, socket.SOCK_STREAM, 0, "", ("address", port))]

        loop: Any = world.loop
        loop.getaddrinfo = getaddrinfo
        with pytest.raises(OSError, match="could not bind on any address out of"):
            await world.create(lambda: Recorder(world), "mail.example.org", 0)

    play_on(script, our_loop_factory)
