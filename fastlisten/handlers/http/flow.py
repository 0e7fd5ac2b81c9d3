"""Flow control towards a client: an application that sends waits while the client does not read.

Rules of this file: one `WriteGate` for each connection, told by the transport.
"""

from __future__ import annotations

import asyncio

__all__ = ["WriteGate"]


class WriteGate:
    """Holds an application back.

    Attributes:
        closed: the client does not take what is sent.
    """

    __slots__ = ("_waiter", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Make the application wait."""
        self.closed = True

    def open(self) -> None:
        """Let the application go on."""
        self.closed = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def passed(self) -> None:
        """Return when the gate is open; it opens when the client has gone, too."""
        while self.closed:
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            # Shielded, because an application may send from several tasks and cancel one of them.
            await asyncio.shield(self._waiter)
