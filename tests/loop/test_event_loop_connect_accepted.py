"""The loop's connect_accepted_socket, plain and with TLS, compared with asyncio's.

Rules of this file: the client is a raw socket, or Python's blocking `ssl` in a thread; the loop is
the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from support.loop_worlds import play_on, same_on_asyncio
from support.loops import LoopFactory
from support.raw_client import describe
from support.tls_contexts import HOST, client_context, server_context
from support.world import Recorder, World, numbers

from fastlisten.loop.engines import existing_engine

pytestmark = pytest.mark.usefixtures("descriptors_back")


def accepted(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """Return (server's side, client's side) of a new connection."""
    if family == socket.AF_UNIX:
        return socket.socketpair()
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.create_server((host, 0), family=socket.AddressFamily(family)) as listening:
        client = socket.create_connection(listening.getsockname()[:2])
        return listening.accept()[0], client


def echoing(world: World) -> Recorder:
    return Recorder(world, {"data_received": lambda p, data: p.transport.write(data)})


async def in_thread(world: World, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a blocking function in a thread."""
    return await world.patience(world.loop.run_in_executor(None, function, *arguments))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_connect_accepted_socket(our_loop_factory: LoopFactory, family: int) -> None:
    async def script(world: World) -> None:
        mine, theirs = accepted(family)
        with theirs:
            theirs.setblocking(False)
            transport, protocol = await world.loop.connect_accepted_socket(
                lambda: echoing(world), mine
            )
            world.note("protocol", transport.get_protocol() is protocol)
            await world.loop.sock_sendall(theirs, b"hello")
            world.note("answer", await world.patience(world.loop.sock_recv(theirs, 10)))
            view: Any = transport.get_extra_info("socket")
            world.note("socket", type(view).__name__, view.family, view.type, view.gettimeout())
            if family != socket.AF_UNIX and type(world.loop) is not asyncio.SelectorEventLoop:
                # asyncio sets it only if the socket was made with a protocol number.
                assert view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            sockname, peername = map(transport.get_extra_info, ("sockname", "peername"))
            world.note("names", sockname == mine.getsockname(), peername == theirs.getsockname())
            transport.close()
            await world.until("connection_lost")
            world.note("rest", await world.patience(world.loop.sock_recv(theirs, 10)))
            world.note("closed", mine.fileno())

    log = same_on_asyncio(script, our_loop_factory)
    assert ("answer", b"hello") in log


def test_large_transfer_in_both_directions(our_loop_factory: LoopFactory) -> None:
    """With flow control."""

    async def script(world: World) -> None:
        mine, theirs = accepted()
        data = numbers(3_000_000)
        with theirs:
            theirs.settimeout(10)
            transport, _ = await world.loop.connect_accepted_socket(lambda: echoing(world), mine)

            def exchange() -> bool:
                got = bytearray()
                for start in range(0, len(data), 50_000):
                    theirs.sendall(data[start : start + 50_000])
                    while len(got) < start + 50_000:
                        got += theirs.recv(1 << 18)
                return got == data

            world.note("same", await in_thread(world, exchange))
            transport.abort()
            await world.until("connection_lost")
        world.log[:] = [note for note in world.log if note[0] != "data_received"]

    assert ("same", True) in same_on_asyncio(script, our_loop_factory)


