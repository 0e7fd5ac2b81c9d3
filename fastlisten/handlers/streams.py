"""An async function of (reader, writer) as a handler: ten lines for a protocol of one's own.

Rules of this file: asyncio's streams as they are; one task per connection, ended with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fastlisten.handlers.base import ConnectionInfo, Handler

__all__ = ["StreamHandler", "stream_handler"]

logger = logging.getLogger("fastlisten")

StreamFunction = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: asyncio.start_server's default: longest line, and half of what is read ahead, in bytes.
_LIMIT = 65536


class StreamHandler(Handler):
    """Runs `function` in a task for each connection; the client may speak first."""

    function: StreamFunction

    def __init__(self, settings: object) -> None:
        super().__init__(settings)  # type: ignore[arg-type]
        self._tasks: set[asyncio.Task[None]] = set()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return a stream protocol whose callback starts the task."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LIMIT, loop=loop)
        return asyncio.StreamReaderProtocol(reader, self._start, loop=loop)

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await type(self).function(reader, writer)
        except ConnectionError:
            # The peer is gone; that is no fault of the function.
            pass
        except Exception:
            logger.exception(
                'listener "%s": %s failed', self.settings.listener, type(self).__name__
            )
        finally:
            writer.close()

    async def stop(self) -> None:
        """Cancel what outlived its connection, and wait for it."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stream_handler(function: StreamFunction) -> type[Handler]:
    """Return a handler class that runs an async function of (reader, writer)."""
    name = getattr(function, "__name__", "function")
    return type(name, (StreamHandler,), {"function": staticmethod(function), "name": name})
