"""The event loop methods for server-side connections, on the native core.

Rules of this file: asyncio's methods, with the signatures of the newest Python, and nothing else.
They are mixed into loop classes (event_loop.py, uvloop_loop.py), which do everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from ssl import SSLContext, SSLSocket
from typing import Any

from fastlisten._connection import ConnectionAcceptor
from fastlisten._tls import TlsSettings
from fastlisten.loop import start_tls
from fastlisten.loop.connection_server import ConnectionServer
from fastlisten.loop.create_server import serve, take_sockets
from fastlisten.loop.engines import engine_for, existing_engine
from fastlisten.loop.listening_sockets import bind_unix, inode_of, set_nodelay
from fastlisten.loop.sendfile import sendfile
from fastlisten.loop.tls_arguments import check_timeouts, shared_settings, tls_of

__all__ = ["ServerMethods"]

logger = logging.getLogger("asyncio")

_Factory = Callable[[], asyncio.BaseProtocol]

#: asyncio's default for `cleanup_socket`.
CLEANS_UP = sys.version_info >= (3, 13)
#: Before 3.15 the callbacks see context variables set by the factory of `connect_accepted_socket`.
FACTORY_OUTSIDE = sys.version_info >= (3, 15)


@functools.cache
def failed_accept_closes() -> bool:
    """Tell whether asyncio's connect_accepted_socket closes the socket when it fails.

    The fix was backported (CPython issue 153133), so the version number does not tell. This tries
    it out with a fake socket.
    """

    class Probe:
        closed = False

        def setblocking(self, flag: bool) -> None:
            """Do nothing."""

        def close(self) -> None:
            """Note that it was called."""
            self.closed = True

    def factory() -> asyncio.Protocol:
        raise ZeroDivisionError

    probe = Probe()
    # The factory fails before the loop is used, so there is no need for one.
    function: Any = asyncio.BaseEventLoop._create_connection_transport  # type: ignore[attr-defined]
    with contextlib.suppress(ZeroDivisionError):
        function(None, probe, factory, None, "", server_side=True).send(None)
    return probe.closed


class ServerMethods(asyncio.AbstractEventLoop):
    """A mixin for loop classes; comes first among the bases, so that its methods replace theirs."""

    #: Takes over the sockets given to `connect_accepted_socket`; created at the first call.
    _taker: ConnectionAcceptor | None = None

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: _Factory,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: SSLContext | None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> ConnectionServer:
        """Create a TCP server on the core (asyncio's `loop.create_server`)."""
        tls = tls_of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        sockets = await take_sockets(
            self, host, port, family, flags, sock, reuse_address, reuse_port
        )
        return await self._serve(
            ConnectionServer(self, sockets, backlog, as_asyncio=True),
            protocol_factory,
            tls,
            keep_alive=keep_alive,
            start=start_serving,
        )

    async def create_unix_server(  # type: ignore[override]
        self,
        protocol_factory: _Factory,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = CLEANS_UP,
    ) -> ConnectionServer:
        """Create a Unix stream server on the core (asyncio's `loop.create_unix_server`)."""
        tls = tls_of(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = bind_unix(path)
        elif sock is None:
            raise ValueError("path was not specified, and no sock specified")
        elif sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")
        return await self._serve(
            ConnectionServer(
                self,
                [sock],
                backlog,
                as_asyncio=True,
                file=inode_of(sock) if cleanup_socket else None,
            ),
            protocol_factory,
            tls,
            start=start_serving,
        )

    async def _serve(
        self,
        server: ConnectionServer,
        factory: _Factory,
        tls: TlsSettings | None,
        *,
        keep_alive: bool | None = None,
        start: bool,
    ) -> ConnectionServer:
        await serve(server, factory, tls, {}, keep_alive=keep_alive or None, start=start)
        if self.get_debug():
            logger.info("%r is serving", server)
        return server

    async def connect_accepted_socket(
        self,
        protocol_factory: _Factory,
        sock: socket.socket,
        *,
        ssl: SSLContext | bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[Any, Any]:
        """Serve a connection that was accepted elsewhere (`loop.connect_accepted_socket`)."""
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(f"A Stream Socket was expected, got {sock!r}")
        if ssl_handshake_timeout is not None and not ssl:
            raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
        if ssl_shutdown_timeout is not None and not ssl:
            raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
        if isinstance(sock, SSLSocket):
            raise TypeError("Socket cannot be of type SSLSocket")
        transport: Any
        try:
            sock.setblocking(False)
            set_nodelay(sock)
            context = contextvars.copy_context()
            protocol = protocol_factory()
            if not FACTORY_OUTSIDE:
                context = contextvars.copy_context()
            if ssl is True:
                raise ValueError("Server side SSL needs a valid SSLContext")
            check_timeouts(ssl_handshake_timeout, ssl_shutdown_timeout)
            if self._taker is None or self._taker.engine.closed:
                self._taker = ConnectionAcceptor(engine_for(self), None, None)
            if ssl:
                settings = shared_settings(
                    self._taker.engine, ssl, ssl_handshake_timeout, ssl_shutdown_timeout
                )
                transport = context.run(settings.attach, self._taker, sock, protocol)
            else:
                transport = context.run(self._taker.attach, sock, protocol)
        except BaseException:
            if failed_accept_closes():
                sock.close()
            raise
        if ssl:
            handshake, transport = transport, None
            try:
                transport = await handshake
            except asyncio.CancelledError:
                # Cancelling ends an unfinished handshake, but this one had already succeeded.
                if not handshake.cancelled() and handshake.exception() is None:
                    handshake.result().abort()
                raise
        if self.get_debug():
            view = transport.get_extra_info("socket")
            logger.debug("%r handled: (%r, %r)", view, transport, protocol)
        return transport, protocol

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade a connection to TLS (asyncio's `loop.start_tls`)."""
        ours = start_tls.is_ours(transport)
        function: Any = start_tls.start_tls if ours else super().start_tls
        return await function(
            transport,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def sendfile(
        self,
        transport: Any,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a file over a transport (asyncio's `loop.sendfile`)."""
        if start_tls.is_ours(transport):
            return await sendfile(self, transport, file, offset, count, fallback=fallback)
        return await super().sendfile(transport, file, offset, count, fallback=fallback)

    def close(self) -> None:
        """Close the loop; open connections are closed without `connection_lost`."""
        engine = existing_engine(self)
        # If it is running, the base class raises the error.
        if engine is not None and not self.is_running():
            engine.close()
        super().close()
