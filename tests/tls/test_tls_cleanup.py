"""TLS leaves nothing behind: neither after rejected settings nor if it ends while it begins.

Rules of this file: as with asyncio, no callback reports such an end, but everything is released;
the fixture checks that no descriptor is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.listener import Echo, bound_socket
from support.loops import OUR_LOOPS, LoopFactory, run
from support.tls_contexts import server_context
from support.tls_listener import client_hello, talk
from support.tls_world import KINDS, WAYS, kind_of_api, no_session_left
from support.waiting import PATIENCE

import fastlisten
from fastlisten._tls import TlsAcceptor, TlsSettings
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


# --- rejected settings ----------------------------------------------------------------------------


def test_rejected_settings_leave_nothing_behind(loop_factory: LoopFactory) -> None:
    """After a negative timeout or an overlong greeting the engine does not know the socket."""

    async def main() -> None:
        engine = engine_for(asyncio.get_running_loop())
        before = {name: count for name, count in engine.census().items() if name != "system"}
        settings = TlsSettings(server_context())
        with bound_socket() as sock:
            with pytest.raises(ValueError, match="negative"):
                TlsAcceptor(engine, sock, asyncio.Protocol, tls=settings, first_byte=-1.0)
            with pytest.raises(ValueError, match="65,535"):
                TlsAcceptor(engine, sock, asyncio.Protocol, tls=settings, greeting=bytes(65_536))
            after = {name: count for name, count in engine.census().items() if name != "system"}
            assert after == before
            assert engine.idle
            acceptor = TlsAcceptor(engine, sock, asyncio.Protocol, tls=settings)
            acceptor.close()
        with pytest.raises(ValueError, match="negative"):
            await fastlisten.create_server(
                asyncio.Protocol, "127.0.0.1", 0, ssl=server_context(), first_byte_timeout=-1
            )
        # This one most likely gets the same descriptor.
        server = await fastlisten.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        await talk(server.sockets[0].getsockname())
        server.close()
        await server.wait_closed()
        engine.close()

    run(loop_factory, main)


# --- an end while TLS begins ----------------------------------------------------------------------


class Starter(asyncio.Protocol):
    """Begins TLS at once and keeps the future, which a task may wait for."""

    def __init__(self, settings: TlsSettings, awaited: bool, reported: list[Any]) -> None:
        self.settings, self.awaited, self.reported = settings, awaited, reported

    def connection_made(self, transport: Any) -> None:
        self.future = transport.start_tls(self.settings)
        if self.awaited:
            self.future.add_done_callback(self.reported.append)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.reported.append(exc)


@contextlib.contextmanager
def connections_in_start_tls(
    loop: asyncio.AbstractEventLoop, awaited: bool, reported: list[Any]
) -> Iterator[tuple[Any, list[socket.socket]]]:
    """Open five connections, whose clients have sent nothing or half a ClientHello.

    Yields the server and the clients; nothing else refers to the protocols.
    """
    loop.set_exception_handler(lambda _, context: reported.append(context))
    settings = TlsSettings(server_context())
    clients: list[socket.socket] = []

    async def main() -> Any:
        server = await fastlisten.create_server(
            lambda: Starter(settings, awaited, reported), "127.0.0.1", 0
        )
        for i in range(5):
            clients.append(socket.create_connection(server.sockets[0].getsockname()))
            clients[-1].settimeout(PATIENCE)
            if i % 2:
                clients[-1].sendall(client_hello()[:200])
        while server.connections < 5 or settings.in_progress < 2:
            await asyncio.sleep(0)
        return server

    try:
        yield loop.run_until_complete(main()), clients
    finally:
        for one in clients:
            one.close()


def assert_all_ended(clients: list[socket.socket]) -> None:
    """Read each to the end; it is a reset if the server has not read everything."""
    for one in clients:
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""


#: Every loop on which the core serves; ours close the engine, the others forget it.
ALL_LOOPS: dict[str, LoopFactory] = {
    "asyncio": WAYS[0][0],
    "uvloop": WAYS[1][0],
    "ours": OUR_LOOPS["asyncio"],
    "ours on uvloop": OUR_LOOPS["uvloop"],
}


@pytest.mark.parametrize("name", ALL_LOOPS)
@pytest.mark.parametrize("awaited", [False, True], ids=["alone", "awaited"])
@pytest.mark.parametrize("kind", KINDS)
def test_loop_closed_during_start_tls(
    kind: str, awaited: bool, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No callback is called, as with asyncio; the clients see the end."""
    reported: list[Any] = []
    loop = ALL_LOOPS[name]()
    caplog.set_level(logging.DEBUG)
    with (
        no_session_left(),
        kind_of_api(kind),
        connections_in_start_tls(loop, awaited, reported) as (server, clients),
    ):
        caplog.clear()
        loop.close()
        for sock in server._sockets or ():
            sock.close()
        del server, loop
        forgotten = (
            contextlib.nullcontext()
            if name.startswith("ours")
            else pytest.warns(ResourceWarning, match="event loop gone with 5 connections open")
        )
        with forgotten:
            gc.collect()
        assert_all_ended(clients)
        gc.collect()
    assert reported == []
    # In debug mode asyncio's loop logs that it closes.
    assert [text for text in caplog.messages if not text.startswith("Close <")] == []


@pytest.mark.parametrize("awaited", [False, True], ids=["alone", "awaited"])
@pytest.mark.parametrize("kind", KINDS)
def test_engine_closed_during_start_tls(
    loop_factory: LoopFactory, kind: str, awaited: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reported: list[Any] = []
    loop = loop_factory()
    caplog.set_level(logging.DEBUG)
    with (
        no_session_left(),
        kind_of_api(kind),
        connections_in_start_tls(loop, awaited, reported) as (server, clients),
    ):
        caplog.clear()
        server._acceptors[0].engine.close()
        assert_all_ended(clients)
        gc.collect()
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        server.close()
        loop.close()
        del server
        gc.collect()
    assert reported == []
    # In debug mode asyncio's loop logs that it closes.
    assert [text for text in caplog.messages if not text.startswith("Close <")] == []
