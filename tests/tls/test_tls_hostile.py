"""TLS clients that try to use up the server's time or fill its log.

Rules of this file: what must not happen is endless work. It is counted in turns of the loop, or as
CPU time of a loop that has nothing to do; never by a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import ssl
import struct
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from support.certificates import authority, table, write
from support.loops import LoopFactory
from support.program import program
from support.tls_contexts import certificate_files, client_context, server_context
from support.tls_probes import HOST, ask, client, lines, read_to_end
from support.tls_records import CHANGE_CIPHER_SPEC, crafted
from support.tls_world import (
    KINDS,
    SMALL,
    TlsBuffered,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    on_all_ways,
    play_tls,
)
from support.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Key updates whose answers, 27 bytes each, overflow the small buffers.
MANY = 3000
#: ... and by only a few.
FEW = 700
#: How much _tls.pyx gives OpenSSL at once when it reads from memory.
FEED = 16640
#: How long a loop is watched doing nothing, and how much CPU time it may use meanwhile, seconds:
#: a hundred times what it needs; a loop that spins uses all that it gets.
WATCHED, IDLE = 0.3, 0.06


async def idle_time() -> float:
    """Return the CPU time that the running loop's thread uses while it has nothing to do."""
    before = time.thread_time()
    await asyncio.sleep(WATCHED)
    return time.thread_time() - before


def unread_bytes(sock: Any) -> int:
    """Return how many received bytes are unread in the kernel."""
    (size,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))
    return int(size)


async def wait_until_stuck(world: TlsWorld, sock: Any) -> None:
    """Wait until a socket that is not read has input, and no more comes."""
    still, before = 0, 0

    def again() -> bool:
        nonlocal still, before
        now = unread_bytes(sock)
        still = still + 1 if now == before and now else 0
        before = now
        return still == 10

    while not again():
        await world.until(lambda: unread_bytes(sock))
        await world.settle()


# --- reading that waits to write -----------------------------------------------------------------


@on_all_ways
@pytest.mark.parametrize("pause", [False, True], ids=["reading", "paused"])
def test_reading_continues_after_waiting_to_write(
    loop_factory: LoopFactory, kind: str, pause: bool
) -> None:
    """Key updates ask for answers that the client does not read; once it does, all goes on."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), **SMALL)
        client, records = await crafted(world, receive_buffer=4096, send_buffer=1 << 18)
        await world.until("connection_made")
        transport = world.transports[-1]
        served = transport.get_extra_info("socket")
        flood = records.key_updates(MANY, answer=True)
        # The client's own buffer has room for all.
        await client.raw.send(flood)
        await wait_until_stuck(world, served)
        assert transport.get_write_buffer_size() == 0
        assert await idle_time() < IDLE
        if pause:
            transport.pause_reading()

        async def drain() -> None:
            while await world.loop.sock_recv(client.sock, 65536):
                pass

        drainer = world.loop.create_task(drain())
        if pause:
            assert await idle_time() < IDLE
            transport.resume_reading()
        await client.raw.send(records.data(b"late"))
        await world.until("data_received")
        assert await idle_time() < IDLE
        client.finish()
        await world.until("connection_lost")
        await drainer
        await world.nothing_left()

    assert play_tls(script, loop_factory, kind=kind) == [
        ("connection_made",),
        ("data_received", "bytes", b"late"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


def test_answers_sent_with_a_read_are_not_waited_for(loop_factory: LoopFactory) -> None:
    """The kernel reports room when a third of the buffer is free, but takes bytes before that."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), **SMALL)
        client, records = await crafted(world, receive_buffer=4096, send_buffer=1 << 18)
        await world.until("connection_made")
        # Answers for which neither end's buffers have room ...
        await client.raw.send(records.key_updates(FEW, answer=True))
        await world.settle()
        loop, waits = world.loop, True
        while waits:
            # ... until the client reads a few, and gives the server something to read.
            waits = bool(await asyncio.wait_for(loop.sock_recv(client.sock, 200), PATIENCE))
            before = len(world.log)
            await client.raw.send(records.data(b"x"))
            await world.until(lambda before=before: len(world.log) > before)  # type: ignore[misc]
            waits = unread_bytes(client.sock) > 0
        assert await idle_time() < IDLE
        client.finish()
        await world.until("connection_lost")
        await world.nothing_left()

    play_tls(script, loop_factory, kind="memory")


def long_chain() -> ssl.SSLContext:
    """Return a server's context with more certificates than small buffers hold."""
    context = server_context()
    leaf = Path(certificate_files().p256).read_text().partition("-----BEGIN CERTIFICATE-----")
    above = Path(certificate_files().authority).read_text()
    with tempfile.NamedTemporaryFile("w", prefix="tls-tests-", suffix=".pem") as file:
        file.write(leaf[1] + leaf[2] + above * 100)
        file.flush()
        context.load_cert_chain(file.name, certificate_files().p256)
    return context


