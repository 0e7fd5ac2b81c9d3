"""Random operations on many TLS connections, from fixed seeds, checked against invariants.

Rules of this file: as in test_connection_fuzz, whose streams it uses. The client's side is OpenSSL
between buffers, whose bytes go into the socket in pieces of any size. The invariants:

- connection_made comes first and once, connection_lost last and once, eof_received between them;
- no input while paused or after close(), and no byte is lost, duplicated or made up;
- pause_writing and resume_writing alternate, beginning with pause_writing;
- a side that gets close_notify has received everything written before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from typing import Any

import pytest
from support.endless_stream import stream
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context, server_context
from support.tls_world import WAY_NAMES, WAYS, kind_of_api, no_session_left

import fastlisten
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Connections at a time and operations per run: about a second.
CROWD = 40
OPERATIONS = 2500
#: A client stops sending when this much is unsent.
BACKLOG = 300_000


class Peer:
    """Both ends of one connection.

    Attributes:
        sent, received: plain bytes that the client encrypted and got.
        written, heard: plain bytes that the server wrote and got.
        shaken: the client's handshake is done.
        notified: the client has encrypted its close_notify.
        dirty: the client broke off or corrupted what it sent.
        unsent: encrypted bytes on their way into the socket.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.sent = self.received = self.written = self.heard = 0
        self.shaken = self.notified = self.dirty = False
        self.unsent = bytearray()
        self.server: Served | None = None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def handshake(self) -> None:
        """Go on with the handshake."""
        if not self.shaken:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                self.shaken = True
        self.unsent += self.outgoing.read()


