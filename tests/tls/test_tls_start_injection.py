"""Plaintext behind STARTTLS is never executed after the handshake (CVE-2011-0411).

Rules of this file: as in support.starttls_protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from support.loops import LoopFactory
from support.starttls_protocol import COMMAND, GO_AHEAD, Starter
from support.tls_world import TlsClient, TlsWorld, on_all_ways, play_tls

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Plaintext that an attacker has inserted after the command.
INJECTED = b"NOOP\r\nEVIL\r\n"


@pytest.mark.parametrize("cut", range(len(COMMAND + INJECTED) + 1))
def test_injected_plaintext_is_not_received_after_starttls(cut: int) -> None:
    """In one segment with the command or in a later one, split anywhere.

    The protocol got what came in the command's own segment before it asked for TLS, and must drop
    it; what comes later is taken for TLS, and the handshake fails.
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


@on_all_ways
@pytest.mark.parametrize("paused", [False, True], ids=["at-once", "paused-before"])
def test_plaintext_received_before_start_tls(
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


@on_all_ways
def test_early_client_hello(loop_factory: LoopFactory, kind: str) -> None:
    """A client that waits for the end of the segment instead of the go-ahead does no harm."""

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
