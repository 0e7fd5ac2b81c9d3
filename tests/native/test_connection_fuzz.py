"""Random operations on many connections at once, from fixed seeds, checked against invariants.

Rules of this file: support.fuzzing has the run; here is what plain connections do at each end. A
run ends by closing everything, and must leave nothing behind. The invariants:

- connection_made comes first and once, connection_lost last and once, eof_received between them;
- no input while paused or after close(), and no byte is lost, duplicated or made up;
- pause_writing and resume_writing alternate, beginning with pause_writing;
- a client that reads to the end after an orderly close has received everything written before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from support.endless_stream import stream
from support.fuzzing import CheckedProtocol, Fuzz, Peer, reset
from support.loops import LoopFactory

pytestmark = pytest.mark.usefixtures("descriptors_back")


class PlainPeer(Peer):
    """Both ends of a connection.

    Attributes:
        orderly: the server closed without abort, and the client did not reset.
    """

    orderly = False


class Served(CheckedProtocol):
    finished = False

    def eof_received(self) -> bool:
        self.check_input()
        self.ended = True
        if not self.peer.dirty:
            assert self.peer.heard == self.peer.sent
        keep: bool = self.fuzz.random.random() < 0.5
        if not keep:
            self.closed = self.peer.orderly = True
        return keep

    # -- called by the fuzzer

    def write(self, size: int) -> None:
        if self.state != "made" or self.closed or self.finished:
            return
        data = stream(self.peer.written, size)
        self.peer.written += len(data)
        if size % 3 == 0:
            self.transport.write(data)
        elif size % 3 == 1:
            third = size // 3
            self.transport.writelines([data[:third], bytearray(data[third:])])
        else:
            self.transport.write(memoryview(data))

    def finish(self) -> None:
        self.finished = True
        # The kernel says ENOTCONN if the connection is already reset.
        with contextlib.suppress(OSError):
            self.transport.write_eof()

    def close(self) -> None:
        if self.state == "made" and not self.closed:
            self.closed = True
            self.peer.orderly = True
        self.transport.close()

    def abort(self) -> None:
        self.peer.orderly = False
        super().abort()

    def pause(self) -> None:
        self.transport.pause_reading()
        self.paused = True

    def resume(self) -> None:
        if not self.ended:
            self.paused = False
            self.transport.resume_reading()


class PlainFuzz(Fuzz):
    #: About a second.
    crowd = 60
    operations = 6000
    server_share = 0.3
    receive_buffers = (2048, 65536)
    high_water_marks = (0, 1000, 65536)
    fewest = 100

    def make_peer(self) -> PlainPeer:
        return PlainPeer()

    def make_protocol(self) -> Served:
        return Served(self)

    def expect_end(self, served: Served) -> None:
        served.closed = served.peer.orderly = True

    def server_side(self, served: Served) -> None:
        choice = self.random.random()
        if choice < 0.5:
            served.write(self.random.choice((1, 20, 500, 5_000, 60_000, 200_000)))
        elif choice < 0.65:
            served.pause()
        elif choice < 0.9:
            served.resume()
        elif choice < 0.92:
            served.finish()
        elif choice < 0.97:
            served.close()
        else:
            served.abort()

    def receive(self, sock: socket.socket) -> None:
        peer = self.clients[sock]
        try:
            data = sock.recv(self.random.choice((100, 5_000, 1 << 18)))
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.forget(sock)
            return
        if not data:
            if peer.orderly and not peer.dirty:
                assert peer.received == peer.written
                self.whole += 1
            self.forget(sock)
            return
        assert data == stream(peer.received, len(data))
        peer.received += len(data)
        assert peer.received <= peer.written

    def client_side(self, sock: socket.socket) -> None:
        peer = self.clients[sock]
        choice = self.random.random()
        if choice < 0.45:
            data = stream(peer.sent, self.random.choice((1, 30, 700, 20_000, 150_000)))
            try:
                peer.sent += sock.send(data)
            except BlockingIOError:
                pass
            except (ConnectionResetError, BrokenPipeError):
                # The server closed with input unread. Reported once: the next recv returns the end.
                peer.dirty = True
        elif choice < 0.9:
            self.receive(sock)
        elif choice < 0.94:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        else:
            # Closing with unread bytes sends a reset anyway.
            peer.dirty = True
            if choice < 0.97:
                reset(sock)
            self.forget(sock)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize(
    "seeds",
    [
        range(3),
        pytest.param(range(3, 60), marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
    ids=["few", "many"],
)
def test_random_operations(loop_factory: LoopFactory, seeds: range, lazy: bool) -> None:
    for seed in seeds:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(PlainFuzz(seed).run(lazy=lazy))