class Served(asyncio.Protocol):
    """Checks that each callback may come at this moment."""

    def __init__(self, fuzz: Fuzz) -> None:
        self.fuzz = fuzz
        self.state = "new"
        self.paused = self.write_paused = self.closed = self.aborted = self.ended = False
        self.transport: Any = None
        self.peer: Any = None

    def connection_made(self, transport: Any) -> None:
        assert self.state == "new"
        self.state = "made"
        self.transport = transport
        self.fuzz.made += 1
        self.peer = self.fuzz.peers[transport.get_extra_info("peername")[1]]
        assert self.peer.server is None
        self.peer.server = self
        transport.set_write_buffer_limits(high=self.fuzz.random.choice((1000, 65536, 600_000)))

    def data_received(self, data: bytes) -> None:
        assert self.state == "made"
        assert not (self.paused)
        assert not (self.closed)
        assert not self.ended
        assert data == stream(self.peer.heard, len(data))
        self.peer.heard += len(data)
        assert self.peer.heard <= self.peer.sent
        self.fuzz.meddle(self)

    def eof_received(self) -> None:
        assert self.state == "made"
        assert not self.ended
        self.ended = True
        if self.closed:
            return
        assert not self.paused
        if self.transport.get_extra_info("truncated"):
            assert not self.peer.notified or self.peer.dirty or self.peer.unsent
        else:
            assert self.peer.notified
            assert self.peer.heard == self.peer.sent
        self.closed = True

    def pause_writing(self) -> None:
        assert self.state == "made"
        assert not self.write_paused
        self.write_paused = True

    def resume_writing(self) -> None:
        assert self.state == "made"
        assert self.write_paused
        self.write_paused = False
        self.fuzz.meddle(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        assert self.state == "made"
        self.state = "lost"
        self.fuzz.lost += 1
        if isinstance(exc, ssl.SSLError):
            # Corrupted, or there was input after we said that we read no more.
            assert self.peer.dirty or self.closed, exc
        else:
            assert exc is None or isinstance(exc, (ConnectionResetError, BrokenPipeError)), exc

    # -- called by the fuzzer

    def operate(self, choice: float) -> None:
        """Do one operation, whatever the state."""
        if choice < 0.55:
            if self.state == "made" and not self.closed:
                size = self.fuzz.random.choice((1, 20, 500, 5_000, 17_000, 60_000, 200_000))
                data = stream(self.peer.written, size)
                self.peer.written += len(data)
                third = size // 3
                if size % 2:
                    self.transport.write(bytearray(data))
                else:
                    self.transport.writelines([data[:third], memoryview(data)[third:]])
        elif choice < 0.7:
            self.transport.pause_reading()
            self.paused = True
        elif choice < 0.95:
            if not self.closed:
                self.paused = False
            self.transport.resume_reading()
        elif choice < 0.98:
            self.closed = True
            self.transport.close()
        else:
            self.closed = self.aborted = True
            self.transport.abort()


class Fuzz:
    """One run: the generator, the peers by the client's port, the clients."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.contexts = [
            client_context(version=version)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        ]
        self.peers: dict[int, Peer] = {}
        self.clients: dict[socket.socket, Peer] = {}
        self.orphans: list[Peer] = []
        self.made = self.lost = self.whole = 0
        self.problems: list[dict[str, Any]] = []
        self.address: Any = None

    def meddle(self, served: Served) -> None:
        """Now and then, do something to some connection from inside a callback."""
        if self.random.random() < 0.3:
            others = [peer.server for peer in self.clients.values() if peer.server is not None]
            target = self.random.choice(others) if others and self.random.random() < 0.3 else served
            target.operate(self.random.random())

    def connect(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.random.choice((4096, 65536)))
        sock.connect(self.address)
        sock.setblocking(False)
        peer = Peer(self.random.choice(self.contexts))
        self.clients[sock] = self.peers[sock.getsockname()[1]] = peer
        peer.handshake()

    def forget(self, sock: socket.socket) -> None:
        """Forget a client, and abort the server's side at some time: it may wait for ever."""
        self.orphans.append(self.clients.pop(sock))
        sock.close()
        while len(self.orphans) > 15:
            served = self.orphans.pop(0).server
            if served is not None:
                served.operate(1.0)

    def push(self, sock: socket.socket) -> None:
        """Send some of the encrypted data."""
        peer = self.clients[sock]
        size = self.random.choice((1, 7, 300, 5_000, 1 << 20))
        try:
            del peer.unsent[: sock.send(peer.unsent[:size])]
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            peer.dirty = True

    def pull(self, sock: socket.socket) -> None:
        """Receive something and check it."""
        peer = self.clients[sock]
        try:
            data = sock.recv(self.random.choice((1, 100, 5_000, 1 << 18)))
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.forget(sock)
            return
        if data:
            peer.incoming.write(data)
        else:
            peer.incoming.write_eof()
        try:
            peer.handshake()
            while peer.shaken:
                more = peer.tls.read(1 << 18)
                if not more:
                    break
                assert more == stream(peer.received, len(more))
                peer.received += len(more)
                assert peer.received <= peer.written
        except ssl.SSLWantReadError:
            if data:
                return
        except ssl.SSLZeroReturnError:
            pass
        except OSError:  # an SSLError, but for an end it may be another since Python 3.14
            # Cut off by an abort, or an alert about what we corrupted.
            served = peer.server
            assert served is None or served.aborted or served.closed or peer.dirty
            self.forget(sock)
            return
        if peer.shaken and not peer.dirty and data:
            # close_notify.
            assert peer.received == peer.written
            self.whole += 1
            if not peer.notified:
                peer.notified = True
                with contextlib.suppress(OSError):
                    peer.tls.unwrap()
            with contextlib.suppress(OSError):
                sock.send(peer.unsent + peer.outgoing.read())
        self.forget(sock)

    def client_side(self, sock: socket.socket) -> None:
        """Do one client-side operation."""
        peer = self.clients[sock]
        choice = self.random.random()
        if choice < 0.35:
            self.push(sock)
        elif choice < 0.75:
            self.pull(sock)
        elif choice < 0.93:
            if peer.shaken and not peer.notified and len(peer.unsent) < BACKLOG:
                data = stream(peer.sent, self.random.choice((1, 30, 700, 20_000, 100_000)))
                view = memoryview(data)
                while view:
                    view = view[peer.tls.write(view) :]
                peer.sent += len(data)
                peer.unsent += peer.outgoing.read()
        elif choice < 0.95:
            if peer.shaken and not peer.notified:
                peer.notified = True
                with contextlib.suppress(OSError):
                    peer.tls.unwrap()
                peer.unsent += peer.outgoing.read()
        else:
            peer.dirty = True
            if choice < 0.96:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
            elif choice < 0.97:
                if peer.unsent:
                    peer.unsent[self.random.randrange(len(peer.unsent))] ^= 0xFF
            else:
                if choice < 0.98:
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.forget(sock)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self.problems.append(context))
        server = await fastlisten.create_server(
            lambda: Served(self),
            "127.0.0.1",
            0,
            ssl=server_context(),
            options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)],
            max_connections=CROWD + 20,
            limit_action="wait",
        )
        engine = engine_for(loop)
        self.address = server.sockets[0].getsockname()
        for step in range(OPERATIONS):
            while len(self.clients) < CROWD:
                self.connect()
            sock = self.random.choice(list(self.clients))
            served = self.clients[sock].server
            if served is not None and self.random.random() < 0.25:
                served.operate(self.random.random())
            else:
                self.client_side(sock)
            if step % 8 == 0:
                await asyncio.sleep(0)
            assert not self.problems, self.problems[0]
        server.close()
        for served in [peer.server for peer in self.peers.values() if peer.server is not None]:
            if served.state == "made" and not served.closed:
                served.closed = True
        server.close_clients()
        for peer in self.orphans:
            if peer.server is not None:
                peer.server.operate(1.0)
        end = loop.time() + 30
        while self.clients or server.connections:
            assert loop.time() < end, (len(self.clients), engine.census())
            await asyncio.sleep(0)
            for sock in tuple(self.clients):
                self.push(sock)
                self.pull(sock)
        await asyncio.wait_for(server.wait_closed(), 10)
        assert not self.problems, self.problems[0]
        assert self.made == self.lost
        assert self.made > (OPERATIONS // 200)
        assert self.whole > 0
        assert engine.closed
        assert engine.open == 0


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize(
    "seeds",
    [
        range(2),
        pytest.param(range(2, 60), marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
    ids=["few", "many"],
)
def test_random_operations(way: tuple[LoopFactory, str], seeds: range) -> None:
    loop_factory, kind = way
    for seed in seeds:
        with (
            no_session_left(),
            kind_of_api(kind),
            asyncio.Runner(loop_factory=loop_factory) as runner,
        ):
            runner.run(Fuzz(seed).run())
