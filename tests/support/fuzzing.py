"""One run of a fuzzer of connections, plain or over TLS: both ends, checked against invariants.

Rules of this file: only what the fuzzers of plain and of TLS connections have in common; what they
do at each end is theirs. Both ends send the numbered bytes of `endless_stream`, so that each byte
can be checked where it arrives. One generator per run draws everything that is random.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import Any

import fastlisten
from fastlisten.loop.engines import engine_for
from support.endless_stream import stream

__all__ = ["CheckedProtocol", "Fuzz", "Peer", "reset"]

#: Clients that have gone, beyond which the server's side of the oldest is aborted.
MAX_ORPHANS = 15


def reset(sock: socket.socket) -> None:
    """Let the close of a socket be a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Peer:
    """What both ends of one connection have sent and received.

    Attributes:
        sent, received: bytes that the client sent and got.
        written, heard: bytes that the server wrote and got.
        dirty: the client reset or broke the connection.
        server: the server's protocol, once it is made.
    """

    def __init__(self) -> None:
        self.sent = self.received = self.written = self.heard = 0
        self.dirty = False
        self.server: Any = None


class CheckedProtocol(asyncio.Protocol):
    """Checks that each callback may come at this moment, and that input is what was sent.

    Attributes:
        state: ``"new"``, ``"made"`` or ``"lost"``.
        closed: nothing more may be received.
        ended: eof_received was called.
    """

    def __init__(self, fuzz: Any) -> None:
        self.fuzz = fuzz
        self.state = "new"
        self.paused = self.write_paused = self.closed = self.ended = False
        self.peer: Any = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        assert self.state == "new"
        self.state = "made"
        self.transport = transport
        self.fuzz.made += 1
        self.peer = self.fuzz.peers[transport.get_extra_info("peername")[1]]
        assert self.peer.server is None
        self.peer.server = self
        high = self.fuzz.random.choice(self.fuzz.high_water_marks)
        transport.set_write_buffer_limits(high=high)

    def check_input(self) -> None:
        assert self.state == "made"
        assert not self.paused
        assert not self.closed
        assert not self.ended

    def data_received(self, data: bytes) -> None:
        self.check_input()
        assert data == stream(self.peer.heard, len(data))
        self.peer.heard += len(data)
        assert self.peer.heard <= self.peer.sent
        self.fuzz.meddle(self)

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
        self.check_error(exc)

    def check_error(self, exc: BaseException | None) -> None:
        """Fail if the connection may not end with this error."""
        assert exc is None or isinstance(exc, (ConnectionResetError, BrokenPipeError)), exc

    def abort(self) -> None:
        self.closed = True
        self.transport.abort()


class Fuzz:
    """One run: the generator, the peers by the client's port, the clients.

    Attributes:
        crowd: connections at a time.
        operations: of a run.
        server_share: the share of operations that are the server's.
        receive_buffers: to choose from, for clients.
        high_water_marks: to choose from, for transports.
        fewest: connections that a run must make at least; how many it makes depends on timing.
        whole: connections whose client got everything up to an orderly end.
    """

    crowd: int
    operations: int
    server_share: float
    receive_buffers: tuple[int, int]
    high_water_marks: tuple[int, ...]
    fewest: int

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.peers: dict[int, Any] = {}
        self.clients: dict[socket.socket, Any] = {}
        self.orphans: list[Any] = []
        self.made = self.lost = self.whole = 0
        self.problems: list[dict[str, Any]] = []
        self.address: Any = None

    # -- what a fuzzer defines

    def make_peer(self) -> Peer:
        raise NotImplementedError

    def make_protocol(self) -> CheckedProtocol:
        raise NotImplementedError

    def server_side(self, served: Any) -> None:
        """Do one server-side operation on a connection, whatever its state."""
        raise NotImplementedError

    def client_side(self, sock: socket.socket) -> None:
        """Do one client-side operation."""
        raise NotImplementedError

    def receive(self, sock: socket.socket) -> None:
        """Receive something and check it; forget a client that has come to its end."""
        raise NotImplementedError

    def expect_end(self, served: Any) -> None:
        """Note that the server is about to close a connection in an orderly way."""
        served.closed = True

    # -- the run

    def meddle(self, served: Any) -> None:
        """Now and then, do something to some connection from inside a callback."""
        if self.random.random() < 0.3:
            others = [peer.server for peer in self.clients.values() if peer.server is not None]
            target = self.random.choice(others) if others and self.random.random() < 0.3 else served
            self.server_side(target)

    def connect(self) -> None:
        sock = socket.socket()
        size = self.random.choice(self.receive_buffers)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        sock.connect(self.address)
        sock.setblocking(False)
        # The port may be reused once its connection is gone.
        self.clients[sock] = self.peers[sock.getsockname()[1]] = self.make_peer()

    def forget(self, sock: socket.socket) -> None:
        """Forget a client, and abort the server's side at some time: it may wait for ever."""
        self.orphans.append(self.clients.pop(sock))
        sock.close()
        while len(self.orphans) > MAX_ORPHANS:
            self._abort(self.orphans.pop(0))

    def _abort(self, peer: Peer) -> None:
        if peer.server is not None:
            peer.server.abort()

    async def run(self, **options: Any) -> None:
        """Do all operations, then close everything in order; `options` are of `create_server`."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self.problems.append(context))
        server = await fastlisten.create_server(
            self.make_protocol,
            "127.0.0.1",
            0,
            options=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)],
            max_connections=self.crowd + 20,
            limit_action="wait",
            **options,
        )
        engine = engine_for(loop)
        self.address = server.sockets[0].getsockname()
        for step in range(self.operations):
            while len(self.clients) < self.crowd:
                self.connect()
            sock = self.random.choice(list(self.clients))
            served = self.clients[sock].server
            if served is not None and self.random.random() < self.server_share:
                self.server_side(served)
            else:
                self.client_side(sock)
            if step % 8 == 0:
                await asyncio.sleep(0)
            assert not self.problems, self.problems[0]
        # An orderly end: everything that was written arrives.
        server.close()
        for peer in (*self.clients.values(), *self.orphans):
            served = peer.server
            if served is not None and served.state == "made" and not served.closed:
                self.expect_end(served)
        server.close_clients()
        for peer in self.orphans:
            self._abort(peer)
        end = loop.time() + 30
        while self.clients or server.connections:
            assert loop.time() < end, (len(self.clients), engine.census())
            await asyncio.sleep(0)
            for sock in tuple(self.clients):
                self.receive(sock)
        await asyncio.wait_for(server.wait_closed(), 10)
        assert not self.problems, self.problems[0]
        assert self.made == self.lost
        assert self.made >= self.fewest
        assert self.whole > 0
        assert engine.closed
        assert engine.open == 0
