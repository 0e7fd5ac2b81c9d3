"""How a connection over TLS ends: close_notify from either side, truncation, resets, timeouts.

Rules of this file: as in test_tls_transport. A client does exactly what the test says and nothing
else: it answers a close_notify only where that is written.
"""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from helpers_connection import Hook, LoopFactory, numbers
from helpers_tls import (
    WAY_NAMES,
    WAYS,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    openssl_function,
    play_tls,
    same_tls,
)
from helpers_tls_certificates import client_context, server_context

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Seconds that asyncio's and our servers give for the answer to close_notify, where a test waits.
SHORTLY = 0.15
#: More than buffers hold; see test_tls_flow.
MUCH = 1_500_000


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


def truncated(world: TlsWorld) -> None:
    """Note what only ours know: whether the last connection was cut off, and the count of them."""
    if world.native:
        info = world.transports[-1].get_extra_info("truncated")
        world.ours = (info, world.server.statistics()["truncated"])


# -- the client ends


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("data", [b"", b"last words"], ids=["silent", "speaking"])
def test_close_notify_of_the_client(
    loop_factory: LoopFactory, kind: str, data: bytes, version: ssl.TLSVersion
) -> None:
    """Answered by ours, then TCP ends."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made(context=client_context(version=version))
        await client.raw.send((client.sealed(data) if data else b"") + client.notice())
        await world.until("connection_lost")
        world.note("client", await client.rest(), await client.raw.rest())
        truncated(world)
        assert world.ours in (None, (False, 0))

    log = same_tls(script, loop_factory, kind=kind)
    assert log[-1] == ("client", (b"", "close_notify"), (b"", "eof"))


def test_close_notify_while_we_have_unsent_data(loop_factory: LoopFactory, kind: str) -> None:
    """The client said that it sends no more, not that it reads no more: it gets all of it."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(numbers(MUCH))
        await client.notify()
        await world.until("eof_received")
        await world.settle()
        world.note("closing", transport.is_closing())
        rest, end = await client.rest()
        await world.until("connection_lost")
        world.note("client", rest == numbers(MUCH), end)

    log = play_tls(script, loop_factory, kind=kind)
    assert [note for note in log if "writing" not in note[0]] == [
        ("connection_made",),
        ("eof_received",),
        ("closing", True),
        ("connection_lost", "none"),
        ("client", True, "close_notify"),
    ]


@pytest.mark.parametrize("ending", ["close_notify", "eof"])
def test_the_end_while_reading_is_paused(loop_factory: LoopFactory, kind: str, ending: str) -> None:
    """Data and end wait for resume_reading, in this order."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: t.pause_reading()}
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, transport = await world.made()
        await client.send(b"last words")
        if ending == "close_notify":
            await client.notify()
        else:
            client.finish()
        await world.settle()
        world.note("resume", transport.is_reading())
        transport.resume_reading()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log] == [
        "connection_made",
        "resume",
        "data_received",
        "eof_received",
        "connection_lost",
    ]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_truncation(loop_factory: LoopFactory, kind: str, version: ssl.TLSVersion) -> None:
    """TCP ends without close_notify. asyncio's protocols see an end like any other; who wants to
    know asks for ``truncated``."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made(context=client_context(version=version))
        if world.native:
            assert transport.get_extra_info("truncated") is False
        await client.send(b"half a mess")
        await world.until("data_received")
        client.finish()
        await world.until("connection_lost")
        world.note("client", (await client.raw.rest())[1])
        truncated(world)
        assert world.ours in (None, (True, 1))

    same_tls(script, loop_factory, kind=kind)


def test_truncation_is_known_in_time(loop_factory: LoopFactory, kind: str) -> None:
    """In eof_received already, so that a protocol can refuse what was cut off."""

    async def script(world: TlsWorld) -> None:
        ask: Hook = lambda p, *_: world.note("cut", p.transport.get_extra_info("truncated"))  # noqa: E731
        await world.serve(lambda: TlsRecorder(world, {"eof_received": ask, "connection_lost": ask}))
        for ending in ("finish", "notify"):
            client, _ = await world.made()
            if ending == "finish":
                client.finish()
            else:
                await client.notify()
            await world.until("connection_lost", world.count("connection_made"))
            await world.settle()
        world.note("count", world.server.statistics()["truncated"])

    log = [
        note for note in play_tls(script, loop_factory, kind=kind) if note[0] in ("cut", "count")
    ]
    assert log == [("cut", True), ("cut", True), ("cut", False), ("cut", False), ("count", 1)]


