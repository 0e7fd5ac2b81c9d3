"""`loop.start_tls` and `StreamWriter.start_tls` over connections of the core.

Rules of this file: the clients are asyncio's, or raw sockets with an `ssl.SSLObject` where it
matters which bytes come when; the native upgrade itself is tested in test_tls_start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from asyncio.sslproto import _SSLProtocolTransport
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
from helpers_connection import LoopFactory, Recorder, World, numbers
from helpers_event_loop import OURS, play_on, same_on_asyncio
from helpers_tls_certificates import HOST, client_context, server_context

import fastlisten
from fastlisten._connection import Connection
from fastlisten._tls import TlsConnection
from fastlisten.runtime import start_tls
from fastlisten.runtime.tls_arguments import KEPT, shared_settings

pytestmark = pytest.mark.usefixtures("descriptors_back")

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> LoopFactory:
    """Return what makes a loop of ours."""
    return OURS[request.param]


@contextlib.asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Any]:
    """Serve a stream function; yield the address."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def upgrade(writer: asyncio.StreamWriter) -> None:
    """What a server does after STARTTLS."""
    writer.write(b"220 go ahead\r\n")
    await writer.start_tls(server_context(), ssl_handshake_timeout=5)


# --- streams ----------------------------------------------------------------------------------


def test_streams(ours: LoopFactory) -> None:
    """Upgraded natively; much goes both ways with the reader's flow control at work."""

    async def script(world: World) -> None:
        data = numbers(1_000_000)
        most = 0

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal most
            world.note("server", await reader.readline())
            await upgrade(writer)
            world.note("tls", writer.get_extra_info("ssl_object").version())
            for start in range(0, len(data), 50_000):
                piece = await reader.readexactly(50_000)
                assert piece == data[start : start + 50_000]
                most = max(most, len(reader._buffer))  # type: ignore[attr-defined]
                writer.write(piece)
                await writer.drain()
            world.note("rest", await reader.read())
            writer.close()
            await writer.wait_closed()
            world.note("served")

        async with serving(handler, limit=20_000) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\r\n")
            world.note("client", await reader.readline())
            await writer.start_tls(client_context(), server_hostname=HOST)

            async def send() -> None:
                writer.write(data)
                await writer.drain()

            sending = asyncio.ensure_future(send())
            world.note("same", await reader.readexactly(len(data)) == data)
            await sending
            writer.close()
            await world.until("served")
            await writer.wait_closed()
        # Twice the limit, and what was on its way when the reader asked for a pause.
        assert most < 40_000 + 50_000 + 262_144

    log = same_on_asyncio(script, ours)
    assert ("same", True) in log


