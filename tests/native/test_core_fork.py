"""fork() in a serving process: the child's engine is dead, the parent's is untouched.

Rules of this file: children leave by os._exit, are waited for, and report through their exit
status; only the parent asserts. Tests run in one thread, so that fork is safe.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
from multiprocessing import resource_tracker
from typing import Any

import pytest
from support.forked import MAY_HAVE_THREADS, exit_status
from support.kernel import is_open
from support.loops import LoopFactory
from support.world import CALLBACKS, Recorder, World, play

import fastlisten
from fastlisten.loop.engines import engine_for

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    MAY_HAVE_THREADS,
]


@pytest.fixture(scope="module", autouse=True)
def running_resource_tracker() -> None:
    """Start the process that "spawn" leaves running, so that no test is blamed for it."""
    resource_tracker.ensure_running()


def test_childs_engine_is_dead_and_the_parent_serves(loop_factory: LoopFactory) -> None:
    """None of the parent's connections is open in the child, and the client does not notice it."""

    async def script(world: World) -> None:
        hooks: dict[str, Any] = {"data_received": lambda p, data: p.transport.write(data)}
        server = await world.serve(lambda: Recorder(world, hooks), max_connections=10)
        clients = [await world.connect() for _ in range(3)]
        await world.until("connection_made", 3)
        # One with unsent bytes, one paused, one with a socket object.
        world.transports[0].write(bytes(4_000_000))
        world.transports[1].pause_reading()
        number = world.transports[2].get_extra_info("socket").fileno()
        engine = engine_for(world.loop)

        def look() -> bool:
            return (
                engine.closed
                and engine.fd == -1
                and engine.open == 0
                and server.connections == 0
                and not is_open(number)
                and all(transport.is_closing() for transport in world.transports)
                and world.transports[0].write(b"x") is None
                and world.transports[2].get_extra_info("socket").fileno() == -1
            )

        world.note("child", exit_status(look))
        world.note("parent", engine.closed, server.connections, engine.census()["served"])
        received = await clients[0].receive(4_000_000)
        world.note("unsent bytes", received == bytes(4_000_000))
        await clients[1].send(b"to the paused one")
        world.transports[1].resume_reading()
        world.note("paused", await clients[1].receive(17))
        await clients[2].send(b"to the other")
        world.note("other", await clients[2].receive(12))
        fourth = await world.connect()
        await fourth.send(b"new")
        world.note("new", await fourth.receive(3))
        for client in (*clients, fourth):
            client.close()
        await world.until("connection_lost", 4)
        world.note("connections", server.connections)

    log = [note for note in play(script, loop_factory) if note[0] not in CALLBACKS]
    assert log == [
        ("child", 0),
        ("parent", False, 3, 3),
        ("unsent bytes", True),
        ("paused", b"to the paused one"),
        ("other", b"to the other"),
        ("new", b"new"),
        ("connections", 0),
    ]


@pytest.mark.parametrize("where", ["connection_made", "data_received", "connection_lost"])
def test_fork_inside_a_callback(loop_factory: LoopFactory, where: str) -> None:
    async def script(world: World) -> None:
        hooks: dict[str, Any] = {
            where: lambda p, *_: world.note("child", exit_status(lambda: engine_for_of(p).closed))
        }

        def engine_for_of(protocol: Recorder) -> Any:
            return engine

        await world.serve(lambda: Recorder(world, hooks))
        engine = engine_for(world.loop)
        client = await world.connect()
        await client.send(b"x")
        await world.until("data_received")
        client.close()
        await world.until("connection_lost")
        await world.until("child")

    log = play(script, loop_factory)
    assert [note for note in log if note[0] == "child"] == [("child", 0)]


def test_calls_in_the_child_do_not_touch_the_parent(loop_factory: LoopFactory) -> None:
    """Whatever the child calls on its copies does nothing to the parent's clients."""

    async def script(world: World) -> None:
        hooks: dict[str, Any] = {"data_received": lambda p, data: p.transport.write(data)}
        server = await world.serve(lambda: Recorder(world, hooks), max_connections=5)
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        engine = engine_for(world.loop)

        def destroy() -> bool:
            transport.write(b"from the child")
            transport.write_eof()
            transport.close()
            transport.abort()
            server.abort_clients()
            server.close()
            engine.close()
            return bool(server.connections == 0)

        world.note("child", exit_status(destroy))
        await world.settle()
        world.note("client", client.ended(), server.connections)
        await client.send(b"still there?")
        world.note("answer", await client.receive(12))
        world.note("serving", server.is_serving())
        second = await world.connect()
        await second.send(b"and here?")
        world.note("answer", await second.receive(9))

    log = [note for note in play(script, loop_factory) if note[0] not in CALLBACKS]
    assert log == [
        ("child", 0),
        ("client", "open", 1),
        ("answer", b"still there?"),
        ("serving", True),
        ("answer", b"and here?"),
    ]


