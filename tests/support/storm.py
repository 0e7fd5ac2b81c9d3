"""A storm of clients against a server with a limit, and whether the limit holds.

Rules of this file: one thread and one poll(2); what happens next is random, with a seed. A client
counts as served from its greeting until it closes or finds its connection dead. Worker processes
die in the storm, and their clients learn that a moment later: so when more seem to be served than
allowed, each is asked for an echo, twice. Those that answer twice were all served at the moment
between the two rounds.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
from collections.abc import Callable

from support.waiting import PATIENCE

__all__ = ["Storm"]

#: Chance of a step that a served client closes. It decides how full the server is.
_CLOSE = 0.3


class Storm:
    """Clients of one listener whose handler greets and echoes (`support.told_handlers`).

    Args:
        port: of the listener on loopback.
        limit: its `max-connections`.
        clients: how many at a time.
        seed: of the random numbers.

    Attributes:
        served: how many clients have got a greeting so far.
        refused: how many have been refused.
        lost: how many served ones have lost their connection.
        most: the most that were served at a time.
    """

    def __init__(self, port: int, limit: int, clients: int, seed: int) -> None:
        self._address = ("127.0.0.1", port)
        self._limit = limit
        self._clients = clients
        self._random = random.Random(seed)
        self._waiting: dict[int, socket.socket] = {}
        self._open: dict[int, socket.socket] = {}
        self.served = self.refused = self.lost = self.most = 0

    def blow(self, goes_on: Callable[[], bool], step: Callable[[random.Random], None]) -> None:
        """Connect and disconnect until `goes_on` returns False; call `step` again and again."""
        while goes_on():
            while len(self._waiting) + len(self._open) < self._clients:
                self._connect()
            self._look(10)
            if self._open and self._random.random() < _CLOSE:
                self._close(self._random.choice(list(self._open)))
            step(self._random)

    def __str__(self) -> str:
        return (
            f"{self.served:,} clients served, {self.lost:,} of them lost with their worker, "
            f"{self.refused:,} refused; at most {self.most} of {self._limit} at a time"
        )

    def calm(self) -> None:
        """Close all clients."""
        for clients in (self._waiting, self._open):
            for client in clients.values():
                client.close()
            clients.clear()

    def _connect(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect(self._address)
        self._waiting[client.fileno()] = client

    def _look(self, milliseconds: int) -> None:
        """Take what clients have received."""
        poll = select.poll()
        for fd in (*self._waiting, *self._open):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(milliseconds):
            if fd in self._waiting:
                self._hear(fd)
            elif fd in self._open:  # else it was found dead just now
                self._lose(fd)

    def _hear(self, fd: int) -> None:
        """Take the first words of the server."""
        client = self._waiting.pop(fd)
        try:
            said = client.recv(100)
        except OSError:  # its worker was killed
            said = b""
        if not said or said.startswith(b"refused"):
            client.close()
            self.refused += bool(said)
            return
        self._open[fd] = client
        self.served += 1
        if len(self._open) > self._limit:
            self._verify()
        self.most = max(self.most, len(self._open))

    def _lose(self, fd: int) -> None:
        """A served client is told something: only that its worker is gone."""
        with contextlib.suppress(OSError):
            assert not self._open[fd].recv(100), "the server says what nobody has asked for"
        self._close(fd)
        self.lost += 1

    def _close(self, fd: int) -> None:
        self._open.pop(fd).close()

    def _verify(self) -> None:
        """Close the clients whose connections are dead; the others must not be too many."""
        for _ in range(2):
            for fd, client in list(self._open.items()):
                client.settimeout(PATIENCE)
                try:
                    client.sendall(b"?")
                    alive = client.recv(1) == b"?"
                except ConnectionError:
                    alive = False
                client.setblocking(False)
                if not alive:
                    self._close(fd)
                    self.lost += 1
        assert len(self._open) <= self._limit, (
            f"{len(self._open)} clients are served, {self._limit} are allowed"
        )
