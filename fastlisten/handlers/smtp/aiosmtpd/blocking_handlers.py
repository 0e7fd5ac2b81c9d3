"""Runs those of aiosmtpd's own handlers that block in threads, so that they don't block the loop.

Rules of this file: exactly the classes of aiosmtpd that block and do not use the loop. Other
classes, and classes derived from these, run on the loop, for which they were written. Whatever they
do there delays all connections; blocking calls belong in `asyncio.to_thread`.

    Mailbox   writes and syncs a file for each message: one at a time, because the file names that
              Python's mailbox module makes are unique within one thread only
    Proxy     uses smtplib to talk to another server; if that is served by the same loop, blocking
              the loop would be a deadlock
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["blocking_hook"]


def blocking_hook(handler: Any) -> Callable[..., Awaitable[Any]] | None:
    """Return a handle_DATA hook that runs a blocking handler in a thread; None for others."""
    # If there is an instance, the module has been imported.
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
    """Return the result of a coroutine that must not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError(f"{coroutine!r} suspended in a thread that has no loop")
