"""What a transport tells about itself: get_extra_info, repr, identity; the contexts of callbacks.

Rules of this file: as in test_connection_callbacks; addresses are compared with those of the
client's socket instead of asyncio's log, because ports differ.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
import tempfile
from typing import Any

import pytest
from support.context_variable import setting_factory, variable
from support.loops import LoopFactory
from support.world import Hook, Recorder, World, play, same_as_asyncio

import fastlisten

pytestmark = pytest.mark.usefixtures("descriptors_back")


@pytest.mark.parametrize("asked", [True, False], ids=["asked-before", "asked-after"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_names_in_get_extra_info(loop_factory: LoopFactory, family: int, asked: bool) -> None:
    """They are the same before, in and after connection_lost."""

    async def script(world: World) -> None:
        ask: Hook = lambda p, *_: note_names(p.transport)  # noqa: E731
        peer: Any = None
        own: Any = None

        def note_names(transport: Any) -> None:
            view = transport.get_extra_info("socket")
            world.note(
                "info",
                transport.get_extra_info("peername") == peer,
                transport.get_extra_info("sockname") == own,
                transport.get_extra_info("sslcontext"),
                transport.get_extra_info("no such thing", 5),
                type(view).__name__,
                view.fileno() >= 0,
                view.family,
                view.type,
            )
            if view.fileno() >= 0:
                world.note("view", view.getsockname() == own, view.getpeername() == peer)

        hooks = {"data_received": ask, "connection_lost": ask} if asked else {}
        if family == socket.AF_UNIX:
            await world.serve(lambda: Recorder(world, hooks), unix=True)
        else:
            await world.serve(lambda: Recorder(world, hooks), family=family)
        client = await world.connect()
        peer, own = client.sock.getsockname(), client.sock.getpeername()
        await client.send(b"x")
        await world.until("data_received")
        client.close()
        await world.until("connection_lost")
        await world.settle()
        note_names(world.transports[0])

    log = same_as_asyncio(script, loop_factory)
    assert [note[1:3] for note in log if note[0] == "info"] == [(True, True)] * (3 if asked else 1)


def test_peername_of_a_unix_client(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), unix=True)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "client")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(path)
                sock.connect(world.address)
                await world.until("connection_made")
                transport = world.transports[0]
                world.note("peername", transport.get_extra_info("peername") == path)
            await world.until("connection_lost")
            world.note("peername", transport.get_extra_info("peername") == path)

    assert same_as_asyncio(script, loop_factory)[-1] == ("peername", True)


def test_peername_after_a_reset(loop_factory: LoopFactory) -> None:
    """It is known from accept; the kernel would no longer tell."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        name = client.sock.getsockname()
        client.reset()
        await world.until("connection_lost")
        world.note("peername", world.transports[0].get_extra_info("peername") == name)

    assert same_as_asyncio(script, loop_factory)[-1] == ("peername", True)


def test_socket_view_reads_and_sets_options(loop_factory: LoopFactory) -> None:
    """The view does not give away its descriptor."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        await world.connect()
        await world.until("connection_made")
        view = world.transports[0].get_extra_info("socket")
        for level, name in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.SOL_SOCKET, socket.SO_LINGER),
            (socket.SOL_SOCKET, socket.SO_TYPE),
        ):
            world.note("option", level, name, view.getsockopt(level, name) != 0)
        view.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        world.note("set", view.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        world.note("timeout", view.gettimeout())
        world.attempt("blocking", view.setblocking, True)
        world.note("closable", hasattr(view, "close"))
        world.note("inheritable", view.get_inheritable(), os.get_blocking(view.fileno()))

    same_as_asyncio(script, loop_factory)


def test_nodelay_on_any_listening_socket(loop_factory: LoopFactory) -> None:
    """asyncio leaves it off if the socket was made without a protocol number; uvloop does not."""

    made: asyncio.Queue[int] = asyncio.Queue()

    class Noting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            view = transport.get_extra_info("socket")
            made.put_nowait(view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def main() -> None:
        for protocol in (0, socket.IPPROTO_TCP):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
            sock.bind(("127.0.0.1", 0))
            server = await fastlisten.create_server(Noting, sock=sock)
            with socket.create_connection(sock.getsockname()):
                assert await made.get()
            server.abort_clients()
            server.close()
            await server.wait_closed()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_socket_view_after_the_connection_ended(loop_factory: LoopFactory) -> None:
    """It never refers to the next user of the descriptor."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        view = transport.get_extra_info("socket")
        del world.transports[0]
        client.close()
        await world.until("connection_lost")
        await world.settle()
        await world.connect()
        await world.until("connection_made", 2)
        world.note("view", view.fileno(), view is transport.get_extra_info("socket"))
        world.attempt("getpeername", view.getpeername)
        del view, transport
        other = world.transports[0].get_extra_info("socket")
        world.note("other", other.fileno() >= 0)

    same_as_asyncio(script, loop_factory)


