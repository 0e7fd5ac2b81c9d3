"""Reads that want to write and writes that want to read: key updates, renewed handshakes.

Rules of this file: as in test_tls_transport. Key updates (RFC 8446, 4.6.3) and renegotiation by the
server are requested through OpenSSL's own functions, found by ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import ssl

import pytest
from support.loops import LoopFactory
from support.tls_contexts import server_context
from support.tls_world import (
    MUCH,
    SMALL,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    on_all_ways,
    openssl_function,
    play_tls,
    same_tls,
)
from support.world import Hook, numbers

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


def key_update(client: TlsClient, *, answer: bool) -> bytes:
    """Return the record of a key update, which asks for one in return or does not."""
    assert openssl_function("SSL_key_update", ctypes.c_int)(client.tls, int(answer)) == 1
    # OpenSSL sends it with the next write; an empty write adds an empty record.
    client.tls.write(b"")
    return client.flight()


@pytest.mark.parametrize("answer", [False, True], ids=["told", "asked"])
def test_key_updates_between_records(loop_factory: LoopFactory, kind: str, answer: bool) -> None:
    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, _ = await world.made()
        for i in range(5):
            await client.raw.send(key_update(client, answer=answer))
            await client.send(b"%3d" % i)
            world.note("client", await client.receive(3))
        await client.notify()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"  4") in log


def test_key_update_while_output_is_queued(loop_factory: LoopFactory, kind: str) -> None:
    """The answer waits behind unsent data; reading and writing go on."""

    async def script(world: TlsWorld) -> None:
        received = bytearray()
        hooks: dict[str, Hook] = {"data_received": lambda p, data: received.extend(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), **SMALL)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(numbers(MUCH))
        assert transport.get_write_buffer_size() > 1_000_000
        await client.raw.send(key_update(client, answer=True) + client.sealed(b"one"))
        await world.until(lambda: bytes(received) == b"one")
        await client.send(b"two")
        await world.until(lambda: bytes(received) == b"onetwo")
        world.note("client", await client.receive(MUCH) == numbers(MUCH))
        transport.write(b"and on")
        world.note("client", await client.receive(6))
        await client.notify()
        await world.until("connection_lost")

    log = [
        note
        for note in play_tls(script, loop_factory, kind=kind)
        if note[0] not in ("data_received", "pause_writing", "resume_writing")
    ]
    assert log == [
        ("connection_made",),
        ("client", True),
        ("client", b"and on"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


def test_flood_of_key_updates_without_reading(loop_factory: LoopFactory, kind: str) -> None:
    """A client keeps asking and does not read: memory is bounded, and nothing is left.

    (At the second one OpenSSL wants to answer, cannot because a record is half sent, and reports
    BAD_LENGTH: an orderly end, of which the protocol is told.)
    """

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), **SMALL)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(bytes(300_000))
        flood = b"".join(key_update(client, answer=True) for _ in range(2000))
        sent = 0
        for _ in range(100):
            with contextlib.suppress(OSError):
                sent += client.sock.send(flood[sent : sent + 8192])
            await world.settle()
            assert transport.get_write_buffer_size() < 400_000
        client.reset()
        await world.until("connection_lost")
        await world.nothing_left()
        world.note("sent", sent > 0)

    log = play_tls(script, loop_factory, kind=kind)
    assert log[-1] == ("sent", True)
    assert log[-2][1].startswith(("SSLError(BAD_LENGTH", "ConnectionResetError", "BrokenPipe"))


def test_write_waits_for_renegotiation(loop_factory: LoopFactory, kind: str) -> None:
    """While a handshake is renewed, which a server may ask for under TLS 1.2, OpenSSL sends no data
    before it has read the client's part."""

    async def script(world: TlsWorld) -> None:
        context = server_context(newest=ssl.TLSVersion.TLSv1_2)
        context.options &= ~ssl.OP_NO_RENEGOTIATION
        received = bytearray()
        hooks: dict[str, Hook] = {"data_received": lambda p, data: received.extend(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), context=context)
        client, transport = await world.made()
        renew = openssl_function("SSL_renegotiate")
        expected = b""
        for i in range(3):
            assert renew(transport.get_extra_info("ssl_object")) == 1
            transport.write(b"%d" % i)
            # The client sees the request and answers with a ClientHello.
            got = hello = b""
            while not (got and hello):
                try:
                    got += client.tls.read(1)
                except ssl.SSLWantReadError:
                    hello += client.flight()
                    if not (got and hello):
                        await client.feed()
            assert got == b"%d" % i
            assert len(hello) > 100
            await client.raw.send(hello)
            await world.settle()
            transport.write(numbers(200_000, i))
            await world.settle()
            # Nothing is sent before the client has done its part.
            world.note("waiting", transport.get_write_buffer_size())
            world.note("client", await client.receive(200_000) == numbers(200_000, i))
            await client.send(b"and back")
            expected += b"and back"
            await world.until(lambda: len(received) == len(expected))  # noqa: B023
        world.note("server", bytes(received) == expected)
        await client.notify()
        await world.until("connection_lost")

    log = play_tls(script, loop_factory, kind=kind)
    assert [note for note in log if note[0] in ("waiting", "client", "server")] == [
        *[("waiting", 200_000), ("client", True)] * 3,
        ("server", True),
    ]
    assert log[-2:] == [("eof_received",), ("connection_lost", "none")]
