"""The end of a TLS connection by the server: close, abort, timeout.

Rules of this file: as in test_tls_transport. A client does exactly what the test says: it answers a
close_notify only if the test has it do so.
"""

from __future__ import annotations

import ssl

import pytest
from support.loops import LoopFactory
from support.tls_contexts import client_context
from support.tls_world import (
    MUCH,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    on_all_ways,
    play_tls,
    same_tls,
)
from support.world import Hook, numbers

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]

#: How long asyncio and we wait for the answer to close_notify, where a test waits for it, seconds.
SHORTLY = 0.15


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("answer", ["close_notify", "eof", "reset"])
def test_close_sends_close_notify_after_the_data(
    loop_factory: LoopFactory, kind: str, answer: str, version: ssl.TLSVersion
) -> None:
    """connection_lost waits for the client's answer."""

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


def test_close_with_unsent_data(loop_factory: LoopFactory, kind: str) -> None:
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
def test_shutdown_timeout(loop_factory: LoopFactory, kind: str, unsent: bool) -> None:
    """It ends a client that never answers or never reads."""

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


def test_client_sends_data_after_close(loop_factory: LoopFactory, kind: str) -> None:
    """Data that comes after close makes the end an error, as in asyncio."""

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


def test_close_while_paused_with_pending_input(loop_factory: LoopFactory, kind: str) -> None:
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
def test_abort_without_close_notify(
    loop_factory: LoopFactory, kind: str, closed: bool, unsent: bool
) -> None:
    """It takes effect at once, with connection_lost(None)."""

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


def test_closing_the_server_keeps_connections(loop_factory: LoopFactory, kind: str) -> None:
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
def test_close_clients_and_abort_clients(loop_factory: LoopFactory, kind: str, method: str) -> None:
    """Clients in the handshake are ended, too."""

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
