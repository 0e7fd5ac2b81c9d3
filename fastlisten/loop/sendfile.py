"""`loop.sendfile` over the core's transports: the file is read in threads and written with
back-pressure.

Rules of this file: asyncio's fallback is the specification (base_events.py of CPython), which asks
for transports of its own. sendfile(2) itself is not used: under TLS it cannot be, and on plain
connections asyncio promises it to no one (`fallback`).
"""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO

__all__ = ["sendfile"]

#: What asyncio reads at a time is 16 KiB; a thread's work is worth it only for more.
_BLOCK = 131072


class _Sending(asyncio.Protocol):
    """Stands in for a connection's protocol while a file is on its way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: Any) -> None:
        self._loop = loop
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._was_reading = transport.is_reading()
        self._was_paused = transport._protocol_paused
        self._room: asyncio.Future[None] | None = None
        transport.pause_reading()
        transport.set_protocol(self)
        if self._was_paused:
            self._room = loop.create_future()

    async def drain(self) -> None:
        """Wait until there is room for more."""
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        if self._room is not None:
            await self._room

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake up who waits for room, and tell the protocol."""
        if self._room is not None and not self._room.done():
            self._room.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the transport is full."""
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """Wake up who waits for room."""
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def restore(self) -> None:
        """Give the connection back to its protocol."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._protocol)
        if self._was_reading:
            self._transport.resume_reading()
        if self._room is not None:
            # Full still: the protocol is told as if it had written itself.
            self._room.cancel()
            if not self._was_paused and not self._transport.is_closing():
                self._protocol.pause_writing()
        elif self._was_paused:
            self._protocol.resume_writing()


async def sendfile(
    loop: asyncio.AbstractEventLoop,
    transport: Any,
    file: BinaryIO,
    offset: int = 0,
    count: int | None = None,
    *,
    fallback: bool = True,
) -> int:
    """Send a file over a connection of the core.

    Args:
        loop: the running loop.
        transport: a `Connection` or `TlsConnection`.
        file: open in binary mode; its position afterwards is behind what was sent.
        offset: where to begin, in bytes.
        count: bytes to send; None for all up to the end.
        fallback: must be true: there is no other way here.

    Returns:
        The number of bytes sent.

    Raises:
        RuntimeError: the transport is closing, or `fallback` is false.
        ConnectionError: the connection ended meanwhile.
    """
    if transport.is_closing():
        raise RuntimeError("Transport is closing")
    if not fallback:
        raise RuntimeError(
            f"fallback is disabled and native sendfile is not supported for transport {transport!r}"
        )
    seekable = hasattr(file, "seek")
    if seekable:
        file.seek(offset)
    sent = 0
    sending = _Sending(loop, transport)
    try:
        while count is None or sent < count:
            size = _BLOCK if count is None else min(_BLOCK, count - sent)
            block = await loop.run_in_executor(None, file.read, size)
            if not block:
                break
            await sending.drain()
            transport.write(block)
            sent += len(block)
        return sent
    finally:
        if sent and seekable:
            file.seek(offset + sent)
        sending.restore()
