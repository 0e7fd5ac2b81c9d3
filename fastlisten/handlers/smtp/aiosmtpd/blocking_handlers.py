"""The handlers of aiosmtpd that block, run in threads, so that they do not hold up the loop.

Rules of this file: exactly the classes that aiosmtpd itself has and that do nothing with the loop.
A class of one's own, also one derived from these, runs on the loop, where it was written to run:
what it does there takes the time of all connections, so that a blocking call belongs into
`asyncio.to_thread`.

    Mailbox   writes and syncs a file for each message: one at a time, because the names that
              Python's mailbox module gives are unique in one thread only
    Proxy     talks to another server by smtplib; if that is served by the same loop, a handler
              that blocked it would wait for ever
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["blocking_hook"]


def blocking_hook(handler: Any) -> Callable[..., Awaitable[Any]] | None:
    """Return the handle_DATA hook of a handler that blocks, made to run in a thread; else None."""
    # Whoever made an instance has imported the module.
    module = sys.modules.get("aiosmtpd.handlers")
    if module is None or type(handler) not in (module.Mailbox, module.Proxy):
        return None
    lock = threading.Lock() if type(handler) is module.Mailbox else None

    def run(server: Any, session: Any, envelope: Any) -> Any:
        coroutine = handler.handle_DATA(server, session, envelope)
        try:
            if lock is None:
                return _finish(coroutine)
            with lock:
                return _finish(coroutine)
        finally:
            coroutine.close()

    async def handle(server: Any, session: Any, envelope: Any) -> Any:
        return await asyncio.to_thread(run, server, session, envelope)

    return handle


def _finish(coroutine: Any) -> Any:
    """Return the result of a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError(f"{coroutine!r} suspended, in a thread without a loop")
