"""`StreamWriter.start_tls` when the reader holds so much that it has paused reading.

Rules of this file: the reader's limit is so small that a part of a ClientHello exceeds it; the rest
is in the kernel when the handshake begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from typing import Any

import pytest
from support.loop_worlds import play_on, serving, upgrade
from support.loops import LoopFactory
from support.raw_client import RawClient
from support.tls_client import TlsClient
from support.world import World

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Of the reader, in bytes; it pauses reading at twice as many.
LIMIT = 64

#: Bytes sent over TLS. Since Python 3.15 the reader pauses the TLS transport, and that one pauses
#: the connection when it holds 256 KiB; the rest fits into the kernel's buffers.
SIZE = 400_000


def test_reader_resumes_and_still_pauses_at_its_limit(our_loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        plain: list[Any] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            plain.append(writer.transport)
            world.note("command", await reader.readline())
            await world.until("go")
            await upgrade(writer)
            world.note("reading", plain[0].is_reading())
            await world.until("read")
            received = await reader.readexactly(SIZE)
            world.note("received", received == b"x" * SIZE, plain[0].is_reading())
            writer.close()

        async with serving(handler, limit=LIMIT) as address:
            client = await RawClient.connect(address)
            tls = TlsClient(client)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.tls.do_handshake()
            hello = tls.flight()
            await client.send(b"STARTTLS\r\n" + hello[: 3 * LIMIT])
            await world.until("command")
            await world.until(lambda: not plain[0].is_reading())
            await client.send(hello[3 * LIMIT :])
            await world.settle()
            world.note("go")
            assert await client.receive(14) == b"220 go ahead\r\n"
            await tls.handshake()
            await world.until("reading")
            await tls.send(b"x" * SIZE)
            await world.until(lambda: not plain[0].is_reading())
            world.note("read")
            await world.until("received")
            client.close()
            await world.settle()
        gc.collect()

    log = play_on(script, our_loop_factory)
    assert [note for note in log if note[0] in ("command", "reading", "received")] == [
        ("command", b"STARTTLS\r\n"),
        ("reading", True),
        ("received", True, True),
    ]
