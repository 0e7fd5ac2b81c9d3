"""What protocols can rely on under our loops: errors, contexts, order, cancellation, fork.

Rules of this file: asyncio is the oracle; where we differ on purpose, the test says so.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import socket
import warnings
from typing import Any

import pytest
from support.forked import MAY_HAVE_THREADS, exit_status, fork
from support.loop_worlds import play_on, same_on_asyncio
from support.loops import LoopFactory
from support.world import Recorder, World

import fastlisten
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize(
    "where", ["connection_made", "data_received", "eof_received", "connection_lost"]
)
def test_exception_in_callback(our_loop_factory: LoopFactory, where: str, debug: bool) -> None:
    """It reaches the exception handler with asyncio's message and keys."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError(where)

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world, {where: fail}))
        client = await world.connect()
        await client.send(b"hello")
        await world.until("connection_made")
        await world.settle()
        client.finish()
        await world.until("connection_lost")
        await world.settle()
        world.note("client", await client.rest())

    log = same_on_asyncio(script, our_loop_factory, debug=debug)
    assert any(note[0] == "handler" for note in log)


def test_exception_in_factory(our_loop_factory: LoopFactory) -> None:
    """Reported as asyncio does in debug mode; but here the client sees the end at once."""

    def fail() -> asyncio.Protocol:
        raise ZeroDivisionError("factory")

    async def script(world: World) -> None:
        await world.serve(fail)
        client = await world.connect()
        await world.until("handler")
        if type(world.loop) is not asyncio.SelectorEventLoop:
            assert await client.rest() == (b"", "eof")

    with warnings.catch_warnings():
        # asyncio leaves the socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        log = same_on_asyncio(script, our_loop_factory, debug=True)
        gc.collect()
    assert log[0][:3] == (
        "handler",
        "Error on transport creation for incoming connection",
        "ZeroDivisionError('factory',)",
    )


