"""`Connection.start_tls`: from plaintext to TLS in the middle of a connection, as for STARTTLS.

Rules of this file: as in support.starttls_protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from support.loops import LoopFactory
from support.starttls_protocol import COMMAND, GO_AHEAD, Starter, commanded
from support.tls_contexts import client_context, server_context
from support.tls_world import (
    TlsBuffered,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    no_session_left,
    on_all_ways,
    play_tls,
)
from support.world import numbers

from fastlisten._tls import TlsSettings

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_start_tls(loop_factory: LoopFactory, kind: str, version: ssl.TLSVersion) -> None:
    async def script(world: TlsWorld) -> None:
        protocol: Any = None

        def factory() -> Any:
            nonlocal protocol
            protocol = Starter(world, {"data_received": lambda p, d: p.transport.write(d.upper())})
            return protocol

        server = await world.serve(factory, plain=True, max_connections=3)
        client = await commanded(world)
        old = world.transports[0]
        tls = TlsClient(client.raw, client_context(version=version))
        await tls.handshake()
        await tls.send(b"hello")
        world.note("client", await tls.receive(5))
        new = protocol.transport
        info = new.get_extra_info
        world.note("new", new is not old, new.get_protocol() is protocol, new.is_reading())
        world.note("cipher", info("cipher") == tls.tls.cipher(), info("ssl_object").version())
        world.note("peer", info("peername") == client.sock.getsockname())
        world.note("old", old.is_closing(), server.connections)
        await tls.notify()
        await world.until("connection_lost")
        world.note("client", await tls.rest())
        await world.nothing_left()
        found = server.statistics()
        world.note("statistics", found["handshake_failures"], found["truncated"])

    with no_session_left():
        log = play_tls(script, loop_factory, kind=kind)
    assert log == [
        ("connection_made",),
        ("started",),
        ("data_received", "bytes", b"hello"),
        ("client", b"HELLO"),
        ("new", True, True, True),
        ("cipher", True, version.name.replace("_", ".")),
        ("peer", True),
        ("old", False, 1),
        ("eof_received",),
        ("connection_lost", "none"),
        ("client", (b"", "close_notify")),
        ("statistics", 0, 0),
    ]


def test_data_after_the_last_flight_in_one_segment(loop_factory: LoopFactory, kind: str) -> None:
    """It is delivered after the future's callbacks and whatever they schedule, so code that awaits
    the future runs first."""

    async def script(world: TlsWorld) -> None:
        tasks = []

        class Awaiting(Starter):
            def start(self) -> None:
                super().start()
                tasks.append(world.loop.create_task(self.wait()))

            async def wait(self) -> None:
                assert self.future is not None
                await self.future
                world.note("awaited")

        await world.serve(lambda: Awaiting(world), plain=True)
        client = await commanded(world)
        flight = await client.last_flight()
        await client.raw.send(flight + client.sealed(b"at once") + client.notice())
        await world.until("connection_lost")

    assert [note[0] for note in play_tls(script, loop_factory, kind=kind)] == [
        "connection_made",
        "started",
        "awaited",
        "data_received",
        "eof_received",
        "connection_lost",
    ]


def test_buffered_protocol(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        started: list[asyncio.Future[Any]] = []

        class BufferedStarter(TlsBuffered):
            def buffer_updated(self, nbytes: int) -> None:
                if started:
                    super().buffer_updated(nbytes)
                    return
                self.transport.write(GO_AHEAD)
                started.append(self.transport.start_tls(TlsSettings(server_context())))

        await world.serve(lambda: BufferedStarter(world, size=1000), plain=True)
        client = await commanded(world)
        flight = await client.last_flight()
        await client.raw.send(flight + client.sealed(b"first") + client.sealed(b"second"))
        await world.until(
            lambda: sum(note[1] for note in world.log if note[0] == "buffer_updated") == 11
        )
        await client.notify()
        await world.until("connection_lost")
        world.note("result", started[0].result().get_protocol())

    log = play_tls(script, loop_factory, kind=kind)
    data = b"".join(note[2] for note in log if note[0] == "buffer_updated")
    assert data == b"firstsecond"
    assert log[-1] == ("result", None)


def test_unsent_plaintext_is_sent_first(loop_factory: LoopFactory, kind: str) -> None:
    answer = numbers(600_000)

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world, answer=answer), plain=True, send_buffer=4096)
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        await world.until("pause_writing")
        transport = world.transports[0]
        assert transport.get_write_buffer_size() > 300_000
        world.attempt("write", transport.write, b"too late")
        world.attempt("writelines", transport.writelines, [b"too late"])
        client = TlsClient(raw)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        # While plaintext is being sent nothing is read: this waits in the kernel.
        await client.flush()
        await world.settle()
        world.note("waiting", world.count("started"))
        world.note("plaintext", await raw.receive(len(answer)) == answer)
        await client.handshake()
        await client.send(b"hello")
        await world.until("data_received")

    log = [note for note in play_tls(script, loop_factory, kind=kind) if "writing" not in note[0]]
    assert log == [
        ("connection_made",),
        ("write", "RuntimeError('Cannot call write() after start_tls()',)"),
        ("writelines", "RuntimeError('Cannot call writelines() after start_tls()',)"),
        ("waiting", 0),
        ("plaintext", True),
        ("started",),
        ("data_received", "bytes", b"hello"),
    ]


def test_paused_writing_is_resumed(loop_factory: LoopFactory, kind: str) -> None:
    """A protocol that plaintext had paused would otherwise never write again."""
    answer = numbers(600_000)

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world, answer=answer), plain=True, send_buffer=4096)
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        await world.until("pause_writing")
        await raw.receive(len(answer))
        client = await TlsClient(raw).handshake()
        await world.until("started")
        await client.send(b"x")
        await world.until("data_received")
        world.note("resumed", world.count("pause_writing"), world.count("resume_writing"))

    assert play_tls(script, loop_factory, kind=kind)[-1] == ("resumed", 1, 1)


def test_reading_is_enabled_afterwards(loop_factory: LoopFactory, kind: str) -> None:
    """Whatever it was before; it can be paused again before the first data."""

    async def script(world: TlsWorld) -> None:
        class Pausing(Starter):
            def start(self) -> None:
                self.transport.pause_reading()
                super().start()

            def started(self, future: asyncio.Future[Any]) -> None:
                super().started(future)
                world.note("reading", self.transport.is_reading())
                self.transport.pause_reading()

        await world.serve(lambda: Pausing(world), plain=True)
        client = await commanded(world)
        flight = await client.last_flight()
        await client.raw.send(flight + client.sealed(b"at once"))
        await world.until("started")
        await world.settle()
        world.note("paused", world.count("data_received"))
        world.transports[-1].resume_reading()
        await world.until("data_received")

    assert play_tls(script, loop_factory, kind=kind) == [
        ("connection_made",),
        ("started",),
        ("reading", True),
        ("paused", 0),
        ("data_received", "bytes", b"at once"),
    ]


def test_write_and_close_in_the_done_callback(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        class Brief(Starter):
            def started(self, future: asyncio.Future[Any]) -> None:
                super().started(future)
                self.transport.write(b"goodbye")
                self.transport.close()

        await world.serve(lambda: Brief(world), plain=True)
        client = await (await commanded(world)).handshake()
        world.note("client", await client.rest())
        await client.notify()
        await world.until("connection_lost")
        await world.nothing_left()

    log = play_tls(script, loop_factory, kind=kind)
    assert ("client", (b"goodbye", "close_notify")) in log


def test_protocol_argument_gets_the_data(loop_factory: LoopFactory, kind: str) -> None:
    """It receives the data even if set_protocol was called before."""

    async def script(world: TlsWorld) -> None:
        class Leaving(Starter):
            def start(self) -> None:
                self.transport.set_protocol(TlsRecorder(world, name="second "))
                super().start()

        await world.serve(lambda: Leaving(world), plain=True)
        client = await (await commanded(world)).handshake()
        await client.send(b"hello")
        await world.until("second data_received")
        await client.notify()
        await world.until("second connection_lost")

    names = [note[0] for note in play_tls(script, loop_factory, kind=kind)]
    assert names == [
        "connection_made",
        "started",
        "second data_received",
        "second eof_received",
        "second connection_lost",
    ]


def test_invalid_calls(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        settings = TlsSettings(server_context())
        await world.serve(lambda: Starter(world), plain=True)
        client = await commanded(world)
        world.attempt("twice", world.transports[0].start_tls, settings)
        await client.handshake()
        await world.until("started")
        world.attempt("over TLS", world.transports[1].start_tls, settings)
        world.attempt("again", world.transports[0].start_tls, settings)
        await world.connect()
        await world.until("connection_made", 2)
        transport = world.transports[-1]
        world.attempt("settings", transport.start_tls, server_context())
        world.attempt("settings", transport.start_tls, None)
        transport.write_eof()
        world.attempt("after write_eof", transport.start_tls, settings)
        await world.connect()
        await world.until("connection_made", 3)
        transport = world.transports[-1]
        transport.close()
        world.attempt("after close", transport.start_tls, settings)
        await world.until("connection_lost")
        world.attempt("lost", transport.start_tls, settings)

    log = [note for note in play_tls(script, loop_factory, kind=kind) if note[0][0] != "c"]
    assert [(note[0], note[1].partition("(")[0]) for note in log if len(note) == 2] == [
        ("twice", "RuntimeError"),
        ("over TLS", "RuntimeError"),
        ("again", "RuntimeError"),
        ("settings", "TypeError"),
        ("settings", "TypeError"),
        ("after write_eof", "RuntimeError"),
        ("after close", "ConnectionAbortedError"),
        ("lost", "ConnectionAbortedError"),
    ]


def test_place_is_kept(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        server = await world.serve(lambda: Starter(world), plain=True, max_connections=1)
        client = await (await commanded(world)).handshake()
        refused = await world.connect()
        world.note("refused", (await refused.rest())[1], server.connections)
        await client.notify()
        await world.until("connection_lost")
        await world.nothing_left()
        await (await commanded(world)).handshake()
        world.note("connections", server.connections)

    log = play_tls(script, loop_factory, kind=kind)
    assert ("refused", "eof", 1) in log
    assert ("connections", 1) in log
