"""`fastlisten.create_server` and the server that it returns, beside asyncio's.

Rules of this file: what asyncio has is compared with asyncio; what is ours alone (pausing,
counting, several servers on one engine) is tested for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from helpers_connection import (
    LoopFactory,
    Recorder,
    World,
    play,
    same_as_asyncio,
)

import fastlisten
from fastlisten.runtime.loop import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


def make(world: World) -> Any:
    """Return the create_server of this world."""
    return fastlisten.create_server if world.native else world.loop.create_server


async def reachable(world: World, address: Any, family: int = socket.AF_INET) -> str:
    """Connect and close, let the server notice both, and say how it went."""
    with socket.socket(family) as sock:
        sock.setblocking(False)
        try:
            await world.patience(world.loop.sock_connect(sock, address))
        except OSError as exc:
            return type(exc).__name__
        await world.settle()
    await world.settle()
    return "connected"


@contextlib.contextmanager
def occupied() -> Iterator[int]:
    """A port of 127.0.0.1 on which someone else listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


# -- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"host": "127.0.0.1", "sock": "stream"},
        {"port": 0, "sock": "stream"},
        {"sock": "datagram"},
        {"host": "127.0.0.1", "port": 0, "no_such": 1},
        {"host": "127.0.0.1", "port": "no-such-service"},
        {"host": "127.0.0.1", "port": 70000},
        {"host": "127.0.0.1", "port": 0, "family": socket.AF_INET6},
        {"host": ["127.0.0.1", 5], "port": 0},
        {"host": "127.0.0.1", "port": "occupied"},
        {"host": ["127.0.0.1", "::1"], "port": "occupied"},
    ],
    ids=str,
)
def test_errors(loop_factory: LoopFactory, arguments: dict[str, Any]) -> None:
    """The same class, errno and text as asyncio's; nothing stays open."""

    async def script(world: World) -> None:
        with contextlib.ExitStack() as stack:
            mine = dict(arguments)
            if "sock" in mine:
                kind = socket.SOCK_DGRAM if mine["sock"] == "datagram" else socket.SOCK_STREAM
                mine["sock"] = stack.enter_context(socket.socket(socket.AF_INET, kind))
            if mine.get("port") == "occupied":
                mine["port"] = stack.enter_context(occupied())
            try:
                server = await make(world)(asyncio.Protocol, **mine)
            except Exception as exc:
                text = "" if isinstance(exc, TypeError) or "sock" in mine else str(exc)
                # 3.13 writes the number twice.
                text = text.replace(str(mine.get("port")), "PORT").replace("[errno 98] ", "")
                world.note("error", type(exc).__name__, getattr(exc, "errno", None), text)
            else:
                server.close()
                world.note("no error")

    log = same_as_asyncio(script, loop_factory)
    assert log[0][0] == "error"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ssl": True}, "plain connections only"),
        ({"ssl_handshake_timeout": 5}, "plain connections only"),
        ({"ssl_shutdown_timeout": 5}, "plain connections only"),
        ({"max_connections": 0}, "max_connections must be at least 1"),
        ({"max_connections": -1}, "max_connections must be at least 1"),
        ({"limit_action": "queue"}, "limit_action must be 'refuse' or 'wait', not 'queue'"),
        ({"greeting": bytes(65536)}, "at most 65,535"),
        ({"linger": -1}, "must not be negative"),
        ({"first_byte_timeout": float("nan")}, "must not be negative"),
        ({"options": [(socket.SOL_SOCKET, socket.SO_SNDBUF, bytes(33))]}, "at most 32"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_errors_of_our_own_arguments(
    loop_factory: LoopFactory, arguments: dict[str, Any], message: str
) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=message):
            await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0, **arguments)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_an_option_that_the_kernel_rejects_is_named(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"setsockopt\(6, 9999, .*127\.0\.0\.1") as caught:
            await fastlisten.create_server(
                asyncio.Protocol, "127.0.0.1", 0, options=[(socket.IPPROTO_TCP, 9999, 1)]
            )
        assert caught.value.errno is not None

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_an_address_that_is_not_ours(loop_factory: LoopFactory) -> None:
    """One that could be bound is enough (asyncio since 3.12); none is an error with its errno."""

    async def main() -> None:
        with pytest.raises(OSError, match=r"'192\.0\.2\.1'.*cannot assign") as caught:
            await fastlisten.create_server(asyncio.Protocol, "192.0.2.1", 0)
        assert caught.value.errno is not None
        server = await fastlisten.create_server(asyncio.Protocol, ["192.0.2.1", "127.0.0.1"], 0)
        async with server:
            assert [sock.getsockname()[0] for sock in server.sockets] == ["127.0.0.1"]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": "127.0.0.1", "port": 0},
        {"host": "", "port": 0},
        {"port": 0},
        {"host": "::1", "port": 0},
        {"host": ["127.0.0.1", "::1"], "port": 0},
        {"host": ("127.0.0.1", "127.0.0.1"), "port": "0"},
        {"host": "localhost", "port": 0, "family": socket.AF_INET},
        {"host": "127.0.0.1", "port": 0, "flags": socket.AI_NUMERICHOST},
        {"host": "127.0.0.1", "port": 0, "backlog": 5},
        {"host": "127.0.0.1", "port": 0, "reuse_address": False},
        {"host": "127.0.0.1", "port": 0, "reuse_port": True},
        {"host": "127.0.0.1"},
    ],
    ids=str,
)
def test_sockets(loop_factory: LoopFactory, arguments: dict[str, Any]) -> None:
    """As many, of the same families, with the same options; every one is served."""

    async def script(world: World) -> None:
        server = await make(world)(lambda: Recorder(world), **arguments)
        async with server:
            found = []
            for sock in server.sockets:
                names = [
                    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
                    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
                    (socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
                ]
                if sock.family == socket.AF_INET6:
                    names.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
                host, port = sock.getsockname()[:2]
                found.append(
                    (
                        type(sock).__name__,
                        sock.family,
                        sock.type,
                        sock.proto,
                        host,
                        port > 0,
                        [sock.getsockopt(*name) for name in names],
                    )
                )
                target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
                world.note("reached", await reachable(world, (target, port), sock.family))
            world.note("sockets", *sorted(found, key=str))
            await world.until("connection_lost", len(found))
            for transport in world.transports:
                world.note("transport", transport.get_protocol())
        world.note("closed", server.sockets)

    log = same_as_asyncio(script, loop_factory)
    assert ("reached", "connected") in log


def test_nagle_is_off_where_asyncio_switches_it_off(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await make(world)(lambda: Recorder(world), "127.0.0.1", 0)
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()):
                await world.until("connection_made")
                view = world.transports[0].get_extra_info("socket")
                world.note("nodelay", view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            await world.until("connection_lost")

    assert ("nodelay", True) in same_as_asyncio(script, loop_factory)


def test_options_are_inherited(loop_factory: LoopFactory) -> None:
    """`options` and `keep_alive` are set on the listening socket; a connection has them too."""

    async def script(world: World) -> None:
        server = await fastlisten.create_server(
            lambda: Recorder(world),
            "127.0.0.1",
            0,
            keep_alive=True,
            options=[
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0),
                (socket.IPPROTO_IP, socket.IP_TTL, (33).to_bytes(4, "little")),
            ],
        )
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()):
                await world.until("connection_made")
                view = world.transports[0].get_extra_info("socket")
                for name in (
                    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                    (socket.IPPROTO_IP, socket.IP_TTL),
                ):
                    world.note("option", view.getsockopt(*name))
            await world.until("connection_lost")

    found = [note[1] for note in play(script, loop_factory) if note[0] == "option"]
    assert found == [1, 0, 33]