def test_extra_info_listener(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        await world.connect()
        await world.until("connection_made")
        world.note("listener", world.transports[0].get_extra_info("listener", "unset"))

    assert play(script, loop_factory)[-1] == ("listener", None)


def test_transports_are_hashable_and_compare_by_identity(loop_factory: LoopFactory) -> None:
    """They can be keys of dictionaries and members of sets."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        for _ in range(3):
            await world.connect()
        await world.until("connection_made", 3)
        first, second, _ = world.transports
        kept = {transport: i for i, transport in enumerate(world.transports)}
        world.note("kept", kept[first], kept[second], len(set(world.transports)))
        world.note("equal", first == first, first == second)

    same_as_asyncio(script, loop_factory)


def test_repr_in_every_state(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        transport = world.transports[0]
        port = client.sock.getsockname()[1]
        number = transport.get_extra_info("socket").fileno()
        world.note("repr", repr(transport).replace(str(port), "PORT", 1))
        assert f"fd={number} " in repr(transport)
        transport.pause_reading()
        world.note("paused", "paused" in repr(transport))
        transport.write(bytes(200_000))
        world.note("size", f"bufsize={transport.get_write_buffer_size()}" in repr(transport))
        transport.close()
        world.note("closing", "closing" in repr(transport))
        transport.abort()
        await world.until("connection_lost")
        world.note("closed", repr(transport))

    log = [note for note in play(script, loop_factory) if note[0] != "pause_writing"]
    assert log[1][1].startswith("<fastlisten.Connection fd=")
    assert log[1][1].endswith("peer=('127.0.0.1', PORT)>")
    assert log[2:5] == [("paused", True), ("size", True), ("closing", True)]
    assert log[-1] == ("closed", "<fastlisten.Connection closed>")


def test_connection_has_no_public_constructor() -> None:
    from fastlisten._connection import Connection

    with pytest.raises(TypeError, match="made by the accept loop"):
        Connection()


# -- contexts

#: From this version on, all callbacks of an asyncio connection run in one context.
ONE_CONTEXT = sys.version_info >= (3, 15)


@pytest.mark.parametrize("who", ["nobody", "factory", "connection_made", "data_received"])
def test_context_variables_shared_between_callbacks(loop_factory: LoopFactory, who: str) -> None:
    """Each connection has a copy of the server's context. All callbacks see the factory's changes,
    none sees those of connection_made, and only later data_received see those of data_received."""

    async def script(world: World) -> None:
        variable.set("server")
        await world.serve(setting_factory(world, Recorder, who))
        variable.set("later")
        for _ in range(2):
            client = await world.connect()
            for word in (b"one", b"two"):
                before = world.count("data_received")
                await client.send(word)
                await world.until("data_received", before + 1)
            lost = world.count("connection_lost")
            client.finish()
            await world.until("connection_lost", lost + 1)
        world.note("outside", variable.get())

    log = same_as_asyncio(script, loop_factory)
    assert ("outside", "later") in log


def test_data_received_runs_in_the_context_of_resume_reading(loop_factory: LoopFactory) -> None:
    """As in asyncio, data_received runs in (a copy of) the context that called resume_reading.

    Since 3.15 it runs in the connection's own.
    """

    async def script(world: World) -> None:
        found: Hook = lambda p, *_: p.world.note("found", variable.get())  # noqa: E731
        variable.set("server")
        await world.serve(lambda: Recorder(world, {"data_received": found}))
        client = await world.connect()
        await client.send(b"one")
        await world.until("data_received")
        world.transports[0].pause_reading()
        variable.set("resumed")
        world.transports[0].resume_reading()
        variable.set("later")
        await client.send(b"two")
        await world.until("data_received", 2)

    log = same_as_asyncio(script, loop_factory)
    expected = "server" if ONE_CONTEXT else "resumed"
    assert [note[1] for note in log if note[0] == "found"] == ["server", expected]


def test_resume_writing_runs_in_the_context_of_the_write(loop_factory: LoopFactory) -> None:
    """It is the context whose write had to wait; since 3.15 the connection's own."""

    async def script(world: World) -> None:
        found: Hook = lambda p, *_: p.world.note("found", variable.get())  # noqa: E731
        hooks = dict.fromkeys(("pause_writing", "resume_writing", "connection_lost"), found)
        variable.set("server")
        await world.serve(lambda: Recorder(world, hooks), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        transport = world.transports[0]
        for word in ("first", "second"):
            variable.set(word)
            resumed = world.count("resume_writing")
            transport.write(bytes(200_000))
            variable.set("later")
            transport.write(b"more")
            await client.receive(200_004)
            await world.until("resume_writing", resumed + 1)
            await world.settle()
        variable.set("closer")
        transport.write(bytes(200_000))
        transport.close()
        variable.set("later")
        await client.rest()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert ("found", "first") in log  # pause_writing
    resumed = [found for note, found in itertools.pairwise(log) if note[0] == "resume_writing"]
    assert resumed[0] == ("found", "server" if ONE_CONTEXT else "first")


def test_tasks_inherit_the_context_of_the_callback(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            world.note("task", variable.get())

        tasks = []

        def factory() -> Recorder:
            variable.set("factory")
            return Recorder(
                world, {"data_received": lambda p, d: tasks.append(world.loop.create_task(work()))}
            )

        await world.serve(factory)
        client = await world.connect()
        await client.send(b"go")
        await world.until("task")

    assert ("task", "factory") in same_as_asyncio(script, loop_factory)