def test_truncation_inside_a_record(loop_factory: LoopFactory, kind: str) -> None:
    """A record that is not whole is no data."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made()
        await client.raw.send(client.sealed(b"whole") + client.sealed(b"not whole")[:-1])
        client.finish()
        await world.until("connection_lost")
        truncated(world)
        assert world.ours in (None, (True, 1))

    log = same_tls(script, loop_factory, kind=kind)
    assert [note for note in log if note[0] == "data_received"] == [
        ("data_received", "bytes", b"whole")
    ]


@pytest.mark.parametrize("unread", [False, True], ids=["quiet", "unread"])
def test_a_reset(loop_factory: LoopFactory, kind: str, unread: bool) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        if unread:
            transport.write(b"never read")
        await client.send(b"x")
        await world.until("data_received")
        client.reset()
        await world.until("connection_lost")
        truncated(world)
        assert world.ours in (None, (True, 1))
        await world.nothing_left()

    log = same_tls(script, loop_factory, kind=kind)
    assert log[-1][1].startswith("ConnectionResetError(104")


def test_a_reset_with_unsent_data(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(bytes(MUCH))
        client.reset()
        await world.until("connection_lost")
        await world.nothing_left()

    log = play_tls(script, loop_factory, kind=kind)
    assert log[-1][1].startswith(("ConnectionResetError", "BrokenPipeError"))
    assert "eof_received" not in [note[0] for note in log]


def test_a_fatal_alert_of_the_client(loop_factory: LoopFactory, kind: str) -> None:
    """In the open connection: an error, not an end."""

    async def script(world: TlsWorld) -> None:
        # Under 1.2, because a client that finds the server's Finished wrong is hard to arrange.
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made(context=client_context(version=ssl.TLSVersion.TLSv1_3))
        # What is not a valid record makes OpenSSL, as a client, send bad_record_mac.
        client.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            client.tls.read(1)
        await client.flush()
        await world.until("connection_lost")

    same_tls(script, loop_factory, kind=kind)


def test_a_broken_record(loop_factory: LoopFactory, kind: str) -> None:
    """Bytes that somebody on the way changed end the connection; the client hears an alert."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made()
        good = client.sealed(b"good")
        bad = bytearray(client.sealed(b"x" * 100))
        bad[50] ^= 1
        await client.raw.send(good + bad)
        await world.until("connection_lost")
        world.note("client", await client.rest())

    log = play_tls(script, loop_factory, kind=kind)
    # (asyncio loses the good record if both come at once.)
    assert log[1] == ("data_received", "bytes", b"good")
    assert "DECRYPTION_FAILED" in log[-2][1]
    assert "BAD_RECORD_MAC" in log[-1][1][1]


# -- the server ends


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("answer", ["close_notify", "eof", "reset"])
def test_close(loop_factory: LoopFactory, kind: str, answer: str, version: ssl.TLSVersion) -> None:
    """close_notify goes out behind the data; connection_lost waits for the answer."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made(context=client_context(version=version))
        transport.write(b"bye")
        transport.close()
        # Dropped.
        world.attempt("write", transport.write, b"late")
        world.attempt("writelines", transport.writelines, [b"too ", b"late"])
        world.note("size", transport.get_write_buffer_size())
        transport.close()
        world.note("closing", transport.is_closing())
        world.note("client", await client.rest())
        await world.settle()
        world.note("waiting", world.count("connection_lost"), client.raw.ended())
        if answer == "close_notify":
            await client.notify()
        elif answer == "eof":
            client.finish()
        else:
            client.reset()
        await world.until("connection_lost")
        await world.nothing_left()

    log = same_tls(script, loop_factory, kind=kind)
    assert log[4:7] == [
        ("closing", True),
        ("client", (b"bye", "close_notify")),
        ("waiting", 0, "open"),
    ]


def test_close_with_much_unsent(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(numbers(MUCH))
        transport.close()
        await world.settle()
        world.note("waiting", world.count("connection_lost"))
        rest, end = await client.rest()
        world.note("client", rest == numbers(MUCH), end)
        await client.notify()
        await world.until("connection_lost")

    log = [note for note in play_tls(script, loop_factory, kind=kind) if "writing" not in note[0]]
    assert log == [
        ("connection_made",),
        ("waiting", 0),
        ("client", True, "close_notify"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


@pytest.mark.parametrize("unsent", [False, True], ids=["waiting", "unsent"])
def test_the_shutdown_timeout(loop_factory: LoopFactory, kind: str, unsent: bool) -> None:
    """A client that never answers, or never reads, is left."""

    async def script(world: TlsWorld) -> None:
        await world.serve(
            lambda: TlsRecorder(world), send_buffer=4096, ssl_shutdown_timeout=SHORTLY
        )
        client, transport = await world.made(receive_buffer=4096)
        if unsent:
            transport.write(bytes(600_000))
            transport.write(bytes(MUCH))
            await world.settle()
        transport.close()
        await world.until("connection_lost")
        await world.nothing_left()
        world.note("fd", transport.get_extra_info("no name", "lost"))
        del client

    log = same_tls(script, loop_factory, kind=kind)
    assert log[-2] == ("connection_lost", "TimeoutError('SSL shutdown timed out',)")


def test_data_after_close(loop_factory: LoopFactory, kind: str) -> None:
    """What a client sends before it has heard of the end makes the end an error, as in asyncio."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        transport.write(b"bye")
        transport.close()
        await world.settle()
        await client.send(b"but I was about to say")
        await world.until("connection_lost")
        world.note("client", (await client.rest())[0])

    log = same_tls(script, loop_factory, kind=kind)
    assert log[1] == ("connection_lost", "SSLError(APPLICATION_DATA_AFTER_CLOSE_NOTIFY)")


