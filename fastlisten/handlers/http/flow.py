"""Flow control towards a client: an application that sends waits while the client does not read.

Rules of this file: one `WriteGate` per connection, which the transport's callbacks close and open.
"""

from __future__ import annotations

import asyncio

__all__ = ["WriteGate"]


class WriteGate:
    """Makes an application wait while the client does not read.

    Attributes:
        closed: the transport's buffer is full.
    """

    __slots__ = ("_waiter", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Make the application wait."""
        self.closed = True

    def open(self) -> None:
        """Let the application continue."""
        self.closed = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def passed(self) -> None:
        """Wait until the gate is open, which it also is when the client has disconnected."""
        while self.closed:
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            # Shielded, because an application may send from several tasks and cancel one of them.
            await asyncio.shield(self._waiter)
