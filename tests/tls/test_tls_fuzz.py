"""Random operations on many TLS connections, from fixed seeds, checked against invariants.

Rules of this file: as in test_connection_fuzz. The client's side is OpenSSL between buffers, whose
bytes go into the socket in pieces of any size. The invariants:

- connection_made comes first and once, connection_lost last and once, eof_received between them;
- no input while paused or after close(), and no byte is lost, duplicated or made up;
- pause_writing and resume_writing alternate, beginning with pause_writing;
- a side that gets close_notify has received everything written before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
from support.endless_stream import stream
from support.fuzzing import CheckedProtocol, Fuzz, Peer, reset
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context, server_context
from support.tls_world import WAY_NAMES, WAYS, kind_of_api, no_session_left

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: A client stops sending when this much is unsent.
BACKLOG = 300_000


class TlsPeer(Peer):
    """Both ends of a connection, counted in plain bytes.

    Attributes:
        shaken: the client's handshake is done.
        notified: the client has encrypted its close_notify.
        unsent: encrypted bytes on their way into the socket.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.shaken = self.notified = False
        self.unsent = bytearray()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)
        self.handshake()

    def handshake(self) -> None:
        """Go on with the handshake."""
        if not self.shaken:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                self.shaken = True
        self.unsent += self.outgoing.read()


class Served(CheckedProtocol):
    aborted = False

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

    def check_error(self, exc: BaseException | None) -> None:
        if isinstance(exc, ssl.SSLError):
            # Corrupted, or there was input after we said that we read no more.
            assert self.peer.dirty or self.closed, exc
        else:
            super().check_error(exc)

    def abort(self) -> None:
        self.aborted = True
        super().abort()


class TlsFuzz(Fuzz):
    #: About a second.
    crowd = 40
    operations = 2500
    server_share = 0.25
    receive_buffers = (4096, 65536)
    high_water_marks = (1000, 65536, 600_000)
    fewest = 5

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.contexts = [
            client_context(version=version)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        ]

    def make_peer(self) -> TlsPeer:
        return TlsPeer(self.random.choice(self.contexts))

    def make_protocol(self) -> Served:
        return Served(self)

    def server_side(self, served: Served) -> None:
        choice = self.random.random()
        if choice < 0.55:
            if served.state == "made" and not served.closed:
                size = self.random.choice((1, 20, 500, 5_000, 17_000, 60_000, 200_000))
                data = stream(served.peer.written, size)
                served.peer.written += len(data)
                third = size // 3
                if size % 2:
                    served.transport.write(bytearray(data))
                else:
                    served.transport.writelines([data[:third], memoryview(data)[third:]])
        elif choice < 0.7:
            served.transport.pause_reading()
            served.paused = True
        elif choice < 0.95:
            if not served.closed:
                served.paused = False
            served.transport.resume_reading()
        elif choice < 0.98:
            served.closed = True
            served.transport.close()
        else:
            served.abort()

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

    def receive(self, sock: socket.socket) -> None:
        self.push(sock)
        self._pull(sock)

    def _pull(self, sock: socket.socket) -> None:
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
        peer = self.clients[sock]
        choice = self.random.random()
        if choice < 0.35:
            self.push(sock)
        elif choice < 0.75:
            self._pull(sock)
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
                    reset(sock)
                self.forget(sock)


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
            runner.run(TlsFuzz(seed).run(ssl=server_context()))
