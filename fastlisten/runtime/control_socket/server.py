"""Serves the control socket on an event loop.

Rules of this file: it uses only what every asyncio loop has, and none of the native core: it must
answer when the listeners are full. A client that is slow or silent costs a descriptor and a
task for a bounded time, and there is a bound on clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Iterable

from fastlisten.log_events import log_fault
from fastlisten.runtime.control_socket.protocol import (
    RequestError,
    RequestLines,
    ServedProcess,
    answer,
    failure,
)
from fastlisten.runtime.control_socket.socket_file import ListeningFile

__all__ = ["IDLE_TIMEOUT", "MAX_CLIENTS", "READ", "RETRY", "ControlSocketServer", "sender"]

logger = logging.getLogger("fastlisten")

#: Clients at a time: a few administrators and monitoring scripts.
MAX_CLIENTS = 32

#: Seconds that a client may be silent between requests, or may take to read an answer.
IDLE_TIMEOUT = 60.0

#: Seconds until the next attempt when descriptors or memory have run out.
RETRY = 0.5

#: The most octets to receive at a time.
READ = 16 * 1024

#: struct ucred: pid, uid, gid (unix(7)).
_CREDENTIALS = struct.Struct("iII")


class ControlSocketServer:
    """Answers on a control socket until `close`.

    Args:
        file: the listening socket; `close` closes it and removes its file.
        server: what answers.
    """

    def __init__(self, file: ListeningFile, server: ServedProcess) -> None:
        self._file = file
        self._server = server
        self._clients: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def close(self) -> None:
        """Close all connections, remove the socket. An answer being made is not completed."""
        tasks = [self._accepting, *self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._file.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._file.sock)
            except OSError:
                await asyncio.sleep(RETRY)
                continue
            client.setblocking(False)
            if len(self._clients) >= MAX_CLIENTS:
                with client, contextlib.suppress(OSError):
                    text = f"there are already {MAX_CLIENTS} clients"
                    client.send(failure(RequestError("busy", text)))
                continue
            task = loop.create_task(self._serve(client))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)

    async def _serve(self, client: socket.socket) -> None:
        """Serve one client."""
        with client:
            try:
                await self._converse(client, sender(client))
            except (OSError, TimeoutError):
                pass  # it has gone, or it is stuck
            except Exception as error:
                log_fault(logger, "internal-error", "control socket: %r", error)
                with contextlib.suppress(OSError):
                    client.send(failure(RequestError("failed", f"failed: {error}")))

    async def _converse(self, client: socket.socket, by: str) -> None:
        """Answer one request after the other until the client closes the connection."""
        loop = asyncio.get_running_loop()
        lines = RequestLines()
        while True:
            try:
                line = lines.next()
            except RequestError as error:
                await _send(client, (failure(error),))
                return
            if line is not None:
                await _send(client, await answer(self._server, line, by))
                continue
            async with asyncio.timeout(IDLE_TIMEOUT):
                data = await loop.sock_recv(client, READ)
            if not data:
                return
            lines.feed(data)


async def _send(client: socket.socket, pieces: Iterable[bytes]) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(IDLE_TIMEOUT):
        for piece in pieces:
            await loop.sock_sendall(client, piece)
            await asyncio.sleep(0)


def sender(client: socket.socket) -> str:
    """Return who is connected, for the log.

    The user as a number: looking up its name may ask a directory service, and wait for it.
    """
    data = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return f"uid {uid} (PID {pid})" if pid else f"uid {uid}"
