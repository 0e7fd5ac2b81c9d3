"""SMTP sessions ended by the server: connection limit, timeouts, and drains that wait for mail."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.smtp_harness import ACCOUNTS, ENVELOPE, HELLO, MAIL, codes

from fastlisten import testing
from fastlisten.handlers.smtp import SmtpHandler

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def run(loop_factory: LoopFactory, main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 60)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read to the end, and close."""
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


@pytest.fixture
def directory(tmp_path: Path) -> str:
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    return str(tmp_path)


def test_connection_limit(loop_factory: LoopFactory, directory: str) -> None:
    async def main() -> None:
        async with testing.serve(SmtpHandler, data_directory=directory, max_connections=1) as at:
            first = await asyncio.open_connection(at.host, at.port)
            assert await first[0].readline() == b"220 test.example ESMTP\r\n"
            second = await asyncio.open_connection(at.host, at.port)
            said = await rest(*second)
            assert said == b"421 4.3.2 test.example Too many connections; try again later\r\n"
            first[1].write(HELLO + b"QUIT\r\n")
            assert codes(await rest(*first)) == [250, 221]

    run(loop_factory, main)


@pytest.mark.parametrize(
    ("timeouts", "hello"),
    [
        ({"first_byte_timeout": 0.2}, b""),
        ({"idle_timeout": 0.2}, HELLO),
    ],
)
def test_silent_client_gets_timeout_reply(
    loop_factory: LoopFactory, directory: str, timeouts: dict[str, float], hello: bytes
) -> None:
    async def main() -> None:
        async with testing.serve(SmtpHandler, data_directory=directory, **timeouts) as at:  # type: ignore[arg-type]
            reader, writer = await asyncio.open_connection(at.host, at.port)
            writer.write(hello)
            said = await rest(reader, writer)
            assert said.endswith(b"421 4.4.2 test.example Timeout; closing connection\r\n")

    run(loop_factory, main)
    assert list(Path(directory).glob("mail/*/*/*")) == []


class Gate:
    """Holds the pool's threads at fsync until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        real = os.fsync

        def held(fd: int) -> None:
            if threading.current_thread().name.startswith("delivery"):
                self.reached.set()
                assert self.opened.wait(60)
            real(fd)

        monkeypatch.setattr(os, "fsync", held)


def test_client_silent_in_transaction_gets_timeout_reply(
    loop_factory: LoopFactory, directory: str
) -> None:
    async def main() -> None:
        async with testing.serve("smtp", data_directory=directory, idle_timeout=1) as served:
            reader, writer = await asyncio.open_connection(served.host, served.port)
            writer.write(b"EHLO client.example\r\nMAIL FROM:<sender@client.example>\r\n")
            said = await rest(reader, writer)
            assert codes(said)[-2:] == [250, 421]
            assert b"4.4.2" in said

    run(loop_factory, main)


def test_drain_waits_for_message_being_delivered(
    loop_factory: LoopFactory, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    said: dict[str, bytes] = {}

    async def client(at: Any, name: str, commands: bytes) -> asyncio.Task[None]:
        reader, writer = await asyncio.open_connection(at.host, at.port)
        await reader.readline()
        writer.write(commands)
        if commands:
            await reader.readuntil(b"\r\n")

        async def listen() -> None:
            said[name] = await rest(reader, writer)

        return asyncio.create_task(listen())

    async def main() -> None:
        async with testing.serve(SmtpHandler, data_directory=directory, drain_timeout=30) as at:
            message = ENVELOPE + b"DATA\r\nx\r\n.\r\n"
            tasks = [
                await client(at, "silent", b""),
                await client(at, "idle", b"HELO c\r\n"),
                await client(at, "delivering", message),
            ]
            await asyncio.to_thread(gate.reached.wait, 20)
            asyncio.get_running_loop().call_later(0.2, gate.opened.set)
        await asyncio.gather(*tasks)

    run(loop_factory, main)
    assert said["silent"] == b"421 4.3.2 test.example Shutting down; try again later\r\n"
    assert said["idle"].endswith(b"421 4.3.2 test.example Shutting down; try again later\r\n")
    assert codes(said["delivering"])[-3:] == [354, 250, 421]
    assert len(list(Path(directory).glob("mail/*/new/*"))) == 1


def test_drain_timeout_closes_connection(loop_factory: LoopFactory, directory: str) -> None:
    async def main() -> None:
        async with testing.serve(SmtpHandler, data_directory=directory, drain_timeout=0.1) as at:
            reader, writer = await asyncio.open_connection(at.host, at.port)
            writer.write(HELLO + MAIL)
            await reader.readuntil(b"250 2.1.0 Ok\r\n")
        try:
            await reader.read()
        except ConnectionResetError:
            pass
        else:
            assert reader.at_eof()
        writer.close()

    run(loop_factory, main)
