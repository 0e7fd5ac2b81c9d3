"""A protocol over TLS: its callbacks, their order and arguments, and what its transport answers.

Rules of this file: a test plays one script on asyncio's server and on ours, through both ways to
OpenSSL; the logs must be equal, but for the sizes of data_received. Where asyncio's transport fails
(most methods after close, in CPython up to 3.13), the test says what ours does instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
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
    play_tls,
    same_tls,
)
from helpers_tls_certificates import client_context, server_context

pytestmark = pytest.mark.usefixtures("descriptors_back")


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


class Oops(Exception):
    """Raised by hooks; no class of asyncio's or ours."""


def fail(*_: Any) -> None:
    raise Oops("on purpose")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_a_dialogue(
    loop_factory: LoopFactory, kind: str, unix: bool, version: ssl.TLSVersion
) -> None:
    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {
            "connection_made": lambda p, transport: transport.write(b"hello\r\n"),
            "data_received": lambda p, data: p.transport.write(data.upper()),
        }
        await world.serve(lambda: TlsRecorder(world, hooks), unix=unix)
        client = await world.connect()
        await world.settle()
        world.note("before the handshake", world.count("connection_made"))
        tls = await TlsClient(client, client_context(version=version)).handshake()
        world.note("client", await tls.receive(7), tls.tls.version())
        for word in (b"one", b"two", b"three"):
            await tls.send(word)
            world.note("client", await tls.receive(len(word)))
        await tls.notify()
        await world.until("connection_lost")
        world.note("client", await tls.rest())
        await world.nothing_left()

    log = same_tls(script, loop_factory, kind=kind)
    assert log[0] == ("before the handshake", 0)
    assert log[-3:] == [
        ("eof_received",),
        ("connection_lost", "none"),
        ("client", (b"", "close_notify")),
    ]


