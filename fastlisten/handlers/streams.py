"""An async function of (reader, writer) as a handler.

Rules of this file: asyncio's streams, unchanged; one task per connection, which ends with it.
`StreamWriter.start_tls` also works on loops that do not support the core's connections.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastlisten.handlers.base import ConnectionInfo, Handler

__all__ = ["StreamHandler", "stream_handler"]

logger = logging.getLogger("fastlisten")

StreamFunction = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: asyncio.start_server's default, in bytes: the longest line, and half of what is read ahead.
_LIMIT = 65536


class _LoopForStreams:
    """A proxy of the running loop for the streams of one connection, with another `start_tls`.

    StreamWriter.start_tls calls its loop, and uvloop's and asyncio's loops reject transports that
    they did not create.

    Attributes:
        failure: the error of a failed handshake, None if there was none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def start_tls(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        **options: Any,
    ) -> asyncio.Transport:
        # Imported here so that importing handlers does not load native modules.
        from fastlisten.loop.start_tls import start_tls

        try:
            new = await start_tls(transport, protocol, sslcontext, **options)
        except Exception as error:
            self.failure = error
            raise
        return cast(asyncio.Transport, new)


class StreamHandler(Handler):
    """Runs `function` in a task for each connection; the client may send first."""

    function: StreamFunction

    def __init__(self, settings: object) -> None:
        super().__init__(settings)  # type: ignore[arg-type]
        self._tasks: set[asyncio.Task[None]] = set()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return a stream protocol whose callback starts the task."""
        streams_loop = _LoopForStreams(asyncio.get_running_loop())
        loop = cast(asyncio.AbstractEventLoop, streams_loop)
        reader = asyncio.StreamReader(limit=_LIMIT, loop=loop)
        start = functools.partial(self._start, streams_loop)
        return asyncio.StreamReaderProtocol(reader, start, loop=loop)

    def _start(
        self, loop: _LoopForStreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._run(loop, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(
        self, loop: _LoopForStreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await type(self).function(reader, writer)
        except Exception as error:
            # Not the function's fault if the peer disconnects or TLS fails.
            peers = isinstance(error, ConnectionError) or error is loop.failure
            if not peers and error is not reader.exception():
                logger.exception(
                    'listener "%s": %s failed', self.settings.listener, type(self).__name__
                )
        finally:
            writer.close()

    async def stop(self) -> None:
        """Cancel the tasks that outlived their connections, and wait for them."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stream_handler(function: StreamFunction) -> type[Handler]:
    """Return a handler class that runs an async function of (reader, writer)."""
    name = getattr(function, "__name__", "function")
    return type(name, (StreamHandler,), {"function": staticmethod(function), "name": name})
