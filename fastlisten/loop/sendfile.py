"""`loop.sendfile` for the core's transports: the file is read in a thread and written with
back-pressure.

Rules of this file: it does what asyncio's fallback does (base_events.py of CPython), which accepts
only asyncio's own transports. sendfile(2) is not used: it cannot be with TLS, and callers have to
allow the fallback anyway (`fallback`).
"""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO

__all__ = ["sendfile"]

#: Bytes read at a time. asyncio reads 16 KiB, which is little for the cost of a call in a thread.
_BLOCK = 131072


class _SendfileProtocol(asyncio.Protocol):
    """Replaces a connection's protocol while a file is being sent."""

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
        """Wait until the transport takes more."""
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        if self._room is not None:
            await self._room

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait for room, and tell the connection's own protocol."""
        if self._room is not None and not self._room.done():
            self._room.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the transport is full."""
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """End the wait for room."""
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def restore(self) -> None:
        """Give the connection back to its own protocol."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._protocol)
        if self._was_reading:
            self._transport.resume_reading()
        if self._room is not None:
            # Still full: pause the protocol, as if it had written the data itself.
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
        file: open in binary mode; afterwards its position is behind the last byte sent.
        offset: where to begin, in bytes.
        count: bytes to send; None to send up to the end.
        fallback: must be true, because sendfile(2) is not used.

    Returns:
        The number of bytes sent.

    Raises:
        RuntimeError: the transport is closing, or `fallback` is false.
        ConnectionError: the connection was lost before everything was sent.
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
    protocol = _SendfileProtocol(loop, transport)
    try:
        while count is None or sent < count:
            size = _BLOCK if count is None else min(_BLOCK, count - sent)
            block = await loop.run_in_executor(None, file.read, size)
            if not block:
                break
            await protocol.drain()
            transport.write(block)
            sent += len(block)
        return sent
    finally:
        if sent and seekable:
            file.seek(offset + sent)
        protocol.restore()
