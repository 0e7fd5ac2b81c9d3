"""What a relay may say, and how much of a message it gets once it has refused it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.waiting import PATIENCE

from fastlisten.mail.relay.connection import RelayConnection
from fastlisten.mail.relay.message_source import MessageSource
from fastlisten.mail.relay.remote_replies import MalformedReplyError, is_yes


@pytest.mark.parametrize("code", [200, 250, 251, 252, 299])
def test_yes(code: int) -> None:
    assert is_yes(code)


@pytest.mark.parametrize("code", [199, 211, 214, 220, 221, 235, 300, 334, 354, 450, 550])
def test_no_yes(code: int) -> None:
    assert not is_yes(code)


def test_a_file_that_has_become_shorter(tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"x" * 10)
    source = MessageSource(str(tmp_path / "message"), 0, 20)
    assert source.read(0) == b"x" * 10
    with pytest.raises(OSError, match="too short"):
        source.read(10)


@asynccontextmanager
async def connected(said: bytes, after: int = 0) -> AsyncIterator[RelayConnection]:
    """Connect to a server that says something, after so many octets, and then reads on."""
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(after)
            writer.write(said)
            while await reader.read(65536):
                pass
        except OSError:
            pass
        finally:
            writer.transport.abort()
            ended.set()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        loop = asyncio.get_running_loop()
        address = server.sockets[0].getsockname()
        _, connection = await loop.create_connection(lambda: RelayConnection(PATIENCE), *address)
        try:
            yield connection
        finally:
            connection.abort()
            await ended.wait()


def test_a_reply_without_end_is_not_waited_for() -> None:
    async def main() -> None:
        async with connected(b"250 " + b"x" * 500_000) as connection:
            with pytest.raises(MalformedReplyError, match="too long"):
                await asyncio.wait_for(connection.reply(3600), PATIENCE)

    asyncio.run(main())


def test_a_refusal_before_the_end_of_a_message_ends_it() -> None:
    piece = b"x" * 1000
    given = 0

    async def main() -> None:
        async with connected(b"552 5.3.4 too large\r\n", len(piece)) as connection:

            async def message() -> AsyncIterator[bytes]:
                nonlocal given
                for number in range(50):
                    while number == 5 and not connection._replies:
                        await asyncio.sleep(0)
                    given += 1
                    yield piece

            reply, whole = await connection.send(message(), PATIENCE)
            assert (reply.code, whole) == (552, False)

    asyncio.run(main())
    assert given <= 6
