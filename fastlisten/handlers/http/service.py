"""What the connections of an http listener share.

Rules of this file: settings, and the set of connections and of their tasks; no input or output.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import types
from collections.abc import Coroutine, Generator, Mapping
from functools import partial
from typing import Any, Protocol

from fastlisten.handlers.http.asgi import Application
from fastlisten.handlers.http.forwarded import TrustedProxies
from fastlisten.handlers.http.head import HeadReader
from fastlisten.log_events import log
from fastlisten.log_throttle import Throttle

__all__ = ["Service", "begun"]

logger = logging.getLogger("fastlisten.http")

#: The largest message of a websocket if bodies have no limit: uvicorn's default, in bytes. Unlike a
#: body, a message is kept in memory as a whole.
_WEBSOCKET_MESSAGE = 16 * 1024 * 1024

#: The status if the application does not respond.
_FAILED = 500


@types.coroutine
def begun() -> Generator[None, None, None]:
    """Suspend once; see `Service.run`."""
    yield


class ServedConnection(Protocol):
    """A connection as the service knows it: HTTP or a websocket."""

    name: str

    def drain(self) -> None:
        """Let the connection close after what it is doing."""


class Service:
    """The settings of a listener and what its connections share.

    Args:
        app: the application.
        shared: what its lifespan has put into ``state``.
        options: the handler's rows, typed.
        listener: id of the listener.

    Attributes:
        app: as given.
        shared: as given.
        connections: the open connections.
        tasks: the tasks in which the application runs, one per request.
        heads: parses the heads of requests.
        max_head: bytes of a request's head.
        max_body: bytes of a request's body, None for no limit.
        max_message: bytes of a websocket's message.
        header_timeout: seconds for a request's head.
        access_log: each request is logged.
        proxies: proxies whose headers are trusted, or None.
        websockets: the package `websockets` is installed.
        draining: no connection accepts further requests.
        refusals: throttles the log of requests that the server itself refuses, if there is no
            access log.
    """

    def __init__(
        self, app: Application, shared: dict[str, Any], options: Mapping[str, Any], listener: str
    ) -> None:
        self.app = app
        self.shared = shared
        self.connections: set[ServedConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.heads = HeadReader()
        self.max_head: int = options["max-header-size"]
        self.max_body: int | None = options["max-body-size"]
        self.max_message = _WEBSOCKET_MESSAGE if self.max_body is None else self.max_body
        self.header_timeout: float = options["header-timeout"]
        self.access_log: bool = options["access-log"]
        networks = options["trusted-proxies"]
        self.proxies = TrustedProxies(networks) if networks else None
        self.websockets = importlib.util.find_spec("websockets") is not None
        self.draining = False
        self.refusals = Throttle(partial(_tell_omitted, listener))
        self._create_task = asyncio.get_running_loop().create_task

    def run(self, serving: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the application for one request.

        Args:
            serving: awaits `begun` first, because nothing runs in a coroutine that has not begun
                when its task is cancelled: the request would never be answered.

        Returns:
            its task; it must be discarded from `tasks` when it ends. `serving` can do that at a
            lower cost than a callback, for which the loop has to run once more.
        """
        serving.send(None)
        task = self._create_task(serving)
        # An application may have given the loop a factory whose tasks start at once.
        if not task.done():
            self.tasks.add(task)
        return task

    def wants_refusal(self, status: int, *, logged: bool) -> bool:
        """Return whether a refusal by the server needs a log line of its own.

        Args:
            status: the response's status.
            logged: the request has its line in the access log.
        """
        if self.access_log:
            return not logged
        # A failure of the application has a line of its own.
        return status != _FAILED and self.refusals.allows(str(status))

    def drain(self) -> None:
        """Let each connection close after its current response."""
        self.draining = True
        for connection in tuple(self.connections):
            try:
                connection.drain()
            except Exception:
                # A failure of one connection must not affect the others.
                logger.exception("%s: the connection could not be drained", connection.name)


def _tell_omitted(listener: str, status: str, count: int) -> None:
    log(
        logger,
        logging.INFO,
        "rejections-omitted",
        'listener "%s": %d more refused requests are not shown: %s',
        listener,
        count,
        status,
        listener=listener,
        reason=status,
        count=count,
    )