def test_everything_in_one_segment(loop_factory: LoopFactory, kind: str) -> None:
    """The last flight of the handshake, three records and close_notify."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client = TlsClient(await world.connect())
        flight = await client.last_flight() + client.sealed(b"one") + client.sealed(b"two")
        await client.raw.send(flight + client.sealed(b"three") + client.notice())
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert log == [
        ("connection_made",),
        ("data_received", "bytes", b"onetwothree"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


def test_methods_of_an_open_transport(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        world.attempt("write_eof", transport.write_eof)
        world.attempt("can_write_eof", transport.can_write_eof)
        for wrong in ("text", None, 5, [b"a"], object):
            world.attempt("write", transport.write, wrong)
        world.attempt("write", transport.write, b"")
        world.attempt("write", transport.write, memoryview(b"xviewx")[1:-1])
        world.attempt("write", transport.write, bytearray(b"array"))
        world.attempt("writelines", transport.writelines, [])
        world.attempt("writelines", transport.writelines, [b"a", b"", memoryview(b"bc")])
        world.attempt("writelines", transport.writelines, (b"%d" % i for i in range(4)))
        world.note("client", await client.receive(16))
        world.note("limits", transport.get_write_buffer_limits())
        world.attempt("limits", transport.set_write_buffer_limits, 5, 10)
        world.attempt("limits", transport.set_write_buffer_limits, -1)
        for high, low in ((None, 10), (10, None), (100, 50), (None, None)):
            world.attempt("limits", transport.set_write_buffer_limits, high, low)
            world.note("limits", transport.get_write_buffer_limits())
        for method in (
            "is_reading",
            "pause_reading",
            "pause_reading",
            "is_reading",
            "resume_reading",
            "resume_reading",
            "is_reading",
            "is_closing",
            "get_write_buffer_size",
        ):
            world.attempt(method, getattr(transport, method))
        world.note("protocol", transport.get_protocol() is not None)

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"viewarrayabc0123") in log


def test_methods_of_a_lost_transport(
    loop_factory: LoopFactory, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """None fails or does anything (many of asyncio's raise AttributeError)."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        await client.notify()
        await world.until("connection_lost")
        for method in (
            "close",
            "abort",
            "is_closing",
            "is_reading",
            "pause_reading",
            "resume_reading",
            "write_eof",
            "can_write_eof",
            "get_write_buffer_size",
            "get_write_buffer_limits",
            "get_protocol",
        ):
            world.attempt(method, getattr(transport, method))
        for _ in range(8):
            world.attempt("write", transport.write, b"late")
            world.attempt("writelines", transport.writelines, [b"late"])
        await world.settle()

    caplog.set_level(logging.WARNING, "asyncio")
    log = play_tls(script, loop_factory, kind=kind)
    assert [note for note in log[3:] if note[1] is not None] == [
        ("is_closing", True),
        ("is_reading", False),
        ("write_eof", "NotImplementedError()"),
        ("can_write_eof", False),
        ("get_write_buffer_size", 0),
        ("get_write_buffer_limits", (131072, 524288)),
    ]
    # As asyncio: from the fifth write on.
    assert 8 <= len(caplog.records) <= 12
    assert {record.name for record in caplog.records} == {"asyncio"}


def test_methods_inside_connection_lost(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        def lost(protocol: Any, exc: BaseException | None) -> None:
            transport = protocol.transport
            world.attempt("closing", transport.is_closing)
            world.attempt("write", transport.write, b"too late")
            world.attempt("close", transport.close)
            world.attempt("abort", transport.abort)
            world.note("cipher", transport.get_extra_info("cipher") is not None)
            if kind == "private":
                world.note("version", transport.get_extra_info("ssl_object").version())
            world.note("protocol", transport.get_protocol() is protocol)

        await world.serve(lambda: TlsRecorder(world, {"connection_lost": lost}))
        client, _ = await world.made()
        await client.notify()
        await world.until("protocol")
        world.note("client", await client.rest())

    log = play_tls(script, loop_factory, kind=kind)
    assert log[2:] == [
        ("connection_lost", "none"),
        ("closing", True),
        ("write", None),
        ("close", None),
        ("abort", None),
        ("cipher", True),
        # A closed SSLSocket knows nothing any more.
        *([("version", "TLSv1.3")] if kind == "private" else []),
        ("protocol", True),
        ("client", (b"", "close_notify")),
    ]


# -- what is known of the connection


@pytest.mark.parametrize("certificate", ["", "client"], ids=["anonymous", "certified"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_extra_info(
    loop_factory: LoopFactory, kind: str, certificate: str, version: ssl.TLSVersion
) -> None:
    async def script(world: TlsWorld) -> None:
        context = server_context(ask_client=bool(certificate), alpn=("two", "one"))
        await world.serve(lambda: TlsRecorder(world), context=context)
        client, transport = await world.made(
            context=client_context(version=version, certificate=certificate, alpn=("one", "two"))
        )
        info = transport.get_extra_info
        world.note("context", info("sslcontext") is context)
        world.note("cipher", info("cipher") == client.tls.cipher(), type(info("cipher")).__name__)
        world.note("compression", info("compression", "default"))
        world.note("peercert", info("peercert"))
        world.note("peername", info("peername") == client.sock.getsockname())
        world.note("sockname", info("sockname") == client.sock.getpeername())
        world.note("unknown", info("no such thing"), info("no such thing", 5))
        view = info("socket")
        world.note("socket", type(view).__name__, view.getpeername() == info("peername"))
        tls = info("ssl_object")
        if kind == "private":
            world.note("object", type(tls).__name__, isinstance(tls, ssl.SSLObject))
        world.note("same", tls is info("ssl_object"))
        world.note("version", tls.version(), tls.selected_alpn_protocol(), tls.compression())
        world.note("side", tls.server_side, tls.context is context, tls.cipher() == info("cipher"))
        world.note("certificate", tls.getpeercert() == info("peercert"))
        world.note("der", tls.getpeercert(True) is not None, tls.session_reused)
        world.note("pending", tls.pending())
        world.note(
            "binding",
            tls.get_channel_binding("tls-unique") == client.tls.get_channel_binding("tls-unique"),
        )

    log = same_tls(script, loop_factory, kind=kind)
    expected = (version.name.replace("_", "."), "two", None)
    assert [note[1:] for note in log if note[0] == "version"] == [expected]


def test_extra_info_after_the_end(loop_factory: LoopFactory, kind: str) -> None:
    """All that was known stays known. (asyncio forgets the addresses.)"""

    async def script(world: TlsWorld) -> None:
        context = server_context(ask_client=True)
        await world.serve(lambda: TlsRecorder(world), context=context)
        client, transport = await world.made(context=client_context(certificate="client"))
        own, peer = client.sock.getpeername(), client.sock.getsockname()
        await client.notify()
        await world.until("connection_lost")
        await world.settle()
        info = transport.get_extra_info
        world.note("context", info("sslcontext") is context)
        world.note("cipher", info("cipher") == client.tls.cipher(), info("compression", 5))
        world.note("peercert", info("peercert")["subject"])
        world.note("names", info("peername") == peer, info("sockname") == own)
        world.note("object", info("ssl_object") is not None, info("truncated"))
        world.note("socket", info("socket").fileno())

    assert play_tls(script, loop_factory, kind=kind)[3:] == [
        ("context", True),
        ("cipher", True, None),
        ("peercert", ((("commonName", "client.test"),),)),
        ("names", True, True),
        ("object", True, False),
        ("socket", -1),
    ]


def test_repr(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        world.note("repr", repr(transport).replace(str(client.sock.getsockname()[1]), "PORT"))
        transport.abort()
        await world.until("connection_lost")
        world.note("repr", repr(transport))

    log = [note[1] for note in play_tls(script, loop_factory, kind=kind) if note[0] == "repr"]
    assert "peer=('127.0.0.1', PORT)" in log[0]
    assert "TlsConnection" in log[0]
    assert "closed" in log[1]


# -- exceptions of the protocol


@pytest.mark.parametrize("callback", ["data_received", "eof_received"])
@pytest.mark.parametrize("error", [Oops, OSError], ids=["error", "os-error"])
def test_an_exception(
    loop_factory: LoopFactory, kind: str, callback: str, error: type[Exception]
) -> None:
    """Ends the connection; an OSError is not reported."""

    async def script(world: TlsWorld) -> None:
        def broken(*_: Any) -> None:
            raise error(5, "on purpose")

        await world.serve(lambda: TlsRecorder(world, {callback: broken}))
        client, _ = await world.made()
        await client.send(b"data")
        await world.until("data_received")
        await world.settle()
        if callback == "eof_received":
            await client.notify()
        await world.until("connection_lost")
        await world.settle()
        world.note("client", await client.rest())

    log = same_tls(script, loop_factory, kind=kind)
    assert any(note[0] == "handler" for note in log) == (error is not OSError)


def test_an_exception_in_connection_made(loop_factory: LoopFactory, kind: str) -> None:
    """Ends the connection, as in asyncio, whose message names its own callback."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {"connection_made": fail}))
        client = await world.join()
        await world.until("connection_lost")
        await world.settle()
        world.note("client", (await client.rest())[0])

    expected = play_tls(script, asyncio.SelectorEventLoop, native=False)
    found = play_tls(script, loop_factory, kind=kind)
    for log in (expected, found):
        assert log[1][0] == "handler"
        log[1] = (log[1][0], *log[1][2:])
    assert found == expected


@pytest.mark.parametrize("ending", ["close", "abort", "peer"])
def test_an_exception_in_connection_lost(loop_factory: LoopFactory, kind: str, ending: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {"connection_lost": fail}))
        client, transport = await world.made()
        if ending == "close":
            transport.close()
            world.note("client", await client.rest())
            await client.notify()
        elif ending == "abort":
            transport.abort()
        else:
            await client.notify()
        await world.until("connection_lost")
        await world.until("handler")
        await world.nothing_left()

    same_tls(script, loop_factory, kind=kind)


@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_an_exception_in_flow_control(loop_factory: LoopFactory, kind: str, callback: str) -> None:
    """Reported; the connection goes on."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {callback: fail}), send_buffer=8192)
        client, transport = await world.made(receive_buffer=4096)
        # Twice, because asyncio hands the first to its transport below, whatever its size.
        world.attempt("write", transport.write, bytes(200_000))
        world.attempt("write", transport.write, bytes(1_800_000))
        world.note("client", await client.receive(2_000_000) == bytes(2_000_000))
        await world.until("resume_writing")
        await world.settle()
        world.attempt("write", transport.write, b"more")
        world.note("client", await client.receive(4), transport.is_closing())

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"more", False) in log
    assert any(note[0] == "handler" for note in log)


@pytest.mark.parametrize("callback", ["get_buffer", "buffer_updated"])
def test_an_exception_of_a_buffered_protocol(
    loop_factory: LoopFactory, kind: str, callback: str
) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsBuffered(world, {callback: fail}))
        client = await world.join()
        await client.send(b"abc")
        await world.until("connection_lost")
        await world.settle()

    # asyncio asks for a buffer before there is input, so its connection_made differs in time.
    log = play_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log if note[0] != "buffer_updated"] == [
        "connection_made",
        "handler",
        "connection_lost",
    ]
    assert log[-1] == ("connection_lost", "Oops('on purpose',)")


def test_an_exception_in_the_factory(loop_factory: LoopFactory, kind: str) -> None:
    """The client is closed without a handshake, other clients are served."""

    async def script(world: TlsWorld) -> None:
        made = 0

        def factory() -> TlsRecorder:
            nonlocal made
            made += 1
            if made == 1:
                raise Oops("no protocol for you")
            return TlsRecorder(world)

        await world.serve(factory)
        first = TlsClient(await world.connect())
        try:
            await first.handshake()
        except OSError:
            world.note("first", "failed")
        second, _ = await world.made()
        await second.send(b"hello")
        await world.until("data_received")

    log = [note for note in play_tls(script, loop_factory, kind=kind) if note[0] != "handler"]
    assert log == [("first", "failed"), ("connection_made",), ("data_received", "bytes", b"hello")]


# -- which protocol


def test_set_protocol_in_the_stream(loop_factory: LoopFactory, kind: str) -> None:
    """Every callback goes to the protocol of the moment, from the next one on."""

    async def script(world: TlsWorld) -> None:
        second = TlsRecorder(world, name="second ")
        third = TlsBuffered(world, name="third ", size=64)
        fourth = TlsRecorder(world, name="fourth ")

        def change(protocol: Any, data: bytes) -> None:
            protocol.transport.set_protocol(second)
            world.note("get_protocol", protocol.transport.get_protocol() is second)

        await world.serve(lambda: TlsRecorder(world, {"data_received": change}))
        client, transport = await world.made()
        await client.send(b"for the first")
        await world.until("data_received")
        await client.send(b"for the second")
        await world.until("second data_received")
        transport.set_protocol(third)
        await client.send(b"for the third")
        await world.until("third buffer_updated")
        transport.set_protocol(fourth)
        await client.send(b"for the fourth")
        await world.until("fourth data_received")
        await client.notify()
        await world.until("fourth connection_lost")

    same_tls(script, loop_factory, kind=kind)


def test_set_protocol_after_close(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        transport.close()
        transport.set_protocol(TlsRecorder(world, name="second "))
        world.note("client", await client.rest())
        await client.notify()
        await world.until("second connection_lost")

    same_tls(script, loop_factory, kind=kind)


@pytest.mark.parametrize("size", [1, 5, 1000, 100_000])
def test_a_buffered_protocol(loop_factory: LoopFactory, kind: str, size: int) -> None:
    """All that was decrypted arrives in order, however small the buffer, and then the end."""
    sent = numbers(min(30_000, size * 600))

    async def script(world: TlsWorld) -> None:
        received = bytearray()
        updates: Hook = lambda p, n: received.extend(p.buffer[:n])  # noqa: E731
        await world.serve(lambda: TlsBuffered(world, {"buffer_updated": updates}, size=size))
        client, _ = await world.made()
        # Many records in one segment, so that most of it waits inside OpenSSL.
        await client.raw.send(
            b"".join(client.sealed(sent[i : i + 997]) for i in range(0, len(sent), 997))
        )
        await world.until(lambda: len(received) >= len(sent))
        await client.notify()
        await world.until("connection_lost")
        world.log[:] = [note for note in world.log if note[0] != "buffer_updated"]
        world.note("received", bytes(received) == sent)

    log = same_tls(script, loop_factory, kind=kind)
    assert log[-1] == ("received", True)


def test_an_empty_buffer(loop_factory: LoopFactory, kind: str) -> None:
    """A protocol without room for input is in error; nothing spins."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"get_buffer": lambda p, hint: bytearray()}
        await world.serve(lambda: TlsBuffered(world, hooks))
        client = await world.join()
        await client.send(b"abc")
        await world.until("connection_lost")

    log = play_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log] == ["connection_made", "handler", "connection_lost"]


# -- when


@pytest.mark.parametrize("method", ["close", "abort"])
@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received"])
def test_ending_inside_a_callback(
    loop_factory: LoopFactory, kind: str, method: str, where: str
) -> None:
    """connection_lost never comes inside the call that causes it."""

    async def script(world: TlsWorld) -> None:
        def end(protocol: Any, *_: Any) -> None:
            protocol.transport.write(b"last words")
            getattr(protocol.transport, method)()
            world.note("returned", protocol.transport.is_closing())

        await world.serve(lambda: TlsRecorder(world, {where: end}))
        client = await world.join()
        if where == "data_received":
            await client.send(b"x")
        elif where == "eof_received":
            await client.notify()
            await world.until("connection_lost")
        rest = await client.rest()
        if where != "eof_received":
            with contextlib.suppress(OSError):
                await client.notify()
        await world.until("connection_lost")
        world.note("client", rest[0])

    log = same_tls(script, loop_factory, kind=kind)
    assert ("returned", True) in log


def test_callbacks_and_call_soon(loop_factory: LoopFactory, kind: str) -> None:
    """What connection_made schedules runs before input that comes later."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {
            "connection_made": lambda p, t: world.loop.call_soon(world.note, "soon"),
        }
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, _ = await world.made()
        await world.until("soon")
        await client.send(b"x")
        await world.until("data_received")

    same_tls(script, loop_factory, kind=kind)


def test_end_of_input_with_a_true_answer(
    loop_factory: LoopFactory, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS has no half-open connections for asyncio: a warning, and the end."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {"eof_received": lambda p: True}))
        client, _ = await world.made()
        await client.notify()
        await world.until("connection_lost")
        world.note("warnings", [record.getMessage() for record in caplog.records])
        caplog.clear()
        world.note("client", await client.rest())

    caplog.set_level(logging.WARNING, "asyncio")
    log = same_tls(script, loop_factory, kind=kind)
    assert "has no effect when using ssl" in str(log)


# -- programs on top


def test_a_program_of_streams(loop_factory: LoopFactory, kind: str) -> None:
    """What asyncio.start_server makes of a connection."""

    async def script(world: TlsWorld) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            world.note("version", writer.get_extra_info("ssl_object").version())
            writer.write(b"hello\r\n")
            while line := await reader.readline():
                writer.writelines([b"<", line.strip(), b">\r\n"])
                await writer.drain()
            world.note("eof", reader.at_eof(), writer.can_write_eof())
            writer.close()
            await writer.wait_closed()
            world.note("closed")

        def factory() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(loop=world.loop)
            return asyncio.StreamReaderProtocol(reader, serve, loop=world.loop)

        await world.serve(factory)
        client = await world.join()
        world.note("client", await client.receive(7))
        await client.send(b"one\r\ntwo\r\nth")
        await client.send(b"ree\r\n")
        world.note("client", await client.receive(19))
        await client.notify()
        await world.until("closed")
        world.note("client", await client.rest())
        await world.nothing_left()

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"<one>\r\n<two>\r\n<three>"[:19]) in log
