"""The http handler: an ASGI application, or the management application, on one listener.

Rules of this file: refusals, the application's start and end, the drain. Modules that need
httptools are imported when a handler is made; a missing library is reported with the extra that
installs it. protocol.py handles connections.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason, SettingError
from fastlisten.handlers.http.client_setup import ClientSetup, nothing
from fastlisten.handlers.http.settings import HTTP

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlisten.handlers.http.asgi import Application
    from fastlisten.handlers.http.lifespan import Lifespan
    from fastlisten.handlers.http.service import Service

__all__ = ["HttpHandler"]

logger = logging.getLogger("fastlisten.http")

#: How many seconds tasks that applications have started may run after the last connection has
#: closed: background tasks after a response, and requests whose client has disconnected. Then they
#: are cancelled. This is in addition to `server.shutdown-timeout`.
_TASK_PATIENCE = 5.0

#: Packages of the extra `http` that are imported here or by the management application.
_LIBRARIES = ("httptools", "starlette", "prometheus_client")

#: Seconds after which a refused client may try again.
_RETRY_AFTER = 1


class HttpHandler(Handler):
    """HTTP/1.1 (RFC 9110 and 9112) and websockets (RFC 6455) for one listener.

    The application is `settings.extra["app"]`: a name as `app` has it in a configuration, or, for
    programs that use the handler as a library, the application itself. Without it the management
    application is served.
    """

    name: ClassVar[str] = HTTP.name
    default_port: ClassVar[int] = HTTP.port
    default_tls_port: ClassVar[int] = HTTP.tls_port
    lazy: ClassVar[bool] = True
    # Both are registered with IANA, and curl --http1.0 offers the older one.
    alpn: ClassVar[tuple[str, ...]] = ("http/1.1", "http/1.0")
    options = HTTP.options

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self._values = self.settings.options
        app = settings.extra.get("app")
        self._setup: str = self._values["autoconfig"]
        if self._setup == "only":
            app = nothing
        name, self._make = settings.kept.get("app", (None, None))
        if self._make is None or name != app:
            self._make = _application_maker(app)
            # A handler that a reload makes with other settings serves the same application.
            settings.kept["app"] = (app, self._make)
        self._lifespan: Lifespan | None = None
        self._service: Service | None = None

    def refusal(self, reason: Reason) -> bytes:
        """Return the response to a rejected client (RFC 9110 15.5.4, 15.6.4, RFC 6585 4)."""
        status = {
            Reason.RATE: "429 Too Many Requests",
            Reason.ADDRESS: "429 Too Many Requests",
            Reason.DENIED: "403 Forbidden",
        }.get(reason, "503 Service Unavailable")
        again = "" if reason is Reason.DENIED else f"Retry-After: {_RETRY_AFTER}\r\n"
        body = status.partition(" ")[2] + "\n"
        return (
            f"HTTP/1.1 {status}\r\n{again}Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        ).encode()

    def farewell(self, reason: Reason) -> bytes:
        """Return nothing, because a client would take it for the response to its next request.

        Clients expect connections to close between requests (RFC 9112 9.5). A client whose head is
        incomplete gets 408 from the connection.
        """
        return b""

    def notes(self) -> tuple[str, ...]:
        """Return a warning if bodies have no limit."""
        notes = []
        if self._values["max-body-size"] is None:
            notes.append("request bodies have no size limit")
        return tuple(notes)

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object for one connection."""
        from fastlisten.handlers.http.protocol import HttpProtocol

        return HttpProtocol(self.service, info)

    @property
    def service(self) -> Service:
        """What connections share.

        Raises:
            RuntimeError: the handler has not been started.
        """
        if self._service is None:
            raise RuntimeError("the handler has not been started")
        return self._service

    async def start(self) -> None:
        """Start the application.

        Raises:
            LifespanError: it could not start.
        """
        from fastlisten.handlers.http.lifespan import Lifespan
        from fastlisten.handlers.http.service import Service

        app = self._make(self.settings)
        # The management application relies on lifespan; the option is for other applications.
        mode = self._values["lifespan"]
        if self._setup == "only":
            mode = "off"
        elif self.settings.extra.get("app") is None:
            mode = "on"
        self._lifespan = await Lifespan.enter(app, mode)
        if self._setup != "off":
            services = self.settings.extra.get("client-services", ())
            app = ClientSetup(app, services, self.settings.hostname)
        self._service = Service(app, self._lifespan.shared, self._values, self.settings.listener)

    def drain(self) -> None:
        """Let every connection close after its current response."""
        if self._service is not None:
            self._service.drain()

    async def stop(self) -> None:
        """Wait a while for the application's remaining tasks, then end the application.

        Raises:
            LifespanError: the application could not end.
        """
        if self._service is not None:
            service, self._service = self._service, None
            service.refusals.close()
            await _finish(set(service.tasks), self.settings.listener)
        if self._lifespan is not None:
            lifespan, self._lifespan = self._lifespan, None
            await lifespan.leave()


async def _finish(tasks: set[asyncio.Task[None]], listener: str) -> None:
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=_TASK_PATIENCE)
    if late:
        what = "1 task" if len(late) == 1 else f"{len(late)} tasks"
        logger.warning(
            'listener "%s": cancelling %s that the application left running', listener, what
        )
        for task in late:
            task.cancel()
        await asyncio.wait(late, timeout=_TASK_PATIENCE)


def _application_maker(app: Any) -> Callable[[HandlerSettings], Application]:
    """Import the application; return a function that gives it when the handler starts.

    Raises:
        SettingError: it cannot be imported, or the libraries are missing.
    """
    management = app is None
    for library in _LIBRARIES[: None if management else 1]:
        try:
            importlib.import_module(library)
        except ModuleNotFoundError as error:
            if error.name != library:
                raise
            text = f'http needs the package {library}: pip install "fastlisten[http]"'
            raise SettingError("", text) from error
    if management:
        # By name, because the management application imports handlers.
        module, _, attribute = HTTP.default_app.partition(":")
        maker: Callable[[HandlerSettings], Application] = getattr(
            importlib.import_module(module), attribute
        )
        return maker
    from fastlisten.handlers.http.application import load_application

    found: Application = load_application(app) if isinstance(app, str) else app
    return functools.partial(_given, found)


def _given(app: Application, settings: HandlerSettings) -> Application:
    return app