def test_it_is_native(ours: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            before = writer.transport
            world.note("before", type(before))
            await reader.readline()
            await upgrade(writer)
            world.note("after", type(writer.transport), before.is_closing())
            world.note("reader's", reader._transport is writer.transport)  # type: ignore[attr-defined]
            writer.close()
            await writer.wait_closed()

        async with serving(handler) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\r\n")
            await reader.readline()
            await writer.start_tls(client_context(), server_hostname=HOST)
            world.note("client", await reader.read())
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    log = play_on(script, ours)
    assert ("before", Connection) in log
    assert ("after", TlsConnection, True) in log
    assert ("reader's", True) in log


# --- bytes that come too early ----------------------------------------------------------------


class Shaker:
    """A client's handshake in buffers, over a non-blocking socket."""

    def __init__(self, world: World, sock: socket.socket) -> None:
        self.world, self.sock = world, sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def hello(self) -> bytes:
        """Return the ClientHello."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def run(self, step: Callable[[], Any]) -> Any:
        """Repeat a step until it needs nothing from the server any more."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self.send()
                data = await self.world.patience(self.world.loop.sock_recv(self.sock, 65536))
                if not data:
                    raise ConnectionError("the server has closed") from None
                self.incoming.write(data)
            finally:
                await self.send()

    async def send(self) -> None:
        if self.outgoing.pending:
            await self.world.loop.sock_sendall(self.sock, self.outgoing.read())


async def starttls_server(world: World, injected: list[bytes]) -> Any:
    """Serve commands, a line each; STARTTLS upgrades. What is read afterwards is noted."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            world.note("plain", await reader.readline())
            # So that what the client sent in the next segment has arrived as well.
            await world.until("go")
            await upgrade(writer)
            world.transports.append(writer.transport)
            world.note("upgraded")
            while line := await reader.readline():
                injected.append(line)
                writer.write(line.upper())
        except OSError as exc:
            world.note("failed", type(exc).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            world.note("over")

    return serving(handler)


SESSION = b"STARTTLS\r\nMAIL FROM:<mallory@example.org>\r\n"


@pytest.mark.parametrize("cut", [10, 11, 20, len(SESSION) - 1, len(SESSION)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_commands_in_clear_text_are_never_executed(ours: LoopFactory, cut: int, when: str) -> None:
    """Behind STARTTLS in the same segment or in another, before the go-ahead or after it."""

    async def script(world: World) -> None:
        injected: list[bytes] = []
        async with await starttls_server(world, injected) as address:
            with socket.socket() as sock:
                sock.setblocking(False)
                await world.loop.sock_connect(sock, address)
                await world.loop.sock_sendall(sock, SESSION[:cut])
                await world.until("plain")
                await world.settle()
                if when == "before":
                    await world.loop.sock_sendall(sock, SESSION[cut:])
                    await world.settle()
                world.note("go")
                answer = await world.patience(world.loop.sock_recv(sock, 14))
                assert answer == b"220 go ahead\r\n"
                if when == "after":
                    await world.loop.sock_sendall(sock, SESSION[cut:])
                shaker = Shaker(world, sock)
                with contextlib.suppress(OSError):
                    await shaker.run(shaker.tls.do_handshake)
                    await shaker.run(lambda: shaker.tls.write(b"NOOP\r\n"))
                    await shaker.run(lambda: shaker.tls.read(100))
                await world.until("over")
            world.note("injected", *injected)
        gc.collect()

    log = play_on(script, ours)
    assert ("plain", b"STARTTLS\r\n") in log
    assert any(note[0] == "failed" for note in log)
    assert ("injected",) in log


@pytest.mark.parametrize("cut", [0, 1, 5, 100, -1])
def test_an_early_hello_is_welcome(ours: LoopFactory, cut: int) -> None:
    """A client that does not wait for the go-ahead: its handshake is in the reader already."""

    async def script(world: World) -> None:
        lines: list[bytes] = []
        async with await starttls_server(world, lines) as address:
            with socket.socket() as sock:
                sock.setblocking(False)
                await world.loop.sock_connect(sock, address)
                shaker = Shaker(world, sock)
                hello = shaker.hello()
                early = hello[: cut if cut >= 0 else len(hello)]
                await world.loop.sock_sendall(sock, b"STARTTLS\r\n" + early)
                await world.until("plain")
                await world.settle()
                world.note("go")
                answer = await world.patience(world.loop.sock_recv(sock, 14))
                assert answer == b"220 go ahead\r\n"
                await world.loop.sock_sendall(sock, hello[len(early) :])
                await shaker.run(shaker.tls.do_handshake)
                await shaker.run(lambda: shaker.tls.write(b"noop\r\n"))
                world.note("answer", await shaker.run(lambda: shaker.tls.read(100)))
                world.note("native", type(world.transports[0]) is TlsConnection)
            await world.until("over")
        assert lines == [b"noop\r\n"]

    log = play_on(script, ours)
    assert ("answer", b"NOOP\r\n") in log
    assert ("native", cut == 0) in log


# --- protocols, the client's side, TLS in TLS -------------------------------------------------


def test_a_protocol(ours: LoopFactory) -> None:
    """connection_made is not called again; another protocol may take over at the same time.

    Whoever awaits is heard before the first data: asyncio does not promise that.
    """

    async def script(world: World) -> None:
        class Second(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                self.transport.write(data.upper())

        second = Second(world, name="second ")

        async def start(transport: Any) -> None:
            transport.write(b"go\n")
            second.transport = await world.loop.start_tls(
                transport, second, server_context(), server_side=True
            )
            world.note("started", second.transport.get_protocol() is second)

        tasks = []
        hooks: dict[str, Any] = {
            "data_received": lambda p, data: tasks.append(
                world.loop.create_task(start(p.transport))
            )
        }
        await world.serve(lambda: Recorder(world, hooks, name="first "))
        reader, writer = await asyncio.open_connection(*world.address)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(client_context(), server_hostname=HOST)
        writer.write(b"secret")
        world.note("answer", await reader.readexactly(6))
        writer.close()
        await writer.wait_closed()
        await world.until("second connection_lost")
        world.transports.clear()

    log = play_on(script, ours)
    assert ("answer", b"SECRET") in log
    assert "second connection_made" not in [note[0] for note in log]


def test_the_clients_side(ours: LoopFactory) -> None:
    """Who accepts a connection may be the client of TLS on it."""

    async def script(world: World) -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            loop: Any = world.loop
            transport = await loop.start_tls(
                writer.transport,
                writer.transport.get_protocol(),
                client_context(),
                server_hostname=HOST,
            )
            transport.write(b"from the client of TLS")
            world.note("read", await reader.read())
            transport.close()
            writer.close()

        async with serving(handler) as address:
            with socket.create_connection(address) as sock:
                sock.settimeout(10)

                def be_server() -> bytes:
                    with server_context().wrap_socket(sock, server_side=True) as tls:
                        got = tls.recv(100)
                        tls.sendall(b"from the server of TLS")
                        tls.unwrap()
                        return got

                got = world.loop.run_in_executor(None, be_server)
                world.note("got", await world.patience(got))
                await world.until("read")

    log = same_on_asyncio(script, ours)
    assert ("got", b"from the client of TLS") in log
    assert ("read", b"from the server of TLS") in log


def test_tls_in_tls(ours: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            await upgrade(writer)
            world.note("outer", type(writer.transport) is _SSLProtocolTransport)
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        async with serving(handler, ssl=server_context()) as address:
            reader, writer = await asyncio.open_connection(
                *address, ssl=client_context(), server_hostname=HOST
            )
            writer.write(b"STARTTLS\r\n")
            await reader.readline()
            await writer.start_tls(client_context(), server_hostname=HOST)
            writer.write(b"twice encrypted\n")
            world.note("answer", await world.patience(reader.readline()))
            writer.close()
            await world.settle()
        gc.collect()

    log = same_on_asyncio(script, ours)
    assert ("answer", b"twice encrypted\n") in log


def test_transports_of_the_base_loop(ours: LoopFactory) -> None:
    """They are upgraded by the base loop, as if ours were not there."""

    async def script(world: World) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def be_server() -> bytes:
                sock, _ = listening.accept()
                sock.settimeout(10)
                sock.sendall(b"220 go ahead\r\n")
                with server_context().wrap_socket(sock, server_side=True) as tls:
                    got = tls.recv(100)
                    tls.unwrap().close()
                    return got

            serving = world.loop.run_in_executor(None, be_server)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.readline()
            await writer.start_tls(client_context(), server_hostname=HOST)
            writer.write(b"to a stranger")
            world.note("got", await world.patience(serving))
            writer.close()
            await world.settle()

    assert ("got", b"to a stranger") in same_on_asyncio(script, ours)


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"sslcontext": None},
        {"sslcontext": True},
        {"transport": None},
        {"ssl_handshake_timeout": 0},
        {"ssl_shutdown_timeout": -1},
    ],
    ids=str,
)
def test_wrong_arguments(ours: LoopFactory, arguments: dict[str, Any]) -> None:
    """asyncio's errors; the connection goes on in clear text."""

    async def script(world: World) -> None:
        hooks: dict[str, Any] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        await world.until("connection_made")
        mine = {
            "transport": world.transports[0],
            "protocol": world.transports[0].get_protocol(),
            "sslcontext": server_context(),
            "server_side": True,
        } | arguments
        with pytest.raises((TypeError, ValueError)) as caught:
            await world.loop.start_tls(**mine)
        world.note("error", caught.type.__name__, str(caught.value))
        await client.send(b"hello")
        world.note("answer", await client.receive(5))

    log = same_on_asyncio(script, ours)
    assert ("answer", b"hello") in log


@pytest.mark.parametrize("held", [b"", b"\x16\x03\x01"], ids=["native", "held"])
@pytest.mark.parametrize(
    "way", ["garbage", "gone", "reset", "silence", "cancelled", "closed", "aborted"]
)
def test_an_upgrade_that_fails(ours: LoopFactory, way: str, held: bytes) -> None:
    """Whoever waits is told, the protocol too, the client sees the end, and nothing is left."""

    async def script(world: World) -> None:
        waiting: list[asyncio.Task[None]] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            world.note("read", await reader.readline())
            await world.until("go")
            timeout = 0.05 if way == "silence" else 60
            waiting.append(asyncio.current_task())  # type: ignore[arg-type]
            world.transports.append(writer.transport)
            try:
                await writer.start_tls(server_context(), ssl_handshake_timeout=timeout)
            except (OSError, asyncio.CancelledError) as exc:
                world.note("told", type(exc).__name__)
            finally:
                writer.close()
                world.note("over")

        async with serving(handler) as address:
            with socket.socket() as sock:
                sock.setblocking(False)
                await world.loop.sock_connect(sock, address)
                await world.loop.sock_sendall(sock, b"STARTTLS\r\n" + held)
                await world.until("read")
                await world.settle()
                world.note("go")
                await world.until(lambda: waiting)
                await world.settle()
                if way == "garbage":
                    await world.loop.sock_sendall(sock, b"EHLO client.example.org\r\n" * 20)
                elif way == "gone":
                    sock.shutdown(socket.SHUT_WR)
                elif way == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
                    sock.close()
                elif way == "cancelled":
                    waiting[0].cancel()
                elif way == "closed":
                    world.transports[0].close()
                elif way == "aborted":
                    world.transports[0].abort()
                await world.until("over")
                if way != "reset":
                    with contextlib.suppress(ConnectionResetError):
                        while await world.patience(world.loop.sock_recv(sock, 4096)):
                            pass
            await world.settle()
        world.transports.clear()
        waiting.clear()
        gc.collect()

    log = play_on(script, ours)
    [told] = [note[1] for note in log if note[0] == "told"]
    expected = {
        "garbage": {"SSLError"},
        "gone": {"ConnectionResetError"},
        "reset": {"ConnectionResetError"},
        "silence": {"ConnectionAbortedError"},
        "cancelled": {"CancelledError"},
        "closed": {"ConnectionAbortedError"},
        "aborted": {"ConnectionAbortedError"},
    }[way]
    assert told in expected


def test_twice(ours: LoopFactory) -> None:
    """The second one is refused; the first goes on."""

    async def script(world: World) -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            transport = writer.transport
            first = asyncio.ensure_future(upgrade(writer))
            await world.settle()
            loop: Any = world.loop
            with pytest.raises((RuntimeError, ConnectionError)):
                await loop.start_tls(
                    transport, asyncio.Protocol(), server_context(), server_side=True
                )
            world.note("refused")
            await first
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        async with serving(handler) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\r\n")
            await reader.readline()
            await world.until("refused")
            await writer.start_tls(client_context(), server_hostname=HOST)
            writer.write(b"hello\n")
            world.note("answer", await world.patience(reader.readline()))
            writer.close()
            await world.settle()

    assert ("answer", b"hello\n") in play_on(script, ours)


def test_after_write_eof(ours: LoopFactory) -> None:
    """Refused; the protocol stays what it was."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        before = transport.get_protocol()
        transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            await world.loop.start_tls(
                transport, asyncio.Protocol(), server_context(), server_side=True
            )
        world.note("same", transport.get_protocol() is before)
        await client.send(b"still heard")
        await world.until("data_received")

    assert ("same", True) in play_on(script, ours)


# --- beside our loops -------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_on_a_stock_loop(factory: LoopFactory) -> None:
    """The function works for the library's connections on whatever loop is running."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[Any] = loop.create_future()

        class Upgrading(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.task = loop.create_task(self.upgrade(transport))

            async def upgrade(self, transport: Any) -> None:
                made.set_result(
                    await start_tls.start_tls(transport, self, server_context(), server_side=True)
                )

        async with await fastlisten.create_server(Upgrading, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=HOST
            )
            transport = await asyncio.wait_for(made, 10)
            assert type(transport) is TlsConnection
            transport.close()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            with pytest.raises(TypeError, match="not supported by start_tls"):
                await start_tls.start_tls(writer.transport, Upgrading(), client_context())

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_settings_are_shared(ours: LoopFactory) -> None:
    """By connections with the same context and timeouts; unused ones are let go."""

    async def script(world: World) -> None:
        server = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0)
        engine = server._acceptors[0].engine
        context = server_context()
        one = shared_settings(engine, context, None, None)
        assert shared_settings(engine, context, None, None) is one
        assert shared_settings(engine, context, 5, None) is not one
        assert shared_settings(engine, context, None, 5) is not one
        assert (one.handshake_timeout, one.shutdown_timeout) == (60, 30)
        for _ in range(KEPT):
            shared_settings(engine, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), None, None)
        assert shared_settings(engine, context, None, None) is not one
        server.close()

    play_on(script, ours)