def test_many_sockets_on_one_engine(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        pairs = [accepted() for _ in range(50)]
        for mine, _ in pairs:
            await world.loop.connect_accepted_socket(lambda: echoing(world), mine)
        engine = existing_engine(world.loop)
        assert engine is not None
        world.note("census", engine.census()["served"], engine.census()["listening"])
        for _, theirs in pairs:
            theirs.close()
        await world.until("connection_lost", 50)
        world.note("census", engine.census()["served"])

    log = play_on(script, our_loop_factory)
    assert [note for note in log if note[0] == "census"] == [("census", 50, 0), ("census", 0)]


def test_callbacks_run_in_a_copy_of_the_context(our_loop_factory: LoopFactory) -> None:
    """It is the caller's context."""
    variable = contextvars.ContextVar("variable", default="none")

    async def script(world: World) -> None:
        hooks: dict[str, Any] = {
            "connection_made": lambda p, t: world.note("made", variable.get()),
            "data_received": lambda p, d: world.note("data", variable.get()),
        }
        for value in ("one", "two"):
            variable.set(value)
            mine, theirs = accepted()
            with theirs:
                await world.loop.connect_accepted_socket(lambda: Recorder(world, hooks), mine)
                variable.set("afterwards")
                theirs.sendall(b"x")
                await world.until("data", 1 if value == "one" else 2)
            await world.until("connection_lost", 1 if value == "one" else 2)

    log = same_on_asyncio(script, our_loop_factory)
    assert [note[1] for note in log if note[0] == "data"] == ["one", "two"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "datagram"},
        {"kind": "tls"},
        {"ssl_handshake_timeout": 1},
        {"ssl_shutdown_timeout": 1},
        {"ssl": False, "ssl_shutdown_timeout": 1},
        {"ssl": True},
        {"ssl": "context", "ssl_handshake_timeout": 0},
        {"ssl": "context", "ssl_shutdown_timeout": -5},
    ],
    ids=str,
)
def test_errors_are_those_of_asyncio(
    our_loop_factory: LoopFactory, arguments: dict[str, Any]
) -> None:
    """They have the same class and text; the socket is still the caller's."""

    async def script(world: World) -> None:
        mine = dict(arguments)
        kind = mine.pop("kind", "stream")
        first, second = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
        )
        if kind == "tls":
            context = server_context()
            first = context.wrap_socket(first, server_side=True, do_handshake_on_connect=False)
        if mine.get("ssl") == "context":
            mine["ssl"] = server_context()
        with first, second:
            with pytest.raises((TypeError, ValueError)) as caught:
                await world.loop.connect_accepted_socket(lambda: echoing(world), first, **mine)
            text = "" if kind == "datagram" else str(caught.value)
            world.note("error", caught.type.__name__, text, first.fileno() >= 0)

    same_on_asyncio(script, our_loop_factory)


