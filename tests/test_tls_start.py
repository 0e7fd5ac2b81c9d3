"""`Connection.start_tls`: from plaintext to TLS in the middle of a connection, as STARTTLS does it.

Rules of this file: the protocol begins TLS when it has received a line that says so, and answers
it in plaintext before; whatever it receives after that call must have come through TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest
from helpers_connection import Hook, LoopFactory, numbers
from helpers_tls import (
    WAY_NAMES,
    WAYS,
    TlsBuffered,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    no_session_left,
    play_tls,
    spelled,
)
from helpers_tls_certificates import client_context, server_context

from fastlisten._tls import TlsSettings

pytestmark = pytest.mark.usefixtures("descriptors_back")

COMMAND = b"STARTTLS\r\n"
GO_AHEAD = b"220 go\r\n"
#: Plaintext that somebody on the way has put behind the command.
INJECTED = b"NOOP\r\nEVIL\r\n"
#: Seconds, where a test waits for a timeout.
SHORTLY = 0.15


@pytest.fixture(params=WAYS, ids=WAY_NAMES)
def way(request: pytest.FixtureRequest) -> tuple[LoopFactory, str]:
    """Return a loop and how OpenSSL is reached."""
    value: tuple[LoopFactory, str] = request.param
    return value


@pytest.fixture
def loop_factory(way: tuple[LoopFactory, str]) -> LoopFactory:
    """Return what makes the event loop."""
    return way[0]


@pytest.fixture
def kind(way: tuple[LoopFactory, str]) -> str:
    """Return how OpenSSL is reached."""
    return way[1]


class Starter(TlsRecorder):
    """Begins TLS at `COMMAND`.

    Attributes:
        plaintext: what was received before.
        future: of start_tls.
    """

    future: asyncio.Future[Any] | None = None

    def __init__(
        self,
        world: TlsWorld,
        hooks: dict[str, Hook] | None = None,
        *,
        answer: bytes = GO_AHEAD,
        **settings: Any,
    ) -> None:
        super().__init__(world, hooks)
        self.plaintext = b""
        self.answer = answer
        self.settings = TlsSettings(server_context(), **settings)

    def data_received(self, data: bytes) -> None:
        if self.future is not None:
            super().data_received(data)
            return
        self.plaintext += data
        if COMMAND in self.plaintext:
            self.start()

    def start(self) -> None:
        """Say so, and begin."""
        self.transport.write(self.answer)
        self.future = self.transport.start_tls(self.settings)
        self.future.add_done_callback(self.started)

    def started(self, future: asyncio.Future[Any]) -> None:
        """Take the new transport, or note why there is none."""
        if future.cancelled():
            self.world.note("cancelled")
        elif future.exception() is not None:
            self.world.note("failed", spelled(future.exception()))
        else:
            self.transport = future.result()
            self.world.transports.append(self.transport)
            self.world.note("started")


async def commanded(world: TlsWorld, **options: Any) -> TlsClient:
    """Return a client that has asked for TLS and got the go-ahead."""
    client = await world.connect(**options)
    await client.send(COMMAND)
    assert await client.receive(len(GO_AHEAD)) == GO_AHEAD
    return TlsClient(client)


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
        ("old", True, 1),
        ("eof_received",),
        ("connection_lost", "none"),
        ("client", (b"", "close_notify")),
        ("statistics", 0, 0),
    ]


def test_data_with_the_last_flight(loop_factory: LoopFactory, kind: str) -> None:
    """Data that came with the handshake's end is delivered after the future's callbacks, and after
    what these schedule; so code that awaits the future runs first."""

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


def test_a_buffered_protocol(loop_factory: LoopFactory, kind: str) -> None:
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


# -- plaintext behind the command


@pytest.mark.parametrize("cut", range(len(COMMAND + INJECTED) + 1))
def test_injected_plaintext(cut: int) -> None:
    """In one segment with the command or in a later one, cut anywhere: never received after it.

    What came with the command's own segment the protocol has got before it asked for TLS, and it
    must drop it; what came later is taken for TLS, and the handshake fails.
    """
    words = COMMAND + INJECTED

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world), plain=True)
        raw = await world.connect()
        await world.until("connection_made")
        protocol = world.transports[0].get_protocol()
        if cut:
            await raw.send(words[:cut])
            await world.settle()
        if cut < len(words):
            await raw.send(words[cut:])
        assert await raw.receive(len(GO_AHEAD)) == GO_AHEAD
        world.note("plaintext", protocol.plaintext)
        client = TlsClient(raw)
        try:
            await client.handshake()
        except OSError:
            world.note("no handshake")
        else:
            await client.send(b"hello")
            await world.until("data_received")
            await client.notify()
        await world.until("connection_lost")
        await world.nothing_left()

    log = [n for n in play_tls(script, asyncio.SelectorEventLoop) if n[0] != "connection_made"]
    received = [note[2] for note in log if note[0] == "data_received"]
    if cut < len(COMMAND) or cut == len(words):
        assert received == [b"hello"]
        assert ("plaintext", words) in log
    else:
        assert received == []
        assert ("plaintext", words[:cut]) in log
        assert ("no handshake",) in log
        assert any(note[0] == "failed" and note[1].startswith("SSLError") for note in log)


@pytest.mark.parametrize("paused", [False, True], ids=["at-once", "paused-before"])
def test_plaintext_that_is_there_before_the_call(
    loop_factory: LoopFactory, kind: str, paused: bool
) -> None:
    """A protocol that pauses reading before its go-ahead has nothing else to do."""

    async def script(world: TlsWorld) -> None:
        class Later(Starter):
            def start(self) -> None:
                if paused:
                    self.transport.pause_reading()
                    world.loop.call_later(0.02, super().start)
                else:
                    super().start()

        await world.serve(lambda: Later(world), plain=True)
        client = await world.connect()
        await client.send(COMMAND)
        await world.settle()
        await client.send(INJECTED)
        assert await client.receive(len(GO_AHEAD)) == GO_AHEAD
        with contextlib.suppress(OSError):
            await TlsClient(client).handshake()
        await world.until("connection_lost")
        world.note("failures", world.server.statistics()["handshake_failures"])
        await world.nothing_left()

    log = play_tls(script, loop_factory, kind=kind)
    assert sorted(note[0] for note in log) == [
        "connection_lost",
        "connection_made",
        "failed",
        "failures",
    ]
    assert log[-1] == ("failures", 1)


def test_a_client_hello_that_comes_early(loop_factory: LoopFactory, kind: str) -> None:
    """A client that does not wait for the go-ahead but for the segment's end does no harm."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world), plain=True)
        raw = await world.connect()
        client = TlsClient(raw)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        await raw.send(COMMAND)
        await world.settle()
        await client.flush()
        assert await raw.receive(len(GO_AHEAD)) == GO_AHEAD
        await client.handshake()
        await client.send(b"hello")
        await world.until("data_received")

    assert play_tls(script, loop_factory, kind=kind)[-1] == ("data_received", "bytes", b"hello")


