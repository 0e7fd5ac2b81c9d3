"""What keeps what alive: protocols are freed with their TLS connection, with its engine, and with
a loop that is closed while it serves.

Rules of this file: as in test_connection_loop_closed. The garbage collector does not look into
transports, so the end of the connection must break every cycle through one; protocols are watched
through weak references, and each keeps its transport and everything else that programs keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.listener import listening
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_client import handshake_by_hand
from support.tls_contexts import HOST, client_context, server_context
from support.tls_listener import client_hello, tls_listening
from support.tls_world import KINDS, kind_of_api, no_session_left
from support.waiting import eventually

import fastlisten
from fastlisten._tls import TlsSettings
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Keeper(asyncio.Protocol):
    """Keeps everything it gets, and does what the first byte says."""

    def __init__(self, settings: TlsSettings | None = None) -> None:
        self.settings = settings
        self.kept: list[Any] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.kept.append(transport.get_extra_info("ssl_object"))
        self.kept.append(transport.get_extra_info("socket"))
        self.kept.append(transport.get_extra_info("peercert"))
        if self.settings is not None:
            if self.settings.shutdown_timeout == UNSENT:
                transport.write(bytes(2_000_000))
            future = transport.start_tls(self.settings)
            future.add_done_callback(self.started)
            self.kept.append(future)

    def started(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.transport = future.result()

    def data_received(self, data: bytes) -> None:
        if data[:1] == b"C":
            self.transport.close()
        elif data[:1] == b"A":
            self.transport.abort()
        elif data[:1] == b"W":
            self.transport.write(bytes(2_000_000))
        elif data[:1] == b"X":
            raise RuntimeError("on purpose")
        elif data[:1] == b"P":
            self.transport.pause_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        # Its traceback refers to the frames that it came through.
        self.kept.append(exc)


#: Marks the settings of protocols that write before they start TLS.
UNSENT = 17.0

#: What a client does after connecting; ``None`` for nothing.
Talk = tuple[str, bytes]
STATES: dict[str, Talk] = {
    "silent": ("raw", b""),
    "half": ("raw", client_hello()[:200]),
    "waiting": ("raw", client_hello()),
    "open": ("tls", b"x"),
    "paused": ("tls", b"P"),
    "unsent": ("tls", b"W"),
    "shutting": ("tls", b"C"),
}


def act(sock: socket.socket, talk: Talk, turn: Callable[[], None]) -> None:
    """Act as the client of a state, while `turn` lets the server work."""
    how, words = talk
    if how == "raw":
        if words:
            sock.sendall(words)
        return
    sock.setblocking(False)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            if outgoing.pending:
                sock.sendall(outgoing.read())
            turn()
            with contextlib.suppress(BlockingIOError):
                incoming.write(sock.recv(65536))
    tls.write(words)
    sock.sendall(outgoing.read())


def populate(
    loop: asyncio.AbstractEventLoop, plain: bool
) -> tuple[Any, list[weakref.ref[Keeper]], list[socket.socket], Any]:
    """Serve a client in each state; return server, weak protocols, clients, weak engine."""
    keepers: list[weakref.ref[Keeper]] = []
    context = server_context()

    def factory() -> Keeper:
        if not plain:
            keeper = Keeper()
        elif len(keepers) % 2:
            keeper = Keeper(TlsSettings(context, shutdown_timeout=UNSENT))
        else:
            keeper = Keeper(TlsSettings(context))
        keepers.append(weakref.ref(keeper))
        return keeper

    server = loop.run_until_complete(
        fastlisten.create_server(
            factory,
            "127.0.0.1",
            0,
            ssl=None if plain else context,
            options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)],
        )
    )

    def turn() -> None:
        for _ in range(6):
            loop.run_until_complete(asyncio.sleep(0))

    clients = []
    for talk in STATES.values():
        if plain and talk[0] == "tls":
            continue
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
        turn()
        act(clients[-1], talk, turn)
        turn()
    assert server.connections == len(clients) == len(keepers)
    assert all(keeper() is not None for keeper in keepers)
    return server, keepers, clients, weakref.ref(engine_for_loop(loop))


def engine_for_loop(loop: asyncio.AbstractEventLoop) -> Any:
    async def find() -> Any:
        return engine_for(asyncio.get_running_loop())

    return loop.run_until_complete(find())


def read_to_the_end(sock: socket.socket) -> None:
    """Read to the end, of whatever kind; there must be one."""
    sock.setblocking(True)
    sock.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(1 << 20):
            pass


@pytest.mark.parametrize("plain", [False, True], ids=["tls", "start_tls"])
@pytest.mark.parametrize("kind", KINDS)
def test_unclosed_server_of_a_closed_loop(
    loop_factory: LoopFactory, kind: str, plain: bool
) -> None:
    """A ResourceWarning, as for an unclosed transport; then the clients see the end."""
    with no_session_left(), kind_of_api(kind), contextlib.ExitStack() as stack:
        loop = loop_factory()
        server, keepers, clients, engine = populate(loop, plain)
        for client in clients:
            stack.enter_context(client)
        loop.close()
        for listening_socket in server._sockets or ():
            listening_socket.close()
        del server, loop
        match = f"event loop gone with {len(clients)} connections open"
        with pytest.warns(ResourceWarning, match=match):
            gc.collect()
        gc.collect()
        assert engine() is None
        assert [keeper() for keeper in keepers] == [None] * len(keepers)
        for client in clients:
            read_to_the_end(client)
        clients.clear()


@pytest.mark.parametrize("plain", [False, True], ids=["tls", "start_tls"])
@pytest.mark.parametrize("kind", KINDS)
def test_protocols_are_freed_with_the_engine(
    loop_factory: LoopFactory, kind: str, plain: bool
) -> None:
    with no_session_left(), kind_of_api(kind), contextlib.ExitStack() as stack:
        loop = loop_factory()
        server, keepers, clients, engine = populate(loop, plain)
        for client in clients:
            stack.enter_context(client)
        engine().close()
        server.close()
        # Callbacks of futures that failed.
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        gc.collect()
        assert [keeper() for keeper in keepers] == [None] * len(keepers)
        for client in clients:
            read_to_the_end(client)
        clients.clear()
        loop.close()


async def handshake_and_read(client: RawClient, words: bytes) -> None:
    """Do the handshake, send something, read to the end, answer nothing."""
    tls, _, outgoing = await handshake_by_hand(client)
    tls.write(words)
    with contextlib.suppress(ssl.SSLError):
        if words == b"N":
            tls.unwrap()
    await client.send(outgoing.read())


@pytest.mark.parametrize("plain", [False, True], ids=["tls", "start_tls"])
@pytest.mark.parametrize("kind", KINDS)
def test_protocols_are_freed_with_the_connection(
    loop_factory: LoopFactory, kind: str, plain: bool
) -> None:
    """However it ends: after connection_lost only the program keeps the protocol."""
    keepers: list[weakref.ref[Keeper]] = []
    context = server_context()
    settings = TlsSettings(context)

    def factory() -> Keeper:
        keeper = Keeper(settings if plain else None)
        keepers.append(weakref.ref(keeper))
        return keeper

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with (listening if plain else tls_listening)(factory) as listener:
            for words in (b"C", b"A", b"X", b"N", b"x", b"W"):
                client = await listener.connect()
                await handshake_and_read(client, words)
                if words in (b"C", b"x", b"W"):
                    client.sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    await client.everything()
                client.close()
            for words in (b"", b"no TLS\r\n", client_hello()[:200], client_hello()):
                for reset in (False, True):
                    client = await listener.connect(first=words)
                    if reset:
                        client.reset()
                    else:
                        client.sock.shutdown(socket.SHUT_WR)
                        with contextlib.suppress(OSError):
                            await client.everything()
                        client.close()
            await eventually(lambda: listener.acceptor.connections == 0)
            await asyncio.sleep(0.01)
            listener.protocols.clear()
            gc.collect()
            alive = [i for i, keeper in enumerate(keepers) if keeper() is not None]
            assert (len(keepers), alive) == (14, [])

    with no_session_left(), kind_of_api(kind):
        run(loop_factory, main)