def test_exception_in_factory(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        def factory() -> Recorder:
            raise ZeroDivisionError("factory")

        mine, theirs = accepted()
        with mine, theirs:
            with pytest.raises(ZeroDivisionError):
                await world.loop.connect_accepted_socket(factory, mine)
            world.note("mine still", mine.fileno() >= 0)

    same_on_asyncio(script, our_loop_factory)


# --- TLS --------------------------------------------------------------------------------------


def ask(sock: socket.socket) -> bytes:
    """Be a client that sends a question and closes properly; return the answer."""
    sock.settimeout(10)
    with client_context().wrap_socket(sock, server_hostname=HOST) as tls:
        tls.sendall(b"hello")
        answer = tls.recv(10)
        tls.unwrap().close()
        return answer


def test_connect_accepted_socket_with_tls(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        mine, theirs = accepted()
        client = asyncio.ensure_future(in_thread(world, ask, theirs))
        transport, protocol = await world.patience(
            world.loop.connect_accepted_socket(
                lambda: echoing(world), mine, ssl=server_context(), ssl_handshake_timeout=10
            )
        )
        # Noted later: the client's first data may come before or after.
        made = world.count("connection_made"), transport.get_protocol() is protocol
        tls = isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)
        await world.until("connection_lost")
        world.note("made", *made, tls)
        world.note("answer", await client)

    log = same_on_asyncio(script, our_loop_factory)
    assert ("answer", b"hello") in log


@pytest.mark.parametrize("way", ["garbage", "end", "silence", "cancelled"])
def test_failed_handshake(our_loop_factory: LoopFactory, way: str) -> None:
    """The caller gets the error; the connection is closed and nothing of it is left."""

    async def script(world: World) -> None:
        mine, theirs = accepted()
        with theirs:
            theirs.setblocking(False)
            task = asyncio.ensure_future(
                world.loop.connect_accepted_socket(
                    lambda: echoing(world),
                    mine,
                    ssl=server_context(),
                    ssl_handshake_timeout=0.05 if way == "silence" else 10,
                )
            )
            await world.settle()
            if way == "garbage":
                theirs.sendall(b"EHLO client.example.org\r\n")
            elif way == "end":
                theirs.shutdown(socket.SHUT_WR)
            elif way == "cancelled":
                task.cancel()
            try:
                await world.patience(asyncio.shield(task))
            except (OSError, asyncio.CancelledError) as exc:
                reason = getattr(exc, "reason", None)
                world.note("told", type(exc).__name__, reason or describe(exc))
            del task
            rest = b""
            try:
                while data := await world.patience(world.loop.sock_recv(theirs, 4096)):
                    rest += data
            except ConnectionResetError:
                pass
            await world.settle()
            world.note("made", world.count("connection_made"))
            world.note("closed", mine.fileno())
        gc.collect()

    log = play_on(script, our_loop_factory)
    told = next(note for note in log if note[0] == "told")
    assert (
        told[1]
        == {
            "garbage": "SSLError",
            "end": "ConnectionResetError",
            "silence": "ConnectionAbortedError",
            "cancelled": "CancelledError",
        }[way]
    )
    assert ("made", 0) in log
    assert ("closed", -1) in log
    theirs = play_on(script, asyncio.SelectorEventLoop)
    assert next(note for note in theirs if note[0] == "told")[1] == told[1]


@pytest.mark.parametrize("late", [False, True], ids=["in connection_made", "right after it"])
def test_cancelled_after_completion(our_loop_factory: LoopFactory, late: bool) -> None:
    """Nobody gets the transport any more, so the connection ends."""

    async def script(world: World) -> None:
        task: asyncio.Task[Any]

        def made(*_: Any) -> None:
            if late:
                world.loop.call_soon(task.cancel)
            else:
                task.cancel()

        mine, theirs = accepted()
        client = asyncio.ensure_future(in_thread(world, ask, theirs))
        task = asyncio.ensure_future(
            world.loop.connect_accepted_socket(
                lambda: Recorder(world, {"connection_made": made}), mine, ssl=server_context()
            )
        )
        with pytest.raises(asyncio.CancelledError):
            await world.patience(task)
        await world.until("connection_lost")
        with contextlib.suppress(OSError):  # a reset or an end, whichever comes first
            assert await client == b""
        world.note("closed", mine.fileno())

    assert ("closed", -1) in play_on(script, our_loop_factory)


def test_cancelled_before_the_last_handshake_data_is_read(our_loop_factory: LoopFactory) -> None:
    """The client's part of the handshake has arrived, but no protocol is called."""

    async def main() -> list[str]:
        told: list[str] = []

        class Telling(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                told.append("made")

            def connection_lost(self, exc: Exception | None) -> None:
                told.append("lost")

        loop = asyncio.get_running_loop()
        server, client = accepted()
        with client:
            client.setblocking(False)
            task = asyncio.ensure_future(
                loop.connect_accepted_socket(Telling, server, ssl=server_context())
            )
            inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
            end = client_context().wrap_bio(inward, outward, server_hostname=HOST)
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
            client.send(outward.read())
            while outward.pending == 0:
                await asyncio.sleep(0.001)
                with contextlib.suppress(BlockingIOError):
                    inward.write(client.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
            end.write(b"hello")
            client.send(outward.read())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.05)
            engine = existing_engine(loop)
            assert engine is not None
            assert engine.open == 0
        return told

    with asyncio.Runner(loop_factory=our_loop_factory) as runner:
        assert runner.run(main()) == []


def test_debug_log_line(our_loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "asyncio")

    async def script(world: World) -> None:
        mine, theirs = accepted()
        with theirs:
            await world.loop.connect_accepted_socket(lambda: echoing(world), mine)
        await world.until("connection_lost")

    same_on_asyncio(script, our_loop_factory, debug=True)
    said = [one.getMessage() for one in caplog.records if " handled: (" in one.getMessage()]
    assert len(said) == 2
