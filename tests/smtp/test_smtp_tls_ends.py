"""SMTP sessions over TLS ended by the server: no plaintext after the go-ahead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import pytest
from support.smtp_harness import ACCOUNTS, ENVELOPE, HELLO, codes

from fastlisten import testing
from fastlisten.handlers.smtp import SmtpHandler

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Kind = Literal["implicit", "starttls"]

KINDS = pytest.mark.parametrize("kind", ["implicit", "starttls"])
GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"
TIMEOUT = b"421 4.4.2 test.example Timeout; closing connection\r\n"
SHUTDOWN = b"421 4.3.2 test.example Shutting down; try again later\r\n"

#: First octet of a TLS alert.
ALERT = b"\x15"


def run(loop_factory: LoopFactory, main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 60)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


@pytest.fixture
def directory(tmp_path: Path) -> str:
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    return str(tmp_path)


async def go_ahead(at: testing.Served) -> Streams:
    """Connect and send STARTTLS."""
    reader, writer = await asyncio.open_connection(at.host, at.port)
    writer.write(HELLO + b"STARTTLS\r\n")
    await reader.readuntil(GO_AHEAD)
    return reader, writer


async def handshake(at: testing.Served, streams: Streams) -> Streams:
    """Perform the client's side of the handshake."""
    assert at.client_context is not None
    await streams[1].start_tls(at.client_context, server_hostname=at.host)
    return streams


async def connect(at: testing.Served, kind: Kind) -> Streams:
    """Connect with implicit TLS and read the greeting, or with STARTTLS."""
    if kind == "starttls":
        return await handshake(at, await go_ahead(at))
    reader, writer = await asyncio.open_connection(at.host, at.port, ssl=at.client_context)
    assert await reader.readline() == b"220 test.example ESMTP\r\n"
    return reader, writer


async def rest(streams: Streams) -> bytes:
    """Read to the end, and close."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := await streams[0].read(65536):
            said += data
    streams[1].close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await streams[1].wait_closed()
    return said


def test_refusal_with_implicit_tls_is_an_alert(loop_factory: LoopFactory, directory: str) -> None:
    async def main() -> None:
        async with testing.serve(
            SmtpHandler, tls="implicit", data_directory=directory, max_connections=1
        ) as at:
            first = await connect(at, "implicit")
            second = await asyncio.open_connection(at.host, at.port)
            said = await rest(second)
            assert said.startswith(ALERT)
            assert b"421" not in said
            first[1].write(HELLO + b"QUIT\r\n")
            assert codes(await rest(first)) == [250, 221]

    run(loop_factory, main)


def test_refusal_with_starttls_is_a_plaintext_reply(
    loop_factory: LoopFactory, directory: str
) -> None:
    async def main() -> None:
        async with testing.serve(
            SmtpHandler, tls="starttls", data_directory=directory, max_connections=1
        ) as at:
            first = await connect(at, "starttls")
            second = await asyncio.open_connection(at.host, at.port)
            assert codes(await rest(second)) == [421]
            first[1].write(b"QUIT\r\n")
            assert codes(await rest(first)) == [221]

    run(loop_factory, main)


@pytest.mark.parametrize("hello", [b"", HELLO])
@KINDS
def test_silent_client_gets_timeout_reply_over_tls(
    loop_factory: LoopFactory, directory: str, kind: Kind, hello: bytes
) -> None:
    async def main() -> None:
        async with testing.serve(
            SmtpHandler,
            tls=kind,
            data_directory=directory,
            first_byte_timeout=0.2,
            idle_timeout=0.2,
        ) as at:
            streams = await connect(at, kind)
            streams[1].write(hello)
            assert (await rest(streams)).endswith(TIMEOUT)

    run(loop_factory, main)


def test_idle_timeout_does_not_apply_to_the_handshake(
    loop_factory: LoopFactory, directory: str
) -> None:
    async def main() -> None:
        async with testing.serve(
            SmtpHandler, tls="starttls", data_directory=directory, idle_timeout=0.2
        ) as at:
            streams = await go_ahead(at)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(streams[0].read(1), 0.7)
            await handshake(at, streams)
            streams[1].write(HELLO + b"QUIT\r\n")
            assert codes(await rest(streams)) == [250, 221]

    run(loop_factory, main)


@pytest.mark.parametrize(
    ("kind", "begun"),
    [("implicit", b""), ("implicit", HELLO), ("starttls", b"NOOP\r\n"), ("starttls", HELLO)],
)
def test_drain_sends_421_over_tls(
    loop_factory: LoopFactory, directory: str, kind: Kind, begun: bytes
) -> None:
    async def main() -> None:
        async with testing.serve(
            SmtpHandler, tls=kind, data_directory=directory, drain_timeout=30
        ) as at:
            streams = await connect(at, kind)
            streams[1].write(begun)
            if begun:
                await streams[0].readuntil(b"250 ")
                await streams[0].readline()
            listening = asyncio.create_task(rest(streams))
        assert await listening == SHUTDOWN

    run(loop_factory, main)


def test_drain_closes_a_handshake_silently(loop_factory: LoopFactory, directory: str) -> None:
    async def main() -> None:
        async with testing.serve(
            SmtpHandler, tls="starttls", data_directory=directory, drain_timeout=0.1
        ) as at:
            streams = await go_ahead(at)
        assert (await rest(streams))[:1] in (b"", ALERT)

    run(loop_factory, main)


@KINDS
def test_drain_waits_for_message_being_delivered(
    loop_factory: LoopFactory, directory: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, opened = threading.Event(), threading.Event()
    fsync = os.fsync

    def held(fd: int) -> None:
        if threading.current_thread().name.startswith("delivery"):
            reached.set()
            assert opened.wait(60)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", held)

    async def main() -> None:
        async with testing.serve(
            SmtpHandler, tls=kind, data_directory=directory, drain_timeout=30
        ) as at:
            streams = await connect(at, kind)
            streams[1].write(ENVELOPE + b"DATA\r\nx\r\n.\r\n")
            await asyncio.to_thread(reached.wait, 20)
            listening = asyncio.create_task(rest(streams))
            asyncio.get_running_loop().call_later(0.2, opened.set)
        said = await listening
        assert codes(said) == [250, 250, 250, 354, 250, 421]

    run(loop_factory, main)
    assert len(list(Path(directory).glob("mail/*/new/*"))) == 1
