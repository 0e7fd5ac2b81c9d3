"""What is the same for all connections of an http listener.

Rules of this file: nothing is started here but the tasks of requests, which are counted.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from fastlisten.handlers.http.asgi import Application
from fastlisten.handlers.http.forwarded import TrustedProxies
from fastlisten.log_events import log
from fastlisten.log_throttle import Throttle

__all__ = ["Service"]

logger = logging.getLogger("fastlisten.http")

#: The largest message of a websocket where bodies have no limit: uvicorn's default, in bytes.
#: A message is held whole in memory, unlike a body.
_WEBSOCKET_MESSAGE = 16 * 1024 * 1024

#: The status of what the application has left without an answer.
_FAILED = 500


class Served(Protocol):
    """A connection as the service knows it: one of HTTP or a websocket."""

    name: str

    def drain(self) -> None:
        """Let the connection end with what it is at."""


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
        connections: those that there are.
        tasks: of requests: the application runs.
        max_head: bytes of a request's head.
        max_body: bytes of a request's body, None for no limit.
        max_message: bytes of a message of a websocket.
        header_timeout: seconds for a request's head.
        access_log: a line for each request.
        proxies: those whose headers are believed, or None if there are none.
        websockets: the package that knows them is installed.
        draining: no further request is taken on any connection.
        refusals: bounds the lines about requests that the server itself has refused, where there
            is no line for each request.
    """

    def __init__(
        self, app: Application, shared: dict[str, Any], options: Mapping[str, Any], listener: str
    ) -> None:
        self.app = app
        self.shared = shared
        self.connections: set[Served] = set()
        self.tasks: set[asyncio.Task[None]] = set()
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

    def run(self, serving: Coroutine[Any, Any, None]) -> None:
        """Run the application for one request."""
        task = self._create_task(serving)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def wants_refusal(self, status: int, *, logged: bool) -> bool:
        """Whether a refusal of the server's own is to be logged by itself.

        Args:
            status: of the answer.
            logged: it was the answer to a request that has its line in the access log.
        """
        if self.access_log:
            return not logged
        # A failure of the application has a line of its own.
        return status != _FAILED and self.refusals.allows(str(status))

    def drain(self) -> None:
        """Let each connection end with the response that it is at."""
        self.draining = True
        for connection in tuple(self.connections):
            try:
                connection.drain()
            except Exception:
                # What is wrong with one of them must not keep the others from being told.
                logger.exception("%s: it could not be closed", connection.name)


def _tell_omitted(listener: str, status: str, count: int) -> None:
    log(
        logger,
        logging.INFO,
        "rejections-omitted",
        'listener "%s": %d more requests were refused that are not shown: %s',
        listener,
        count,
        status,
        listener=listener,
        reason=status,
        count=count,
    )