def test_exception_in_stream_callback(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            raise ZeroDivisionError("stream")

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        # 3.11 leaves the connection open, later versions close it.
        await world.until("handler")
        writer.close()
        await world.settle()
        server.close()

    log = same_on_asyncio(script, our_loop_factory)
    assert log[0][:2] == ("handler", "Unhandled exception in client_connected_cb")


# --- contexts ---------------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


def test_connections_have_separate_contexts(our_loop_factory: LoopFactory) -> None:
    """Each has a copy of the server's context; what one sets, no other sees."""

    async def script(world: World) -> None:
        names = iter(["first", "second", "third"])

        def factory() -> Recorder:
            world.note("factory", variable.get())
            return Recorder(world, hooks)

        def made(protocol: Any, transport: Any) -> None:
            world.note("made", variable.get())
            variable.set(next(names))
            protocol.task = asyncio.get_running_loop().create_task(later())

        async def later() -> None:
            world.note("task", variable.get())

        hooks = {
            "connection_made": made,
            "data_received": lambda p, data: world.note("data", variable.get()),
            "connection_lost": lambda p, exc: world.note("lost", variable.get()),
        }
        variable.set("server")
        await world.serve(factory)
        variable.set("afterwards")
        for number in range(3):
            client = await world.connect()
            await client.send(b"x")
            await world.until("task", number + 1)
            await world.until("data", number + 1)
            client.close()
            await world.until("lost", number + 1)

    log = same_on_asyncio(script, our_loop_factory)
    assert [note[1] for note in log if note[0] == "task"] == ["first", "second", "third"]


# --- order and cancellation -------------------------------------------------------------------


def test_scheduled_callbacks_run_before_later_input(our_loop_factory: LoopFactory) -> None:
    """What connection_made schedules runs before data_received, and so on."""

    async def script(world: World) -> None:
        def soon(word: str) -> Any:
            def hook(*_: Any) -> None:
                world.loop.call_soon(world.note, "soon after " + word)

            return hook

        names = ("connection_made", "data_received", "eof_received", "connection_lost")
        await world.serve(lambda: Recorder(world, {name: soon(name) for name in names}))
        client = await world.connect()
        await client.send(b"x")
        await world.until("soon after data_received")
        client.finish()
        await world.until("soon after connection_lost")

    same_on_asyncio(script, our_loop_factory)


def test_call_soon_in_the_factory(our_loop_factory: LoopFactory) -> None:
    """It runs after connection_made: the core calls both at once. In asyncio it runs between."""

    async def script(world: World) -> None:
        def factory() -> Recorder:
            world.loop.call_soon(world.note, "soon")
            return Recorder(world)

        await world.serve(factory)
        await world.connect()
        await world.until("connection_made")
        await world.settle()

    theirs = [note[0] for note in play_on(script, asyncio.SelectorEventLoop)]
    assert theirs[:2] == ["soon", "connection_made"]
    assert [note[0] for note in play_on(script, our_loop_factory)][:2] == [
        "connection_made",
        "soon",
    ]


def test_cancelled_stream_tasks(our_loop_factory: LoopFactory) -> None:
    """A stream callback may be cancelled while it waits for input, for room or for the end."""

    async def script(world: World) -> None:
        tasks: dict[str, asyncio.Task[None]] = {}

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            command = (await reader.readline()).decode().strip()
            tasks[command] = asyncio.current_task()  # type: ignore[assignment]
            world.note("begun", command)
            try:
                if command == "read":
                    await reader.read(1)
                elif command == "write":
                    writer.write(bytes(8_000_000))
                    await writer.drain()
                else:
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                world.note("cancelled", command)
                raise
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        for command in ("read", "write", "wait"):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(command.encode() + b"\n")
            await world.until(lambda command=command: command in tasks)  # type: ignore[misc]
            await world.settle()
            tasks[command].cancel()
            await world.until("cancelled", len(tasks))
            writer.transport.abort()
            await world.settle()
        server.close()

    log = same_on_asyncio(script, our_loop_factory)
    assert [note[1] for note in log if note[0] == "cancelled"] == ["read", "write", "wait"]


def test_cancelled_create_server(our_loop_factory: LoopFactory) -> None:
    """Cancelled while the name is resolved: nothing is bound."""

    async def script(world: World) -> None:
        begun = asyncio.Event()

        async def getaddrinfo(*_: Any, **__: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

        loop: Any = world.loop
        loop.getaddrinfo = getaddrinfo
        task = asyncio.ensure_future(world.create(asyncio.Protocol, "name.example.org", 0))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.note("cancelled")

    same_on_asyncio(script, our_loop_factory)


# --- fork -------------------------------------------------------------------------------------


@MAY_HAVE_THREADS
def test_fork(our_loop_factory: LoopFactory) -> None:
    """The child holds a dead copy, the parent's connections go on, and a new loop serves there."""

    async def script(world: World) -> None:
        hooks: dict[str, Any] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        await world.until("connection_made")
        engine = engine_for(world.loop)

        def in_the_child() -> bool:
            asyncio.set_event_loop(None)
            asyncio.events._set_running_loop(None)

            async def serve() -> bytes:
                loop = asyncio.get_running_loop()
                server = await loop.create_server(Echo, "127.0.0.1", 0)
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"in the child")
                return await asyncio.wait_for(reader.readexactly(12), 10)

            with asyncio.Runner(loop_factory=our_loop_factory) as runner:
                return engine.closed and runner.run(serve()) == b"in the child"

        world.note("child", exit_status(in_the_child))
        await client.send(b"parent?")
        world.note("answer", await client.receive(7))

    log = play_on(script, our_loop_factory)
    assert ("child", 0) in log
    assert ("answer", b"parent?") in log


@MAY_HAVE_THREADS
def test_fork_before_serving(our_loop_factory: LoopFactory) -> None:
    """As pre-forking servers do: bind, fork, a loop in each process on the shared socket."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = listening.getsockname()

        def serve() -> bool:
            async def main() -> None:
                only = Only()
                loop = asyncio.get_running_loop()
                only.server = await loop.create_server(lambda: only, sock=listening)
                await asyncio.wait_for(only.over.wait(), 20)

            with asyncio.Runner(loop_factory=our_loop_factory) as runner:
                runner.run(main())
            return True

        pids = [fork(serve) for _ in range(2)]
        # Each serves one client only, so that both have had one when both are gone.
        for _ in pids:
            with socket.create_connection(address, timeout=20) as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
                assert client.recv(1) == b""
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Only(Echo):
    """Lets its server have one client, answers it once, and notes when it is gone."""

    server: Any = None

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.server.close()
        self.transport.write(data)
        self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.over.set()


def test_transports_are_ours(our_loop_factory: LoopFactory) -> None:
    """Otherwise this file would compare asyncio with itself."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        await world.connect()
        await world.until("connection_made")
        world.note("type", type(world.transports[0]).__module__, fastlisten.__name__)

    assert ("type", "fastlisten._connection", "fastlisten") in play_on(script, our_loop_factory)
