"""Serves an aiosmtpd handler on the running loop: `serve_smtp`, and what controllers build on.

Rules of this file: from aiosmtpd's keyword arguments to a listening server, and to its end; no
threads, no loop of its own.

Keyword arguments that aiosmtpd does not have:

    protocol         "lmtp" for LMTP (which is a class of its own in aiosmtpd)
    max_connections  the connection limit; further clients get 421
    max_recipients, max_errors    see aiosmtpd_parameters.py
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastlisten._tls import TlsSettings
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_parameters import AiosmtpdParameters
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_session import AiosmtpdSession
from fastlisten.handlers.smtp.aiosmtpd.hook_server import HookServer
from fastlisten.handlers.smtp.aiosmtpd.served_handler import Authenticate, ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import AuthResult
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.hostnames import local_fqdn
from fastlisten.loop.connection_server import ConnectionServer
from fastlisten.loop.create_server import create_server
from fastlisten.mail.counts import Counts

__all__ = ["SmtpService", "serve_smtp"]

#: Seconds that clients have to read the last replies when a server stops.
FAREWELL = 1.0


def _authenticate_of(parameters: AiosmtpdParameters) -> Authenticate | None:
    """Return the authenticator of PLAIN and LOGIN, None if there is none."""
    callback = parameters.auth_callback
    if parameters.authenticator is not None or callback is None:
        return parameters.authenticator

    def authenticate(
        server: Any, session: Any, envelope: Any, mechanism: str, auth_data: Any
    ) -> Any:
        success = bool(callback(mechanism, *auth_data))
        return AuthResult(success=success, handled=success, auth_data=auth_data)

    return authenticate


class SmtpService:
    """A handler with its parameters, ready to be served.

    Args:
        handler: an aiosmtpd handler.
        given: the keyword arguments: those of aiosmtpd's SMTP class, and ours.
        ssl_context: for TLS from the first byte.
        server_hostname: the name that the server calls itself, None for this host's.

    Attributes:
        served: the handler, as its connections use it.
        newest: what the hooks of the newest connection get as `server`; None before the first.
    """

    def __init__(
        self,
        handler: Any,
        given: dict[str, Any],
        ssl_context: ssl.SSLContext | None,
        server_hostname: str | None,
    ) -> None:
        given = dict(given)
        if "server_kwargs" in given:
            warnings.warn(
                "server_kwargs: pass what is in it as keyword arguments",
                DeprecationWarning,
                stacklevel=4,
            )
            given = given.pop("server_kwargs") | given
        if server_hostname:
            given["hostname"] = server_hostname
        given.setdefault("enable_SMTPUTF8", True)  # as aiosmtpd's controllers do
        protocol: Literal["smtp", "lmtp"] = given.pop("protocol", "smtp")
        if protocol not in ("smtp", "lmtp"):
            raise ValueError(f"protocol is 'smtp' or 'lmtp', not {protocol!r}")
        self.max_connections: int | None = given.pop("max_connections", None)
        self.ssl_context = ssl_context
        self.newest: HookServer | None = None
        parameters = self.parameters = AiosmtpdParameters.read(given)
        if parameters.require_starttls and not (parameters.tls_context or ssl_context):
            raise TypeError("require_starttls needs a tls_context")
        context = parameters.tls_context
        self.served = ServedHandler(
            handler,
            parameters,
            parameters.hostname or local_fqdn(),
            protocol=protocol,
            tls=None if context is None or ssl_context is not None else TlsSettings(context),
            authenticate=_authenticate_of(parameters),
            session_log=SessionLog("aiosmtpd", Counts()),
        )

    def _connect(self) -> EngineProtocol:
        session = AiosmtpdSession(self.served)
        self.newest = session.server
        return EngineProtocol(session)

    async def serve(
        self,
        host: str | None = None,
        port: int | None = None,
        sock: socket.socket | None = None,
    ) -> ConnectionServer:
        """Serve on the running loop."""
        served = self.served
        text = f"{served.hostname} Too many connections; try again later"
        return await create_server(
            self._connect,
            host,
            port,
            sock=sock,
            ssl=self.ssl_context,
            max_connections=self.max_connections,
            # With TLS from the first byte there has been no handshake yet.
            refusal=b"" if self.ssl_context is not None else reply(421, "", text),
            lazy=True,
            greeting=served.greeting,
            first_byte_timeout=self.parameters.timeout,
            idle_timeout=self.parameters.timeout,
            notice_loss=True,
            farewell_idle=reply(421, "", f"{served.hostname} Timeout; closing connection"),
            farewell_shutdown=reply(421, "", f"{served.hostname} Shutting down; try again later"),
        )

    async def end(self, server: ConnectionServer) -> None:
        """Stop serving; connections that do not end in time are aborted."""
        server.close()
        server.close_clients()
        try:
            await asyncio.wait_for(server.wait_closed(), FAREWELL)
        except TimeoutError:
            server.abort_clients()
            await server.wait_closed()
        self.served.close()
        self.newest = None
        # Cancelled hooks and the spare task end in the next iteration of the loop.
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def serve_smtp(
    handler: Any,
    host: str | None = "127.0.0.1",
    port: int = 8025,
    *,
    sock: socket.socket | None = None,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    **parameters: Any,
) -> AsyncIterator[ConnectionServer]:
    """Serve an aiosmtpd handler on the running loop while the block runs.

    Args:
        handler: an object with handle_* and auth_* methods.
        host: the address to listen on; None for all interfaces.
        port: 0 for an ephemeral port, which `ConnectionServer.sockets` tells.
        sock: a bound socket instead, TCP or Unix, which the server then owns.
        ssl_context: for TLS from the first byte.
        server_hostname: the name that the server calls itself.
        parameters: those of aiosmtpd's SMTP class, and those at the head of this file.

    Raises:
        TypeError: a parameter is unknown, or the handler cannot be served.
        OSError: it cannot listen.
    """
    service = SmtpService(handler, parameters, ssl_context, server_hostname)
    where: tuple[str | None, int | None] = (host, port) if sock is None else (None, None)
    server = await service.serve(*where, sock)
    try:
        yield server
    finally:
        await service.end(server)
