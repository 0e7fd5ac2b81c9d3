"""Serves the control socket in the supervisor's poll loop.

    WAITING ──line──> ASKING ──answer──> SENDING ──sent──> WAITING
       └── end, silence, a line that is too long ──> closed

Rules of this file: the protocol is in `runtime.control_socket.protocol`; bounds and errors are as
in the server on an event loop, beside it. Nothing blocks. A client is not polled while workers are
asked, because poll(2) would report one that has gone again and again.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastlisten.log_events import log
from fastlisten.runtime.control_socket.protocol import (
    RequestError,
    RequestLines,
    ServedProcess,
    answer,
    failure,
    read_request,
)
from fastlisten.runtime.control_socket.server import IDLE_TIMEOUT, MAX_CLIENTS, READ, RETRY, sender
from fastlisten.runtime.control_socket.socket_file import ListeningFile
from fastlisten.runtime.supervisor.pending import Pending, run
from fastlisten.runtime.supervisor.upgrade import unix_socket

__all__ = ["ControlClients"]

logger = logging.getLogger("fastlisten")


@dataclass(slots=True)
class _Client:
    """A connected client.

    Attributes:
        sock: its connection.
        by: who it is, for the log.
        deadline: when it has been silent, or has not read, for too long; None while workers are
            asked.
        lines: what it has sent.
        line: the request that is being carried out, or was the last.
        unsent: of the piece of the answer that is being sent.
        pieces: the rest of the answer; None while there is none.
        last: the connection is closed after the answer.
    """

    sock: socket.socket
    by: str
    deadline: float | None
    lines: RequestLines = field(default_factory=RequestLines)
    line: bytes = b""
    unsent: bytes = b""
    pieces: Iterator[bytes] | None = None
    last: bool = False


class ControlClients:
    """The control socket and its clients.

    Args:
        file: the listening socket; `close` removes its file.
        server: what answers.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        file: ListeningFile,
        server: ServedProcess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._server = server
        self._clock = clock
        self._clients: dict[int, _Client] = {}
        self._accept_at: float | None = None

    def polled(self) -> Mapping[int, int]:
        """Return the events to poll for, by descriptor."""
        events = {
            fd: select.POLLIN if client.pieces is None else select.POLLOUT
            for fd, client in self._clients.items()
            if client.deadline is not None
        }
        if self._accept_at is None:
            events[self._file.sock.fileno()] = select.POLLIN
        return events

    def ready(self, fd: int) -> None:
        """Go on with a descriptor that `polled` has named and that is ready."""
        if fd == self._file.sock.fileno():
            self._accept()
        elif client := self._clients.get(fd):
            try:
                if client.pieces is None:
                    self._receive(client)
                else:
                    self._send(client)
            except OSError:
                self._drop(client)
            except Exception as error:
                log(logger, logging.ERROR, "internal-error", "control socket: %r", error)
                self._drop(client)

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, by the clock; None if there is nothing to wait for."""
        times = [client.deadline for client in self._clients.values()]
        return min((one for one in (*times, self._accept_at) if one is not None), default=None)

    def expire(self) -> None:
        """Do what is due."""
        now = self._clock()
        if self._accept_at is not None and self._accept_at <= now:
            self._accept_at = None
        for client in list(self._clients.values()):
            if client.deadline is not None and client.deadline <= now:
                self._drop(client)

    def leave(self) -> None:
        """Close all descriptors in a forked process, and leave the file alone."""
        self._file.sock.close()
        for client in self._clients.values():
            client.sock.close()

    def close(self) -> None:
        """Close all connections, remove the socket."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._file.close()

    # -- an upgrade

    def state(self) -> dict[str, Any]:
        """Return what the new program of an upgrade needs to go on, as a JSON value.

        Answers that are not complete are made; those for which workers are being asked will not
        come.
        """
        lost = failure(RequestError("no-answer", "the server was upgraded meanwhile; ask again"))
        clients = []
        for fd, client in self._clients.items():
            upgrades = client.deadline is None and _is_upgrade(client.line)
            if client.deadline is not None:
                unsent = client.unsent + b"".join(client.pieces or ())
                if unsent:  # it is sent here, if the new program cannot be run
                    client.unsent, client.pieces = unsent, iter(())
            else:
                unsent = b"" if upgrades else lost
            clients.append(
                {
                    "fd": fd,
                    "by": client.by,
                    "upgrades": upgrades,
                    "received": client.lines.rest.decode("latin-1"),
                    "unsent": unsent.decode("latin-1"),
                    "last": client.last,
                }
            )
        return {"fd": self._file.sock.fileno(), "made": self._file.made, "clients": clients}

    @classmethod
    def taken_over(
        cls, state: Mapping[str, Any], server: ServedProcess, upgraded: Pending[bytes]
    ) -> ControlClients:
        """Return the control socket and the clients of a former program.

        Args:
            state: made by `state`.
            server: what answers.
            upgraded: the answer to the client that has requested the upgrade.

        Raises:
            UpgradeError: a descriptor is something else.
        """
        path, device, inode = state["made"]
        listening = unix_socket(state["fd"], socket.SOCK_STREAM)
        found = cls(ListeningFile.taken_over(listening, (path, device, inode)), server)
        for one in state["clients"]:
            sock = unix_socket(one["fd"], socket.SOCK_STREAM)
            sock.setblocking(False)
            client = _Client(sock, one["by"], found._clock() + IDLE_TIMEOUT, last=one["last"])
            client.lines.feed(one["received"].encode("latin-1"))
            found._clients[sock.fileno()] = client
            if one["upgrades"]:
                found._answer_later(client, upgraded)
            elif one["unsent"]:
                found._answer(client, (one["unsent"].encode("latin-1"),))
        return found

    def _answer_later(self, client: _Client, answer: Pending[bytes]) -> None:
        client.deadline = None
        answer.when_done(lambda: self._answer(client, (answer.result(),)))

    # -- clients

    def _accept(self) -> None:
        try:
            sock, _ = self._file.sock.accept()
        except BlockingIOError:
            return
        except OSError:  # descriptors or memory have run out
            self._accept_at = self._clock() + RETRY
            return
        sock.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:
            with sock, contextlib.suppress(OSError):
                text = f"there are already {MAX_CLIENTS} clients"
                sock.send(failure(RequestError("busy", text)))
            return
        self._clients[sock.fileno()] = _Client(sock, sender(sock), self._clock() + IDLE_TIMEOUT)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            client.sock.close()

    def _receive(self, client: _Client) -> None:
        try:
            data = client.sock.recv(READ)
        except BlockingIOError:
            return
        if not data:
            self._drop(client)
            return
        client.lines.feed(data)
        client.deadline = self._clock() + IDLE_TIMEOUT
        self._next_request(client)

    def _next_request(self, client: _Client) -> None:
        try:
            line = client.lines.next()
        except RequestError as error:
            client.last = True
            self._answer(client, (failure(error),))
            return
        if line is not None:
            client.deadline = None
            client.line = line
            outcome = run(answer(self._server, line, client.by))
            outcome.when_done(lambda: self._answered(client, outcome))

    def _answered(self, client: _Client, outcome: Pending[Iterable[bytes]]) -> None:
        try:
            self._answer(client, outcome.result())
        except Exception as error:
            log(logger, logging.ERROR, "internal-error", "control socket: %r", error)
            client.last = True
            self._answer(client, (failure(RequestError("failed", f"failed: {error}")),))

    def _answer(self, client: _Client, pieces: Iterable[bytes]) -> None:
        """Begin to send an answer, as soon as the client is polled again."""
        client.pieces = iter(pieces)
        client.deadline = self._clock() + IDLE_TIMEOUT

    def _send(self, client: _Client) -> None:
        assert client.pieces is not None
        if not client.unsent:
            piece = next(client.pieces, None)
            if piece is None:
                client.pieces = None
                if client.last:
                    self._drop(client)
                else:
                    self._next_request(client)
                return
            client.unsent = piece
        try:
            sent = client.sock.send(client.unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        client.unsent = client.unsent[sent:]
        client.deadline = self._clock() + IDLE_TIMEOUT


def _is_upgrade(line: bytes) -> bool:
    try:
        return read_request(line).command == "upgrade"
    except RequestError:
        return False
