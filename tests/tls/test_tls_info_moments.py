"""What a TLS transport tells at every moment of its life: a table, compared with asyncio's.

Rules of this file: as in test_tls_transport. At each moment a script notes the value of every name,
with and without a default, in words that do not depend on the implementation.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_contexts import client_context, server_context
from support.tls_world import TlsClient, TlsRecorder, TlsWorld, on_all_ways, same_tls
from support.world import Hook, Recorder

from fastlisten.loop.start_tls import start_tls

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]

#: (`listener` and `truncated` exist only in our transports; docs/asyncio.md.)
NAMES = (
    *("socket", "peername", "sockname", "sslcontext", "ssl_object"),
    *("peercert", "cipher", "compression", "no such name", ""),
)
DEFAULT = "the default"

Ending = Callable[[TlsWorld, TlsClient, Any], Awaitable[None]]


class Describe:
    """Describes values that are objects, or that differ between two runs."""

    def __init__(self, client: socket.socket, context: ssl.SSLContext) -> None:
        self.names = {"peername": client.getsockname(), "sockname": client.getpeername()}
        self.context = context

    def __call__(self, name: str, answer: Any) -> Any:
        if answer is None or answer == DEFAULT:
            return answer
        if name in self.names:
            return "right" if answer == self.names[name] else answer
        if name == "socket":
            return type(answer).__name__, answer.fileno() >= 0, answer.family, answer.type
        if name == "sslcontext":
            return answer is self.context
        if name == "ssl_object":
            return isinstance(answer, ssl.SSLObject), answer.version(), answer.server_side
        return answer


def note_names(world: TlsWorld, describe: Describe, moment: str, transport: Any) -> None:
    """Note the current value of every name."""
    info = transport.get_extra_info
    for name in NAMES:
        found = describe(name, info(name)), describe(name, info(name, DEFAULT))
        world.note("at", moment, name, *found)
    world.note("at", moment, "closing", transport.is_closing())


async def notified(world: TlsWorld, client: TlsClient, transport: Any) -> None:
    await client.notify()


async def truncated(world: TlsWorld, client: TlsClient, transport: Any) -> None:
    client.finish()


async def reset(world: TlsWorld, client: TlsClient, transport: Any) -> None:
    client.reset()


async def garbled(world: TlsWorld, client: TlsClient, transport: Any) -> None:
    record = bytearray(client.sealed(b"never seen"))
    record[-1] ^= 0xFF
    await client.raw.send(bytes(record))


async def closed(world: TlsWorld, client: TlsClient, transport: Any) -> None:
    transport.close()
    await client.receive(1)
    await client.notify()


async def closed_and_left(world: TlsWorld, client: TlsClient, transport: Any) -> None:
    transport.close()
    client.raw.close()


async def aborted(world: TlsWorld, client: TlsClient, transport: Any) -> None:
    transport.abort()


ENDINGS: list[Ending] = [notified, truncated, reset, garbled, closed, closed_and_left, aborted]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_every_name_at_every_moment(loop_factory: LoopFactory, kind: str, ending: Ending) -> None:
    async def script(world: TlsWorld) -> None:
        context = server_context(ask_client=True)
        describe: Any = None

        def looking(callback: str) -> Hook:
            return lambda protocol, *_: note_names(world, describe, callback, protocol.transport)

        callbacks = ("connection_made", "data_received", "eof_received", "connection_lost")
        hooks = {callback: looking(callback) for callback in callbacks}
        await world.serve(lambda: TlsRecorder(world, hooks), context=context)
        raw = await world.connect()
        describe = Describe(raw.sock, context)
        client = await TlsClient(raw, client_context(certificate="client")).handshake()
        await world.until("connection_made")
        transport = world.transports[-1]
        note_names(world, describe, "open", transport)
        transport.pause_reading()
        note_names(world, describe, "paused", transport)
        transport.resume_reading()
        await client.send(b"x")
        await world.until("data_received")
        await ending(world, client, transport)
        if ending in (closed, closed_and_left, aborted):
            note_names(world, describe, "closing", transport)
        await world.until("connection_lost")
        note_names(world, describe, "lost", transport)
        await world.settle()
        note_names(world, describe, "gone", transport)

    log = same_tls(script, loop_factory, kind=kind)
    assert ("at", "open", "peername", "right", "right") in log
    assert ("at", "gone", "no such name", None, DEFAULT) in log


@pytest.mark.parametrize("asked", [True, False], ids=["asked-before", "asked-after"])
@pytest.mark.parametrize("ending", [notified, reset, aborted], ids=lambda ending: ending.__name__)
def test_names_first_asked_for_after_the_end(
    loop_factory: LoopFactory, kind: str, ending: Ending, asked: bool
) -> None:
    """Objects are made when asked for, and are the same as if they had been made before."""

    async def script(world: TlsWorld) -> None:
        context = server_context(ask_client=True, alpn=("one",))
        await world.serve(lambda: TlsRecorder(world), context=context)
        client, transport = await world.made(
            context=client_context(certificate="client", alpn=("one",))
        )
        before = transport.get_extra_info("ssl_object") if asked else None
        await ending(world, client, transport)
        await world.until("connection_lost")
        await world.settle()
        tls = transport.get_extra_info("ssl_object")
        world.note("same", before in (None, tls), tls is transport.get_extra_info("ssl_object"))
        world.note("context", tls.context is context, tls.server_side, tls.server_hostname)
        world.note("version", tls.version(), tls.selected_alpn_protocol(), tls.compression())
        world.note("cipher", tls.cipher() == client.tls.cipher(), tls.pending())
        world.note("peer", tls.getpeercert()["subject"], len(tls.getpeercert(True)) > 0)
        world.note("shared", bool(tls.shared_ciphers()), tls.session is None, tls.session_reused)
        for what in ("tls-unique",):
            mine, theirs = tls.get_channel_binding(what), client.tls.get_channel_binding(what)
            world.note("binding", mine == theirs)
        for method in (tls.read, tls.write, tls.unwrap, tls.do_handshake):
            arguments = (b"x",) if method == tls.write else ()
            # A value in memory, or a socket that is gone: an error, or nothing.
            with contextlib.suppress(OSError):
                method(*arguments)
        world.note("still", tls.version())

    same_tls(script, loop_factory, kind=kind)


def test_plain_transport_after_start_tls(loop_factory: LoopFactory, kind: str) -> None:
    """The plain transport keeps telling what it knew, and knows nothing of TLS."""

    async def script(world: TlsWorld) -> None:
        context = server_context()
        await world.serve(lambda: Recorder(world), plain=True)
        raw = await world.connect()
        describe = Describe(raw.sock, context)
        await world.until("connection_made")
        old = world.transports[-1]
        note_names(world, describe, "plain", old)
        start: Any = start_tls if world.native else world.loop.start_tls
        upgrade = asyncio.ensure_future(start(old, old.get_protocol(), context, server_side=True))
        await world.settle()
        note_names(world, describe, "upgrading", old)
        client = await TlsClient(raw).handshake()
        new = await upgrade
        world.transports.append(new)
        note_names(world, describe, "old", old)
        note_names(world, describe, "new", new)
        await client.notify()
        await world.until("connection_lost")
        await world.settle()
        note_names(world, describe, "old, gone", old)
        note_names(world, describe, "new, gone", new)

    same_tls(script, loop_factory, kind=kind)
