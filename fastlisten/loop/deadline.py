"""Timeouts for peers that are not blamed for time during which this process was stopped.

After a stop (SIGSTOP, a suspended machine, a call that blocked) an event loop runs its timers first
and reads afterwards, so a plain timer would fire although the peer's data has arrived.

Rules of this file: input that has arrived is read before a peer's time counts as up. The core does
this for its own deadlines; here it is done for those that a protocol keeps itself, as a server
(`Deadline`) or as a client (`PeerTimeout`).
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Deadline", "PeerTimeout", "finish_within"]

_Result = TypeVar("_Result")

#: Seconds to read input that has already arrived: a few iterations of the loop.
_SHORTEST_EXTENSION = 0.05

#: If the timer was late, the extension is as long as the delay, but at most this many seconds.
_LONGEST_EXTENSION = 10.0


def _extension(late: float) -> float:
    """Return the seconds to add when a timeout is noticed `late` seconds after it was due."""
    return min(max(late, _SHORTEST_EXTENSION), _LONGEST_EXTENSION)


class Deadline:
    """Calls back when a client's time is up, after what it sent in time has been read.

    Args:
        loop: the running loop.
        seconds: counted from now.
        transport: the client's transport, which is checked for unread input when the time is up.
        callback: called without arguments, at most once.
    """

    __slots__ = ("_callback", "_due", "_handle", "_loop", "_transport")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        transport: asyncio.BaseTransport,
        callback: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._callback = callback
        self._due = loop.time() + seconds
        self._handle = loop.call_later(seconds, self._expire)

    def cancel(self) -> None:
        """Never call back; may be called repeatedly."""
        self._handle.cancel()
        self._callback = _nothing  # breaks a reference cycle: the callback's owner holds this

    def _expire(self) -> None:
        if not self._has_unread_input():
            self._callback()
            return
        late = self._loop.time() - self._due
        self._handle = self._loop.call_later(_extension(late), self._callback)

    def _has_unread_input(self) -> bool:
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _nothing() -> None:
    """The callback of a cancelled deadline."""


class PeerTimeout:
    """A limit on waiting for a peer, which the waiting code polls between iterations of the loop.

    When the time is up it is extended once, so that the loop can read what has arrived.
    `asyncio.timeout` would cancel the waiting task even if the answer is already in the kernel.

    Args:
        seconds: counted from now.

    Attributes:
        ends: the loop's time at which to call `check` again.
    """

    __slots__ = ("_extended", "_loop", "ends")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._extended = False
        self.ends = self._loop.time() + seconds

    def check(self, reason: str = "no answer in time") -> None:
        """Return if there is time left, which lasts until `ends`.

        Raises:
            TimeoutError: the time is up; its text is `reason`.
        """
        now = self._loop.time()
        if now < self.ends:
            return
        if self._extended:
            raise TimeoutError(reason)
        self._extended = True
        self.ends = now + _extension(now - self.ends)


async def finish_within(work: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
    """Run a coroutine and return its result; cancel it if it takes too long.

    Raises:
        TimeoutError: it took longer than `seconds`.
    """
    limit = PeerTimeout(seconds)
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    try:
        while not task.done():
            limit.check()
            await asyncio.wait((task,), timeout=limit.ends - loop.time())
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    return task.result()
