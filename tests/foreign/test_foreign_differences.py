"""The differences from asyncio that docs/asyncio.md lists, one by one.

Rules of this file: if a test fails because a difference no longer exists, remove it from the page.
Behaviour that equals asyncio's is compared elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.foreign import LOOPS, OURS
from support.foreign_clients import Certificate, make_certificate

pytestmark = pytest.mark.usefixtures("descriptors_back")

WAYS = ("tcp", "tls")


class Keeping(asyncio.Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = b""
        self.slow = 0.0
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        time.sleep(self.slow)
        self.received += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


@pytest.fixture(params=[(name, way) for name in OURS for way in WAYS], ids="-".join)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Certificate | None]:
    """Return the loop's name, and a certificate for TLS or None."""
    name, way = request.param
    return name, make_certificate(tmp_path) if way == "tls" else None


def connected(
    place: tuple[str, Certificate | None],
    use: Callable[[Any, Keeping, Any, Any], Awaitable[None]],
    debug: bool = False,
) -> None:
    """Call a function with the server, a served protocol, and the client's streams."""
    name, certificate = place

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Keeping] = []

        def factory() -> Keeping:
            made.append(Keeping())
            return made[-1]

        context = certificate.server_context() if certificate else None
        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(),
            ssl=certificate.client_context() if certificate else None,
            server_hostname="localhost" if certificate else None,
        )
        while not made or made[0].transport is None:
            await asyncio.sleep(0.001)
        await use(server, made[0], reader, writer)
        writer.close()
        await writer.wait_closed()
        await made[0].lost
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=LOOPS[name], debug=debug) as runner:
        runner.run(main())


def test_attributes_of_transports_and_servers(place: tuple[str, Certificate | None]) -> None:
    async def use(server: Any, protocol: Keeping, *client: Any) -> None:
        transport = protocol.transport
        assert not isinstance(transport, asyncio.BaseTransport)
        public = {name for name in dir(asyncio.Transport) if not name.startswith("_")}
        assert all(hasattr(transport, name) for name in public)
        with pytest.raises(TypeError):
            weakref.ref(transport)
        with pytest.raises(AttributeError):
            transport.name = "mine"
        assert transport in {transport}
        assert weakref.ref(protocol)() is protocol
        for name in ("_sock", "_loop", "_buffer", "_extra", "_protocol"):
            assert not hasattr(transport, name)
        for name in ("_force_close", "_fatal_error", "_start_tls_compatible"):
            assert hasattr(transport, name)
        assert isinstance(server, asyncio.AbstractServer)
        assert not isinstance(server, asyncio.Server)
        assert not hasattr(server, "_attach")
        assert weakref.ref(server)() is server
        server.name = "mine"  # type: ignore[attr-defined]

    connected(place, use)


def test_extra_info_after_connection_lost(place: tuple[str, Certificate | None]) -> None:
    kept: list[Keeping] = []

    async def use(server: Any, protocol: Keeping, *client: Any) -> None:
        kept.append(protocol)

    connected(place, use)
    (protocol,) = kept
    encrypted = place[1] is not None
    for name in ("peername", "sockname"):
        # As in asyncio, the socket's information is gone under TLS, and only there.
        found = protocol.transport.get_extra_info(name)
        assert found is None if encrypted else found[0] == "127.0.0.1"
    assert bool(protocol.transport.get_extra_info("cipher")) == encrypted


def test_add_writer_on_a_transports_descriptor(place: tuple[str, Certificate | None]) -> None:
    async def use(server: Any, protocol: Keeping, *client: Any) -> None:
        loop = asyncio.get_running_loop()
        number = protocol.transport.get_extra_info("socket").fileno()
        called = loop.create_future()
        loop.add_writer(number, called.set_result, None)
        await called
        loop.remove_writer(number)

    connected(place, use)


def test_debug_mode_names_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    """On asyncio's loop only; uvloop does not measure poll callbacks."""

    async def use(server: Any, protocol: Keeping, reader: Any, writer: Any) -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.01
        protocol.slow = 0.02
        writer.write(b"x")
        while not protocol.received:
            await asyncio.sleep(0.001)

    with caplog.at_level(logging.WARNING, "asyncio"):
        connected(("fastlisten-asyncio", None), use, debug=True)
    (message,) = (text for text in caplog.messages if "Engine._wake()" in text)
    assert message.startswith("Executing <Handle Engine._wake()")


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_sendfile_reads_and_writes(
    size: int, place: tuple[str, Certificate | None], tmp_path: Path
) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)

    async def use(server: Any, protocol: Keeping, reader: Any, writer: Any) -> None:
        loop = asyncio.get_running_loop()
        with (tmp_path / "file").open("rb") as file:
            sending = asyncio.create_task(loop.sendfile(protocol.transport, file))
            assert await reader.readexactly(size) == content
            assert await sending == size
            assert file.tell() == size
            with pytest.raises(RuntimeError, match="fallback is disabled"):
                await loop.sendfile(protocol.transport, file, fallback=False)
        await loop.shutdown_default_executor()

    connected(place, use)


@pytest.mark.parametrize("name", OURS)
def test_call_soon_in_the_factory_comes_after_connection_made(name: str) -> None:
    async def main() -> list[str]:
        notes: list[str] = []
        loop = asyncio.get_running_loop()

        class Noting(asyncio.Protocol):
            def __init__(self) -> None:
                loop.call_soon(notes.append, "call_soon")

            def connection_made(self, transport: Any) -> None:
                notes.append("connection_made")
                transport.close()

        server = await loop.create_server(Noting, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        return notes

    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        assert runner.run(main()) == ["connection_made", "call_soon"]