def test_close_while_paused_with_input(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        transport.pause_reading()
        await client.send(b"never read")
        await world.settle()
        transport.close()
        await world.until("connection_lost")

    same_tls(script, loop_factory, kind=kind)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closing"])
@pytest.mark.parametrize("unsent", [False, True], ids=["sent", "unsent"])
def test_abort(loop_factory: LoopFactory, kind: str, closed: bool, unsent: bool) -> None:
    """At once, without close_notify, and connection_lost(None)."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        if unsent:
            transport.write(bytes(600_000))
            transport.write(bytes(MUCH))
        if closed:
            transport.close()
            await world.settle()
        world.note("before", world.count("connection_lost"))
        transport.abort()
        transport.abort()
        world.note("closing", transport.is_closing(), world.count("connection_lost"))
        await world.until("connection_lost")
        await world.nothing_left()
        if not closed:
            world.note("client", (await client.rest())[1] == "close_notify")

    log = same_tls(script, loop_factory, kind=kind)
    assert ("connection_lost", "none") in log
    assert closed or log[-1] == ("client", False)


def test_closing_the_server_leaves_connections(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, _ = await world.made()
        world.server.close()
        await client.send(b"still here")
        world.note("client", await client.receive(10))
        await client.notify()
        await world.until("connection_lost")

    assert ("client", b"still here") in same_tls(script, loop_factory, kind=kind)


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_ending_all_clients(loop_factory: LoopFactory, kind: str, method: str) -> None:
    """Those in the handshake too."""

    async def script(world: TlsWorld) -> None:
        server = await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made()
        half = TlsClient(await world.connect())
        with pytest.raises(ssl.SSLWantReadError):
            half.tls.do_handshake()
        await half.raw.send(half.flight()[:100])
        silent = await world.connect()
        await world.until(lambda: server.connections == 3)
        await world.settle()
        server.close()
        getattr(server, method)()
        end = (await client.rest())[1]
        if method == "close_clients":
            await client.notify()
        await world.until("connection_lost")
        world.note("client", end)
        await world.nothing_left()
        await world.patience(server.wait_closed())
        world.note("others", (await half.raw.rest())[1], (await silent.rest())[1])

    log = play_tls(script, loop_factory, kind=kind)
    end = "close_notify" if method == "close_clients" else "truncated"
    assert ("client", end) in log
    assert log[-1][0] == "others"


# -- renegotiation


def ask_to_renegotiate(client: TlsClient) -> bytes:
    """Return the ClientHello with which a client of TLS 1.2 asks for another handshake."""
    assert openssl_function("SSL_renegotiate")(client.tls) == 1
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    return client.flight()


@pytest.mark.parametrize("option", [True, False], ids=["forbidden", "default"])
def test_renegotiation_is_refused(loop_factory: LoopFactory, kind: str, option: bool) -> None:
    """With OP_NO_RENEGOTIATION, and by OpenSSL's default; the connection goes on or ends."""

    async def script(world: TlsWorld) -> None:
        context = server_context()
        if not option:
            context.options &= ~ssl.OP_NO_RENEGOTIATION
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), context=context)
        client, _ = await world.made(context=client_context(version=ssl.TLSVersion.TLSv1_2))
        await client.send(b"before")
        world.note("client", await client.receive(6))
        await client.raw.send(ask_to_renegotiate(client))
        await client.feed()
        try:
            client.tls.do_handshake()
        except ssl.SSLError as exc:
            world.note("refused", exc.reason)
        client.reset()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert ("refused", "NO_RENEGOTIATION") in log


def test_a_flood_of_renegotiations(loop_factory: LoopFactory, kind: str) -> None:
    """Each is refused at no cost that grows; nobody else waits."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks))
        context = client_context(version=ssl.TLSVersion.TLSv1_2)
        bad, _ = await world.made(context=context)
        hello = ask_to_renegotiate(bad)
        other, _ = await world.made(context=context)
        await bad.raw.send(hello)
        for i in range(10):
            await other.send(b"%d" % i)
            world.note("client", await other.receive(1))
        bad.reset()
        await other.notify()
        await world.until("connection_lost", 2)
        await world.nothing_left()

    log: list[Any] = play_tls(script, loop_factory, kind=kind)
    assert [note[1] for note in log if note[0] == "client"] == [b"%d" % i for i in range(10)]
