"""`loop.start_tls` that is rejected or fails, and the same function on other loops.

Rules of this file: a failure reaches the caller and the protocol, the client sees the end, and
nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from typing import Any

import pytest
import uvloop
from support.loop_worlds import play_on, same_on_asyncio, serving, upgrade
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context, server_context
from support.world import Recorder, World

import fastlisten
from fastlisten._tls import TlsConnection
from fastlisten.loop import start_tls
from fastlisten.loop.tls_arguments import KEPT, shared_settings

pytestmark = pytest.mark.usefixtures("descriptors_back")


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
def test_invalid_arguments(our_loop_factory: LoopFactory, arguments: dict[str, Any]) -> None:
    """The errors are asyncio's, and the connection goes on in plaintext."""

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

    log = same_on_asyncio(script, our_loop_factory)
    assert ("answer", b"hello") in log


@pytest.mark.parametrize("held", [b"", b"\x16\x03\x01"], ids=["native", "held"])
@pytest.mark.parametrize(
    "way", ["garbage", "gone", "reset", "silence", "cancelled", "closed", "aborted"]
)
def test_failed_upgrade(our_loop_factory: LoopFactory, way: str, held: bytes) -> None:
    """The caller and the protocol are told, the client sees the end, and nothing is left."""

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

    log = play_on(script, our_loop_factory)
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


def test_second_start_tls_is_an_error(our_loop_factory: LoopFactory) -> None:
    """The first one goes on."""

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

    assert ("answer", b"hello\n") in play_on(script, our_loop_factory)


def test_start_tls_after_write_eof(our_loop_factory: LoopFactory) -> None:
    """It is an error, and the protocol is not replaced."""

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

    assert ("same", True) in play_on(script, our_loop_factory)


# --- other loops ------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_start_tls_on_a_stock_loop(factory: LoopFactory) -> None:
    """The function works for the library's connections on any running loop."""

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


def test_tls_settings_are_shared(our_loop_factory: LoopFactory) -> None:
    """Connections with the same context and timeouts share them; unused ones are freed."""

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

    play_on(script, our_loop_factory)