# -- life


def test_start_serving_later(loop_factory: LoopFactory) -> None:
    """Until then clients are turned away by the kernel: the socket does not listen."""

    async def script(world: World) -> None:
        server = await make(world)(lambda: Recorder(world), "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        world.note("serving", server.is_serving(), await reachable(world, address))
        await server.start_serving()
        await server.start_serving()
        world.note("serving", server.is_serving(), await reachable(world, address))
        await world.until("connection_lost")
        server.close()
        world.note("serving", server.is_serving(), await reachable(world, address))
        await server.wait_closed()

    log = same_as_asyncio(script, loop_factory)
    assert [note[1] for note in log if note[0] == "serving"] == [False, True, False]


def test_a_server_never_started_is_closed(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await make(world)(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)
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
    """Starts, refuses to be awaited twice, ends by cancellation or by close."""

    async def script(world: World) -> None:
        for ending in ("cancel", "close"):
            server = await make(world)(lambda: Recorder(world), "127.0.0.1", 0, start_serving=False)
            address = server.sockets[0].getsockname()
            task = asyncio.ensure_future(server.serve_forever())
            await world.settle()
            world.note("serving", server.is_serving(), await reachable(world, address))
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
        server = await make(world)(lambda: Recorder(world), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        async with server as entered:
            world.note("entered", entered is server, server.is_serving())
            world.note("loop", server.get_loop() is world.loop)
            world.note("reached", await reachable(world, address))
            await world.until("connection_lost")
        world.note("left", server.is_serving(), await reachable(world, address))

    same_as_asyncio(script, loop_factory)


def test_close_leaves_connections_and_wait_closed_waits(loop_factory: LoopFactory) -> None:
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
def test_ending_all_clients(loop_factory: LoopFactory, method: str, lazy: bool) -> None:
    """Gently: unsent bytes arrive; at once: they may not. Silent lazy clients too."""

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


def test_close_inside_callbacks(loop_factory: LoopFactory) -> None:
    """A server may be closed by the factory, in connection_made, with more clients waiting."""

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
    """Clients wait in the backlog meanwhile, connections go on."""

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
    """Counted over all sockets, and kept after the end."""

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
        "refused_overload",
        "accept_errors",
        "option_errors",
        "timed_out",
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


# -- several on one loop


def test_servers_share_an_engine_that_ends_with_the_last(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0)
        engine = engine_for(loop)
        second = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0, lazy=True)
        assert engine_for(loop) is engine
        assert engine.census()["listeners"] == 2
        first.close()
        await first.wait_closed()
        assert engine.census()["listeners"] == 1
        _, writer = await asyncio.open_connection(*second.sockets[0].getsockname())
        second.close()
        await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(second.wait_closed(), 10)
        assert engine.closed
        # The next server of this loop gets a new one.
        async with await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0) as third:
            assert engine_for(loop) is not engine
            assert third.is_serving()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_servers_come_and_go(loop_factory: LoopFactory) -> None:
    """Descriptors, listeners and indexes of listeners are used again and again."""

    async def script(world: World) -> None:
        keep = await world.serve(lambda: Recorder(world, name="kept "))
        address = world.address
        engine = engine_for(world.loop)
        for _ in range(30):
            servers = [await world.serve(lambda: Recorder(world)) for _ in range(10)]
            for server in servers:
                assert await reachable(world, server.sockets[0].getsockname()) == "connected"
            for server in servers:
                server.close()
            for server in servers:
                await world.patience(server.wait_closed())
        world.note("listeners", engine.census()["listeners"], engine.closed)
        world.note("made", world.count("connection_made"), world.count("connection_lost"))
        world.note("reached", await reachable(world, address))
        await world.until("kept connection_lost")
        keep.close()

    log = play(script, loop_factory)
    assert ("listeners", 1, False) in log
    made = next(note for note in log if note[0] == "made")
    assert made[1] == made[2]


def test_asyncio_servers_beside_ours(loop_factory: LoopFactory) -> None:
    """The loop's own servers and transports go on working on the same loop."""

    async def script(world: World) -> None:
        theirs = await world.loop.create_server(lambda: Recorder(world, name="their "), "127.0.0.1")
        ours = await world.serve(lambda: Recorder(world, name="our "))
        for server in (theirs, ours):
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                await world.settle()
                sock.sendall(b"hello")
                name = "our " if server is ours else "their "
                await world.until(name + "data_received")
            await world.until(name + "connection_lost")
        theirs.close()
        await theirs.wait_closed()

    log = play(script, loop_factory)
    assert [note[0].split()[0] for note in log] == ["their"] * 4 + ["our"] * 4


def test_a_unix_socket(loop_factory: LoopFactory) -> None:
    """A path or an abstract name; the file is its maker's to remove."""

    async def script(world: World) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name in (f"{folder}/socket", "\0fastlisten-test-" + folder):
                sock = socket.socket(socket.AF_UNIX)
                sock.bind(name)
                async with await make(world)(lambda: Recorder(world), sock=sock) as server:
                    world.note("family", server.sockets[0].family)
                    lost = world.count("connection_lost")
                    world.note("reached", await reachable(world, name, socket.AF_UNIX))
                    await world.until("connection_lost", lost + 1)
                    transport = world.transports[-1]
                    sockname = transport.get_extra_info("sockname")
                    world.note("name", type(sockname), transport.get_extra_info("peername"))

    log = same_as_asyncio(script, loop_factory)
    assert [note[1] for note in log if note[0] == "name"] == [str, bytes]


def test_the_limit_counts_until_connection_lost(loop_factory: LoopFactory) -> None:
    """A place is free once connection_lost was called, not before."""

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