# -- what was written before


def test_unsent_plaintext_goes_out_first(loop_factory: LoopFactory, kind: str) -> None:
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
        # While plaintext is on its way nobody reads: this waits in the kernel.
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


def test_flow_control_goes_on(loop_factory: LoopFactory, kind: str) -> None:
    """A protocol paused by plaintext is resumed: it would never write again."""
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


# -- failure


@pytest.mark.parametrize("when", ["flushing", "waiting", "hello"])
@pytest.mark.parametrize("ending", ["eof", "reset"])
def test_the_client_goes_away(loop_factory: LoopFactory, kind: str, when: str, ending: str) -> None:
    """Future and connection_lost tell of it, each once."""
    answer = numbers(600_000) if when == "flushing" else GO_AHEAD

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world, answer=answer), plain=True, send_buffer=4096)
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        if when == "flushing":
            await world.until("pause_writing")
        else:
            await raw.receive(len(GO_AHEAD))
        if when == "hello":
            client = TlsClient(raw)
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.do_handshake()
            await client.flush()
            await raw.receive(50)
        if ending == "reset":
            raw.reset()
        else:
            raw.finish()
            if when == "flushing":
                world.note("plaintext", (await raw.rest())[0] == answer)
        await world.until("connection_lost")
        await world.until("failed")
        await world.settle()
        await world.nothing_left()

    with no_session_left():
        log = play_tls(script, loop_factory, kind=kind)
    names = [note[0] for note in log]
    assert names.count("failed") == names.count("connection_lost") == 1
    failed = next(note[1] for note in log if note[0] == "failed")
    # Whoever awaits hears at least that the connection ended.
    assert failed.startswith(("ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"))


