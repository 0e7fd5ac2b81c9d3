"""TLS connections leave nothing behind.

Rules of this file: as in test_core_leaks. Measured after two rounds of every ending, and again
after many.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.forked import MAY_HAVE_THREADS
from support.kernel import is_open
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_contexts import HOST, client_context
from support.tls_listener import BUSY, TlsListener, client_hello, tls_listening
from support.tls_world import (
    KINDS,
    WAYS,
    TlsRecorder,
    TlsWorld,
    kind_of_api,
    no_session_left,
    play_tls,
    tls_sessions,
)
from support.waiting import eventually

from fastlisten.loop.engines import engine_for

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    MAY_HAVE_THREADS,
]


#: Clients at a time.
BATCH = 8
#: Rounds of all endings, with 136 connections each.
ROUNDS = 6


#: Blocks that may differ by chance: far below one per connection.
SLACK_BLOCKS = 600
#: Bytes of resident memory that may differ; a session is 15,000.
SLACK_RSS = 4 << 20


class Oops(Exception):
    """Raised by the protocol on purpose."""


class Victim(asyncio.Protocol):
    """Does what the first byte says."""

    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        order = data[:1]
        if order == b"C":
            self.transport.close()
        elif order == b"A":
            self.transport.abort()
        elif order == b"X":
            raise Oops
        elif order == b"W":
            self.transport.write(bytes(200_000))
            self.transport.close()
        elif order == b"I":
            for name in ("ssl_object", "peercert", "cipher", "socket", "sockname"):
                self.transport.get_extra_info(name)
            self.transport.write(b"ok")


class Talker:
    """One client in a batch."""

    def __init__(self, client: RawClient, context: ssl.SSLContext) -> None:
        self.client = client
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    async def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.flush()
                self.incoming.write(await self.client.read())
        await self.flush()

    async def flush(self) -> None:
        if self.outgoing.pending:
            await self.client.send(self.outgoing.read())

    async def say(self, data: bytes) -> None:
        self.tls.write(data)
        await self.flush()

    async def notify(self) -> None:
        # Newer Pythons report the last errno for an end for which OpenSSL has no name.
        with contextlib.suppress(OSError):
            self.tls.unwrap()
        await self.flush()

    async def hear(self) -> None:
        """Read to the end of TCP, whatever it is."""
        with contextlib.suppress(OSError):
            await self.client.everything()


Ending = Callable[[TlsListener, ssl.SSLContext], Awaitable[None]]


def by_server(order: bytes) -> Ending:
    """Return an ending that the server performs."""

    async def ending(listener: TlsListener, context: ssl.SSLContext) -> None:
        talker = Talker(await listener.connect(), context)
        await talker.handshake()
        await talker.say(order)
        if order == b"C":
            await talker.client.read()
            await talker.notify()
        elif order != b"W":
            await talker.hear()
        talker.client.close()

    return ending


def by_client(how: str, order: bytes = b"") -> Ending:
    """Return an ending that the client performs."""

    async def ending(listener: TlsListener, context: ssl.SSLContext) -> None:
        talker = Talker(await listener.connect(), context)
        await talker.handshake()
        if order:
            await talker.say(order)
        if how == "notify":
            await talker.notify()
            await talker.hear()
        if how == "reset":
            talker.client.reset()
        talker.client.close()

    return ending


def broken_handshake(words: bytes, *, reset: bool = False) -> Ending:
    """Return an ending in the middle of the handshake."""

    async def ending(listener: TlsListener, context: ssl.SSLContext) -> None:
        client = await listener.connect(first=words)
        if reset:
            client.reset()
        else:
            client.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                await client.everything()
        client.close()

    return ending


HELLO_HEAD = 200


def endings() -> list[Ending]:
    hello = client_hello()
    return [
        *(by_server(letter) for letter in (b"C", b"A", b"X", b"W")),
        *(by_client(how, order) for how in ("notify", "close", "reset") for order in (b"", b"I")),
        *(broken_handshake(words) for words in (b"", b"GET /\r\n", hello[:HELLO_HEAD], hello)),
        *(broken_handshake(words, reset=True) for words in (b"", hello[:HELLO_HEAD], hello)),
    ]


@pytest.mark.parametrize(
    ("way", "lazy"),
    [(WAYS[0], True), (WAYS[1], False), (WAYS[2], False)],
    ids=["asyncio-lazy", "uvloop-eager", "asyncio-memory"],
)
def test_every_kind_of_ending(
    way: tuple[LoopFactory, str], lazy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loop_factory, kind = way
    every = endings()
    context = client_context()

    async def main() -> dict[str, tuple[int, int]]:
        errors = 0

        def failed(loop: asyncio.AbstractEventLoop, what: dict[str, Any]) -> None:
            nonlocal errors
            assert isinstance(what["exception"], Oops), what
            errors += 1

        asyncio.get_running_loop().set_exception_handler(failed)
        async with tls_listening(Victim, limit=3 * BATCH, lazy=lazy) as listener:

            async def round_of_all() -> None:
                for ending in every:
                    await asyncio.gather(*(ending(listener, context) for _ in range(BATCH)))
                    await listener.empty()
                listener.protocols.clear()

            def measure() -> dict[str, int]:
                gc.collect()
                with open("/proc/self/statm") as file:
                    rss = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                return {
                    "descriptors": len(os.listdir("/proc/self/fd")),
                    "sessions": tls_sessions(),
                    "tasks": len(asyncio.all_tasks()),
                    "blocks": sys.getallocatedblocks(),
                    "rss": rss,
                }

            for _ in range(2):
                await round_of_all()
            before = measure()
            for _ in range(ROUNDS):
                await round_of_all()
            after = measure()
            assert errors == (2 + ROUNDS) * BATCH
            assert listener.count("accepted") == (2 + ROUNDS) * BATCH * len(every)
            return {name: (before[name], after[name]) for name in before}

    caplog.set_level("CRITICAL")
    with kind_of_api(kind):
        found = run(loop_factory, main)
    for name in ("descriptors", "sessions", "tasks"):
        before, after = found[name]
        assert after == before, name
    before, after = found["blocks"]
    assert after - before < SLACK_BLOCKS
    if not os.environ.get("FASTLISTEN_SANITIZE"):
        before, after = found["rss"]
        assert after - before < SLACK_RSS


@pytest.mark.parametrize("kind", KINDS)
def test_engine_closed_with_connections_in_every_state(
    loop_factory: LoopFactory, kind: str
) -> None:
    """No callback is called, and nothing stays open."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        silent = await world.connect()
        half = await world.connect()
        await half.send(client_hello()[:HELLO_HEAD])
        opened, transport = await world.made()
        unsent, writer = await world.made(receive_buffer=4096)
        writer.write(bytes(1_000_000))
        shutting, closer = await world.made()
        closer.close()
        await world.settle()
        engine = engine_for(world.loop)
        # Looked at, so that objects exist which could hold the descriptor.
        numbers = [t.get_extra_info("socket").fileno() for t in (transport, writer, closer)]
        assert all(t.get_extra_info("ssl_object") for t in (transport, writer, closer))
        engine.close()
        world.note("closed", all(not is_open(number) for number in numbers))
        world.note("ends", [(await c.rest())[1] for c in (silent, half)])
        for client in (opened, unsent, shutting):
            await client.rest()
        for late in (transport, writer, closer):
            late.write(b"late")
            late.close()
            late.abort()
        world.note("told", world.count("connection_lost"))
        world.server.close()

    with no_session_left():
        log = [n for n in play_tls(script, loop_factory, kind=kind) if "writing" not in n[0]]
        log = [note for note in log if note[0] != "connection_made"]
    assert log[0] == ("closed", True)
    assert log[-1] == ("told", 0)


def test_census_counts_sessions_and_connections(loop_factory: LoopFactory) -> None:
    """Otherwise its zeros elsewhere would mean nothing."""

    async def main() -> None:
        async with tls_listening() as listener:
            client = await listener.connect(first=client_hello()[:HELLO_HEAD])
            await eventually(lambda: listener.settings.in_progress == 1)
            census = listener.engine.census()
            assert any(census[name] for name in BUSY)
            assert listener.transports() == 1
            assert tls_sessions() >= 1
            client.close()
            await listener.empty()

    run(loop_factory, main)
