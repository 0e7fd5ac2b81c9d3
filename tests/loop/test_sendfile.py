"""loop.sendfile on the core's transports, on both loops, plain and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context, server_context

SIZE = 3_000_000
CONTENT = random.Random(1).randbytes(SIZE)


@pytest.fixture
def runner(our_loop_factory: LoopFactory) -> Callable[[Awaitable[None]], None]:
    def run(main: Any) -> None:
        with asyncio.Runner(loop_factory=our_loop_factory) as runner:
            runner.run(main)

    return run


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a file larger than a socket's buffers."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    return path


class Server(asyncio.Protocol):
    """Keeps its transport and what happens to it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.ready = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.ready.set_result(transport)

    def data_received(self, data: bytes) -> None:
        self.events.append(data)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


@contextlib.asynccontextmanager
async def connected(
    tls: bool,
) -> AsyncIterator[tuple[Server, Any, asyncio.StreamReader, asyncio.StreamWriter]]:
    loop = asyncio.get_running_loop()
    made: list[Server] = []

    def factory() -> Server:
        made.append(Server())
        return made[-1]

    server = await loop.create_server(
        factory, "127.0.0.1", 0, ssl=server_context() if tls else None
    )
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        port,
        ssl=client_context() if tls else None,
        server_hostname=HOST if tls else None,
    )
    try:
        yield made[0], await made[0].ready, reader, writer
    finally:
        writer.transport.abort()
        await made[0].ended
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(("offset", "count"), [(0, None), (1000, None), (7, 2_000_001), (5, 10)])
def test_sendfile(
    runner: Callable[[Any], None], tls: bool, path: Path, offset: int, count: int | None
) -> None:
    wanted = CONTENT[offset:] if count is None else CONTENT[offset : offset + count]

    async def main() -> None:
        async with connected(tls) as (server, transport, reader, writer):
            with path.open("rb") as file:
                sending = asyncio.ensure_future(
                    asyncio.get_running_loop().sendfile(transport, file, offset, count)
                )
                got = await reader.readexactly(len(wanted))
                assert hashlib.sha256(got).digest() == hashlib.sha256(wanted).digest()
                assert await sending == len(wanted)
                assert file.tell() == offset + len(wanted)
            # The protocol has its connection back.
            assert transport.get_protocol() is server
            writer.write(b"after")
            transport.write(b"end")
            assert await reader.readexactly(3) == b"end"
            while b"after" not in server.events:
                await asyncio.sleep(0.001)
            assert server.events == [b"after"]

    runner(main())


def test_connection_ends_during_sendfile(
    runner: Callable[[Any], None], tls: bool, large: Path
) -> None:
    async def main() -> None:
        async with connected(tls) as (server, transport, _, writer):
            with large.open("rb") as file:
                sending = asyncio.ensure_future(
                    asyncio.get_running_loop().sendfile(transport, file)
                )
                await asyncio.sleep(0.05)
                writer.transport.abort()
                transport.abort()
                with pytest.raises(ConnectionError):
                    await sending
            await server.ended

    runner(main())


def test_slow_reader_holds_sendfile_back(
    runner: Callable[[Any], None], tls: bool, large: Path
) -> None:
    async def main() -> None:
        async with connected(tls) as (_, transport, _, _):
            with large.open("rb") as file:
                sending = asyncio.ensure_future(
                    asyncio.get_running_loop().sendfile(transport, file)
                )
                await asyncio.sleep(0.3)
                assert not sending.done()
                # The limit and one block more; the rest is still in the file.
                low, high = transport.get_write_buffer_limits()
                assert low < transport.get_write_buffer_size() <= high + 131072
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
            transport.abort()

    runner(main())


def test_sendfile_errors(runner: Callable[[Any], None], tls: bool, path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with connected(tls) as (_, transport, _, _):
            with path.open("rb") as file:
                with pytest.raises(RuntimeError, match="fallback is disabled"):
                    await loop.sendfile(transport, file, fallback=False)
                transport.close()
                with pytest.raises(RuntimeError, match="Transport is closing"):
                    await loop.sendfile(transport, file)

    runner(main())
