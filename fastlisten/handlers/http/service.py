"""What is the same for all connections of an http listener, in the form that uvicorn wants.

Rules of this file: nothing is started here. uvicorn's own configuration is made so that it sets
up nothing of its own: no logging, no loop, no environment, no headers but Date.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from fastlisten.handlers.http.exchange import Application
from fastlisten.handlers.http.protocol import HttpProtocol
from fastlisten.handlers.http.websocket import AVAILABLE, WebSocket
from fastlisten.log_events import log
from fastlisten.log_throttle import Throttle

__all__ = ["Service"]

logger = logging.getLogger("fastlisten.http")

#: The largest message of a websocket where bodies have no limit: uvicorn's default, in bytes.
#: A message is held whole in memory, unlike a body.
_WEBSOCKET_MESSAGE = 16 * 1024 * 1024


#: The status of what the application has left without an answer.
_FAILED = 500


class _State(ServerState):
    """uvicorn's record of a server, with a Date that is made once a second."""

    _second = 0
    _date: list[tuple[bytes, bytes]]

    def __init__(self) -> None:
        super().__init__()
        self._date = []

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that every response begins with (RFC 9110 6.6.1)."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._date = [(b"date", formatdate(now, usegmt=True).encode())]
        return self._date

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Ignore what uvicorn begins with."""


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
        config: uvicorn's.
        state: uvicorn's: connections and tasks.
        max_head: bytes of a request's head.
        max_body: bytes of a request's body, None for no limit.
        header_timeout: seconds for a request's head.
        access_log: a line for each request.
        draining: no further request is taken on any connection.
        refusals: bounds the lines about requests that the server itself has refused, where there
            is no line for each request.
    """

    def __init__(
        self, app: Application, shared: dict[str, Any], options: Mapping[str, Any], listener: str
    ) -> None:
        self.app = app
        self.shared = shared
        self.max_head: int = options["max-header-size"]
        self.max_body: int | None = options["max-body-size"]
        self.header_timeout: float = options["header-timeout"]
        self.access_log: bool = options["access-log"]
        self.draining = False
        self.refusals = Throttle(partial(_tell_omitted, listener))
        self.state = _State()
        largest = _WEBSOCKET_MESSAGE if self.max_body is None else self.max_body
        self.config = _uvicorn_config(app, largest)

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
        for connection in tuple(self.state.connections):
            if isinstance(connection, HttpProtocol):
                if connection.cycle is not None:
                    connection.cycle.keep_alive = False
            elif isinstance(connection, WebSocket):
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


def _uvicorn_config(app: Application, message_size: int) -> Config:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        # uvicorn calls what it is given without arguments, to see whether it is a factory.
        await app(scope, receive, send)

    config = Config(
        application,
        http=HttpProtocol,
        ws=WebSocket if AVAILABLE else "none",
        ws_max_size=message_size,
        lifespan="off",
        log_config=None,
        interface="asgi3",
        # Else they come from the environment.
        workers=1,
        forwarded_allow_ips="",
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    config.load()
    return config