@pytest.mark.parametrize("unsent", [False, True], ids=["handshake", "flushing"])
def test_the_timeout(loop_factory: LoopFactory, kind: str, unsent: bool) -> None:
    """From the call on, unsent plaintext included: a client that does not read is left, too."""
    answer = numbers(600_000) if unsent else GO_AHEAD

    async def script(world: TlsWorld) -> None:
        await world.serve(
            lambda: Starter(world, answer=answer, handshake_timeout=SHORTLY),
            plain=True,
            send_buffer=4096,
        )
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        await world.until("connection_lost")
        await world.until("failed")
        await world.nothing_left()
        world.note("failures", world.server.statistics()["handshake_failures"])

    log = [note for note in play_tls(script, loop_factory, kind=kind) if "writing" not in note[0]]
    failed = next(note[1] for note in log if note[0] == "failed")
    assert failed.startswith("ConnectionAbortedError('SSL handshake is taking longer than 0.15")
    assert log[-1] == ("failures", 1)


@pytest.mark.parametrize("method", ["close", "abort"])
@pytest.mark.parametrize("when", ["flushing", "handshake", "established"])
def test_ending_the_old_transport(
    loop_factory: LoopFactory, kind: str, method: str, when: str
) -> None:
    """Passed on to the new one; while there is none the future fails."""
    answer = numbers(600_000) if when == "flushing" else GO_AHEAD

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world, answer=answer), plain=True, send_buffer=4096)
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        if when == "flushing":
            await world.until("pause_writing")
        else:
            await raw.receive(len(GO_AHEAD))
        client = TlsClient(raw)
        if when == "established":
            await client.handshake()
            await world.until("started")
        old = world.transports[0]
        getattr(old, method)()
        if when == "established":
            world.note("end", (await client.rest())[1])
            if method == "close":
                await client.notify()
        else:
            rest, _ = await raw.rest()
            world.note("plaintext", rest == answer, answer.startswith(rest))
            await world.until("failed")
        await world.until("connection_lost")
        await world.settle()
        old.close()
        old.abort()
        await world.nothing_left()

    with no_session_left():
        log = play_tls(script, loop_factory, kind=kind)
    log = [note for note in log if "writing" not in note[0]]
    names = [note[0] for note in log]
    assert names.count("connection_lost") == 1
    if when == "established":
        assert ("end", "close_notify" if method == "close" else "truncated") in log
    else:
        assert names.count("failed") == 1
        assert "started" not in names
        if when == "flushing":
            assert next(note[1:] for note in log if note[0] == "plaintext") == (
                method == "close",
                True,
            )


@pytest.mark.parametrize("when", ["handshake", "established"])
def test_a_future_that_is_cancelled(loop_factory: LoopFactory, kind: str, when: str) -> None:
    """Whoever awaited it gave up; the connection goes on, and nothing is left when it ends."""

    async def script(world: TlsWorld) -> None:
        protocol: Any = None

        def factory() -> Any:
            nonlocal protocol
            protocol = Starter(world)
            return protocol

        await world.serve(factory, plain=True)
        client = await commanded(world)
        if when == "handshake":
            assert protocol.future.cancel()
            await world.until("cancelled")
            await client.handshake()
        else:
            await client.handshake()
            await world.until("started")
            assert not protocol.future.cancel()
        await client.send(b"hello")
        await world.until("data_received")
        await client.notify()
        await world.until("connection_lost")
        await world.nothing_left()

    log = play_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log][-3:] == ["data_received", "eof_received", "connection_lost"]


# -- state


def test_reading_is_on_afterwards(loop_factory: LoopFactory, kind: str) -> None:
    """Whatever it was before; and it can be paused before the first data."""

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


def test_writing_and_closing_in_the_callback(loop_factory: LoopFactory, kind: str) -> None:
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


def test_the_protocol_of_the_call(loop_factory: LoopFactory, kind: str) -> None:
    """set_protocol before it decides who receives."""

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


def test_calls_that_make_no_sense(loop_factory: LoopFactory, kind: str) -> None:
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


def test_places_are_held_through(loop_factory: LoopFactory, kind: str) -> None:
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


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_the_server_ends_everybody(loop_factory: LoopFactory, kind: str, method: str) -> None:
    """In plaintext, in the handshake, and after it."""

    async def script(world: TlsWorld) -> None:
        server = await world.serve(lambda: Starter(world), plain=True)
        plain = await world.connect()
        await world.until("connection_made")
        half = await commanded(world)
        done = await (await commanded(world)).handshake()
        await world.until("started")
        server.close()
        getattr(server, method)()
        world.note("plain", (await plain.rest())[1])
        world.note("half", (await half.raw.rest())[1])
        world.note("done", (await done.rest())[1])
        with contextlib.suppress(OSError):
            await done.notify()
        await world.until("connection_lost", 3)
        await world.until("failed")
        await world.patience(server.wait_closed())

    log = play_tls(script, loop_factory, kind=kind)
    assert ("plain", "eof") in log
    assert ("half", "eof") in log
    assert ("done", "close_notify" if method == "close_clients" else "truncated") in log
