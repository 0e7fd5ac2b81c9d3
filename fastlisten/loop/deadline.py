"""Deadlines of peers that do not count the time in which the process stood still.

Rules of this file: what the core does with the deadlines that it keeps, for those that a protocol
has to keep itself, as a server (`Deadline`) or as a client (`Patience`): what has arrived is read
before a peer is judged. A loop that goes on after a
stop (SIGSTOP, a suspended machine, a call that blocked) calls its timers first and reads then.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Deadline", "Patience", "finish_within"]

_Result = TypeVar("_Result")

#: Input that waits is given so long to be read, in seconds: some turns of the loop.
_TURNS = 0.05

#: ... and longer if the timer itself was late: as long as it was late by, but at most so long.
_LATE_MOST = 10.0


def _more(late: float) -> float:
    """Return the seconds that a peer gets whose time is up since `late` seconds."""
    return min(max(late, _TURNS), _LATE_MOST)


class Deadline:
    """Calls back when a client's time is up, once what it has sent in time has been read.

    Args:
        loop: the running loop.
        seconds: from now on.
        transport: the client's; its input is looked at when the time is up.
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
        self._handle = loop.call_later(seconds, self._judge)

    def cancel(self) -> None:
        """Do not call back any more."""
        self._handle.cancel()
        self._callback = _nothing  # who is called back holds this

    def _judge(self) -> None:
        if not self._input_waits():
            self._callback()
            return
        late = self._loop.time() - self._due
        self._handle = self._loop.call_later(_more(late), self._callback)

    def _input_waits(self) -> bool:
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _nothing() -> None:
    """Be called instead of who is not called any more."""


class Patience:
    """How long somebody waits for a peer: looked at again and again, while the loop runs between.

    Whoever finds the time up gets some more, once, in which the loop reads. So `asyncio.timeout`
    cannot be used: it cancels who waits although the answer has come, or is in the kernel.

    Args:
        seconds: from now on.

    Attributes:
        ends: when to look again, by the loop's clock.
    """

    __slots__ = ("_last", "_loop", "ends")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._last = False
        self.ends = self._loop.time() + seconds

    def check(self, reason: str = "no answer in time") -> None:
        """Go on waiting, until `ends`.

        Raises:
            TimeoutError: the time is up; with the reason.
        """
        now = self._loop.time()
        if now < self.ends:
            return
        if self._last:
            raise TimeoutError(reason)
        self._last = True
        self.ends = now + _more(now - self.ends)


async def finish_within(work: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
    """Return what `work` returns; it is cancelled if that takes too long.

    Raises:
        TimeoutError: it does.
    """
    patience = Patience(seconds)
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    try:
        while not task.done():
            patience.check()
            await asyncio.wait((task,), timeout=patience.ends - loop.time())
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    return task.result()
