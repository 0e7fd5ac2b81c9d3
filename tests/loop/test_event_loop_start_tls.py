"""`loop.start_tls` and `StreamWriter.start_tls` on connections of the core.

Rules of this file: the clients are asyncio's, or raw sockets with an `ssl.SSLObject` if it matters
when which bytes come; the native upgrade itself is tested in test_tls_start.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from asyncio.sslproto import _SSLProtocolTransport
from typing import Any

import pytest
from support.loop_worlds import play_on, same_on_asyncio, serving, upgrade
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context, server_context
from support.world import Recorder, World, numbers

from fastlisten._connection import Connection
from fastlisten._tls import TlsConnection

pytestmark = pytest.mark.usefixtures("descriptors_back")


# --- streams ----------------------------------------------------------------------------------


def test_stream_writer_start_tls(our_loop_factory: LoopFactory) -> None:
    """The upgrade is native; much data goes both ways with flow control."""

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

    log = same_on_asyncio(script, our_loop_factory)
    assert ("same", True) in log


def test_upgrade_is_native(our_loop_factory: LoopFactory) -> None:
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

    log = play_on(script, our_loop_factory)
    assert ("before", Connection) in log
    assert ("after", TlsConnection, False) in log
    assert ("reader's", True) in log


# --- protocols, the client's side, TLS in TLS -------------------------------------------------


def test_upgraded_protocol(our_loop_factory: LoopFactory) -> None:
    """connection_made is not called again; another protocol may take over at the same time.

    Code that awaits the upgrade runs before the first data: asyncio does not promise that.
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

    log = play_on(script, our_loop_factory)
    assert ("answer", b"SECRET") in log
    assert "second connection_made" not in [note[0] for note in log]


def test_server_side_false(our_loop_factory: LoopFactory) -> None:
    """The side that accepted a connection may be the TLS client."""

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

                def act_as_server() -> bytes:
                    with server_context().wrap_socket(sock, server_side=True) as tls:
                        got = tls.recv(100)
                        tls.sendall(b"from the server of TLS")
                        tls.unwrap()
                        return got

                got = world.loop.run_in_executor(None, act_as_server)
                world.note("got", await world.patience(got))
                await world.until("read")

    log = same_on_asyncio(script, our_loop_factory)
    assert ("got", b"from the client of TLS") in log
    assert ("read", b"from the server of TLS") in log


def test_tls_in_tls(our_loop_factory: LoopFactory) -> None:
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

    log = same_on_asyncio(script, our_loop_factory)
    assert ("answer", b"twice encrypted\n") in log


def test_transports_of_the_base_loop(our_loop_factory: LoopFactory) -> None:
    """The base loop upgrades them, as if ours were not there."""

    async def script(world: World) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def act_as_server() -> bytes:
                sock, _ = listening.accept()
                sock.settimeout(10)
                sock.sendall(b"220 go ahead\r\n")
                with server_context().wrap_socket(sock, server_side=True) as tls:
                    got = tls.recv(100)
                    tls.unwrap().close()
                    return got

            serving = world.loop.run_in_executor(None, act_as_server)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.readline()
            await writer.start_tls(client_context(), server_hostname=HOST)
            writer.write(b"to a stranger")
            world.note("got", await world.patience(serving))
            writer.close()
            await world.settle()

    assert ("got", b"to a stranger") in same_on_asyncio(script, our_loop_factory)
