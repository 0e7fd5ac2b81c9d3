"""Many clients in one process that connect and disconnect in every way, to test a connection limit.

Rules of this file: one epoll set, raw descriptors, no threads, so that "served at this instant" is
an exact number. A client counts as served from when it has read the greeting until just before it
begins to leave: always within the time that the server holds its place, so that a count above the
limit proves that the limit was exceeded.
"""

from __future__ import annotations

import errno
import heapq
import os
import random
import select
import socket
import time
from typing import Any

from support.raw_client import RESET

GREETING = b"220 "
REFUSAL = b"421 full\r\n"

WAITING, SERVED, LEAVING = range(3)


def greeting_of(pid: int) -> bytes:
    """Return the greeting of a process, from which clients know which process serves them."""
    return b"%s%d\r\n" % (GREETING, pid)


class Guest:
    """One connection of the crowd."""

    __slots__ = ("fd", "phase", "server")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.phase = WAITING
        self.server = 0


class Crowd:
    """A number of clients of one address, each of which reconnects after it has left.

    Args:
        address: the server's address.
        size: the number of clients.
        seed: the random seed.
        hold: shortest and longest stay of a served client, in seconds.
        pause: shortest and longest time before a client reconnects, in seconds.

    Attributes:
        served: clients that are served now.
        most: the most that were served at any instant.
        cycles: clients that have been served and have left again.
        refused: clients that got `REFUSAL`.
        mute: connections that the server closed without sending anything.
        resets: those of them that ended by a reset.
    """

    def __init__(
        self,
        address: Any,
        size: int,
        seed: int,
        hold: tuple[float, float] = (0.02, 0.06),
        pause: tuple[float, float] = (0.01, 0.1),
    ) -> None:
        self.address = address
        self.size = size
        self.random = random.Random(seed)
        self.hold = hold
        self.pause = pause
        self.served = self.most = self.cycles = self.refused = self.mute = self.resets = 0
        self.epoll = select.epoll()
        self.guests: dict[int, Guest] = {}
        self.gone: set[int] = set()
        self._timers: list[tuple[float, int, Guest | None]] = []
        self._serial = 0
        for _ in range(size):
            self._later((0.0, 0.05), None)

    def run(self, seconds: float) -> None:
        """Let the clients come and go for some time."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._due(now)
            wait = end - now
            if self._timers:
                wait = min(wait, max(0.0, self._timers[0][0] - now))
            for fd, _ in self.epoll.poll(wait, 512):
                self._event(self.guests[fd])

    def forget(self, server: int) -> None:
        """Record that a server process is dead and its clients are no longer served."""
        self.gone.add(server)
        for guest in self.guests.values():
            if guest.server == server and guest.phase == SERVED:
                self._stop_counting(guest)

    def close(self) -> None:
        """Close all connections."""
        for fd in self.guests:
            os.close(fd)
        self.guests.clear()
        self.epoll.close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _later(self, span: tuple[float, float], guest: Guest | None) -> None:
        self._serial += 1
        when = time.monotonic() + self.random.uniform(*span)
        heapq.heappush(self._timers, (when, self._serial, guest))

    def _due(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            guest = heapq.heappop(self._timers)[2]
            if guest is None:
                self._come()
            elif self.guests.get(guest.fd) is guest:
                if guest.phase == SERVED:
                    self._leave(guest)
                else:
                    # It has waited long enough for the greeting, or for the server's close.
                    self._end(guest, reset=self.random.random() < 0.5)

    def _come(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        error = sock.connect_ex(self.address)
        assert error in (0, errno.EINPROGRESS), os.strerror(error)
        guest = Guest(sock.detach())
        self.guests[guest.fd] = guest
        self.epoll.register(guest.fd, select.EPOLLIN)
        if self.random.random() < 0.1:
            self._later((0.0, 0.05), guest)

    def _event(self, guest: Guest) -> None:
        try:
            data = os.read(guest.fd, 512)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
            self.resets += guest.phase == WAITING
        if guest.phase == WAITING:
            if data.startswith(GREETING):
                self._serve(guest, int(data[len(GREETING) :]))
                return
            if data == REFUSAL:
                self.refused += 1
            else:
                assert not data, data
                self.mute += 1
        elif data:
            return
        elif guest.phase == SERVED:
            # Its server is dying; `forget` has not been called yet.
            self._stop_counting(guest)
        self._end(guest)

    def _serve(self, guest: Guest, server: int) -> None:
        guest.server = server
        if server in self.gone:
            self._end(guest)
            return
        guest.phase = SERVED
        self.served += 1
        self.most = max(self.most, self.served)
        self._later(self.hold, guest)

    def _stop_counting(self, guest: Guest) -> None:
        guest.phase = LEAVING
        self.served -= 1
        self.cycles += 1

    def _leave(self, guest: Guest) -> None:
        self._stop_counting(guest)
        way = self.random.randrange(4)
        if way < 2:
            self._end(guest, reset=way == 1)
            return
        sock = self._socket(guest)
        try:
            if way == 2:
                sock.shutdown(socket.SHUT_WR)
            else:
                sock.send(b"QUIT\r\n")
        except OSError:
            pass  # the server was faster
        finally:
            sock.detach()
        self._later((5.0, 5.0), guest)

    def _end(self, guest: Guest, *, reset: bool = False) -> None:
        if reset:
            sock = self._socket(guest)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.detach()
        # Before close: a server that was just forked may still hold a copy.
        self.epoll.unregister(guest.fd)
        del self.guests[guest.fd]
        os.close(guest.fd)
        self._later(self.pause, None)

    @staticmethod
    def _socket(guest: Guest) -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=guest.fd)