@on_all_ways
def test_handshake_waiting_to_write_does_not_spin(loop_factory: LoopFactory, kind: str) -> None:
    """Its client does not read but keeps sending: this wakes nobody."""

    async def script(world: TlsWorld) -> None:
        server = await world.serve(lambda: TlsRecorder(world), context=long_chain(), **SMALL)
        raw = await world.connect(receive_buffer=4096)
        client = TlsClient(raw, client_context(version=ssl.TLSVersion.TLSv1_3))
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        await client.flush()
        await wait_until_stuck(world, raw.sock)
        await raw.send(CHANGE_CIPHER_SPEC)
        (connection,) = server._acceptors[0].endpoints()
        served = connection.get_extra_info("socket")
        await wait_until_stuck(world, served)
        assert await idle_time() < IDLE
        assert unread_bytes(served) == len(CHANGE_CIPHER_SPEC)
        assert world.log == []
        await client.handshake()
        await client.send(b"at last")
        await world.until("data_received")
        await client.notify()
        await world.until("connection_lost")

    assert play_tls(script, loop_factory, kind=kind) == [
        ("connection_made",),
        ("data_received", "bytes", b"at last"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


# --- turns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("buffered", [False, True], ids=["bytes", "buffered"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_flood_of_key_updates_does_not_starve_others(
    loop_factory: LoopFactory, kind: str, buffered: bool, lazy: bool
) -> None:
    """All are in the kernel before the first is read, and others are served in between."""

    async def script(world: TlsWorld) -> None:
        name = "buffer_updated" if buffered else "data_received"
        recorder = TlsBuffered if buffered else TlsRecorder
        await world.serve(lambda: recorder(world), receive_buffer=1 << 18, lazy=lazy)
        client, records = await crafted(world, send_buffer=1 << 18)
        if not lazy:
            await world.until("connection_made")
        flood = records.key_updates(5000, answer=False) + records.data(b"end")
        # From the socket one is read at a time, from memory some 16 KiB.
        least = 100 if kind == "socket" else len(flood) // FEED
        assert least > 5
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            if not world.count(name):
                world.loop.call_soon(turn)

        # The server, in the same thread, cannot read meanwhile.
        assert client.sock.send(flood) == len(flood)
        turn()
        await world.until(name)
        world.note("turns", turns >= least)
        await client.raw.send(records.data(b"more"))
        await world.until(name, 2)

    log = play_tls(script, loop_factory, kind=kind)
    assert ("turns", True) in log
    assert [note[-1] for note in log if note[0].endswith(("updated", "received"))] == [
        b"end",
        b"more",
    ]


# --- names ----------------------------------------------------------------------------------------


def test_server_name_outside_ascii(tmp_path: Path) -> None:
    """One debug line, and no traceback."""
    name = b"\xff\xfe\x1b.example.org"
    fake = b"n" * len(name)
    hello = name_sent(fake.decode()).replace(fake, name)
    assert hello.count(name) == 1
    write(tmp_path, authority().sign("mx.example.org"))
    write(tmp_path, authority().sign("*.example.org"), "wild")
    configuration = (
        table(tmp_path)
        + table(tmp_path, "wild", "wild")
        + '[log]\nlevel = "debug"\n[server.listener.it]\nprotocol = "http"\n'
        + 'bind = "127.0.0.1:0"\ntls.implicit = true\nhandler = "support.tls_handlers:Tell"\n'
        + "tls.sni = [{ subject = '*.example.org', certificate = 'wild' }]\n"
    )
    with program(tmp_path, configuration) as started:
        with socket.create_connection((HOST, started.port()), PATIENCE) as one:
            one.sendall(hello)
            # A fatal alert.
            assert read_to_end(one)[:6] == b"\x15\x03\x03\x00\x02\x02"
        until(lambda: lines(started, "ASCII"), "the line about the name")
        with client(started.port()) as two:
            assert ask(two)["tls"] is True
        assert started.stop() == 0
        (line,) = lines(started, "ASCII")
        assert line.startswith("DEBUG fastlisten: ")
        assert repr(name) in line
        # (In debug mode the failed handshake itself is logged with its traceback.)
        assert "UnicodeDecodeError" not in started.err
        assert "ignored" not in started.err
        assert "UnicodeDecodeError" not in started.err
        assert "ERROR" not in started.err


def name_sent(name: str) -> bytes:
    """Return the first flight of a client that asks for this host name."""
    outgoing = ssl.MemoryBIO()
    tls = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