def test_child_does_not_keep_connections_open(loop_factory: LoopFactory) -> None:
    """The client sees the end when the parent closes, although the child still runs."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), lazy=True, greeting=b"hello\r\n")
        lazy = await world.connect()
        spoken = await world.connect()
        await spoken.send(b"x")
        await world.until("data_received")
        await world.until(lambda: server.connections == 2)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        try:
            server.abort_clients()
            world.note("spoken", await spoken.rest())
            world.note("lazy", await lazy.rest())
        finally:
            os.close(write)
            os.waitpid(pid, 0)

    log = [note for note in play(script, loop_factory) if note[0] not in CALLBACKS]
    assert log == [("spoken", (b"hello\r\n", "eof")), ("lazy", (b"hello\r\n", "eof"))]


def test_child_serves_on_a_new_loop(loop_factory: LoopFactory) -> None:
    """A new loop in the child gets its own engine, even at the address of the parent's loop."""

    async def script(world: World) -> None:
        hooks: dict[str, Any] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        await world.until("connection_made")

        def serve() -> bool:
            asyncio.set_event_loop(None)
            asyncio.events._set_running_loop(None)

            async def main() -> bytes:
                async with await fastlisten.create_server(Shout, "127.0.0.1", 0) as server:
                    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                    writer.write(b"hello")
                    answer = await asyncio.wait_for(reader.readexactly(5), 10)
                    writer.close()
                    return answer

            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                return runner.run(main()) == b"HELLO"

        world.note("child", exit_status(serve))
        await client.send(b"parent?")
        world.note("answer", await client.receive(7))

    log = [note for note in play(script, loop_factory) if note[0] not in CALLBACKS]
    assert log == [("child", 0), ("answer", b"parent?")]


class Shout(asyncio.Protocol):
    """Answers in capitals."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


def _work(address: tuple[str, int], results: Any) -> None:
    """Be a client of the parent process."""
    with socket.create_connection(address) as sock:
        sock.sendall(b"from a worker")
        results.put(sock.recv(13))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(loop_factory: LoopFactory, method: str) -> None:
    """Workers started while the parent serves can talk to it, whatever the start method."""

    async def script(world: World) -> None:
        await world.serve(Shout)
        client = await world.connect()
        await client.send(b"before")
        world.note("before", await client.receive(6))
        context: Any = multiprocessing.get_context(method)
        results: Any = context.SimpleQueue()
        process = context.Process(target=_work, args=(world.address, results))
        process.start()
        await world.until(lambda: not results.empty())
        world.note("worker", results.get())
        process.join()
        world.note("exit", process.exitcode)
        process.close()
        results.close()
        await client.send(b"after")
        world.note("after", await client.receive(5))

    assert play(script, loop_factory) == [
        ("before", b"BEFORE"),
        ("worker", b"FROM A WORKER"),
        ("exit", 0),
        ("after", b"AFTER"),
    ]


def test_descriptors_are_close_on_exec(loop_factory: LoopFactory) -> None:
    """All descriptors that the engine opens or accepts are."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), max_connections=5, limit_action="wait")
        await world.connect()
        await world.until("connection_made")
        inheritable = [
            (fd, os.readlink(f"/proc/self/fd/{fd}"))
            for fd in map(int, os.listdir("/proc/self/fd"))
            if is_open(fd) and fd > 2 and os.get_inheritable(fd)
        ]
        code = "import os; print(len(os.listdir('/proc/self/fd')))"
        # close_fds=False: only close-on-exec protects the child.
        done = subprocess.run(
            [sys.executable, "-c", code],
            close_fds=False,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        world.note("sockets", [name for _, name in inheritable if name.startswith("socket")])
        world.note("engine", [name for _, name in inheritable if name.startswith("anon_inode")])
        world.note("program", int(done.stdout) <= 4 + len(inheritable))

    log = [note for note in play(script, loop_factory) if note[0] not in CALLBACKS]
    assert log == [("sockets", []), ("engine", []), ("program", True)]
