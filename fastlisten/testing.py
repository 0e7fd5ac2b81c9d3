"""Serves a handler in tests: on a port on loopback, with a certificate, while a block runs.

Rules of this file: it uses the same listener code as `fastlisten serve`, and the TLS contexts of a
configuration with default TLS settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastlisten._arena import Arena
from fastlisten._tls import TlsSettings
from fastlisten.addresses import with_port
from fastlisten.config import loads
from fastlisten.handlers.base import Handler, HandlerSettings
from fastlisten.handlers.registry import handler_class
from fastlisten.loop.engines import engine_for
from fastlisten.runtime.drain import drain
from fastlisten.runtime.listener import ConnectionPolicy, Listener
from fastlisten.runtime.sockets.opening import listen_all, open_all
from fastlisten.runtime.tls.contexts import ContextSettings
from fastlisten.runtime.tls.pem import KeyPair
from fastlisten.runtime.tls.self_signed import generate

__all__ = ["Served", "serve"]


@dataclass(frozen=True, slots=True)
class Served:
    """What `serve` yields.

    Attributes:
        host: the address to connect to.
        port: the port to connect to.
        listener: the listener, with its state and counters.
        handler: the handler instance.
        client_context: a context for clients that trusts the server's certificate, which is valid
            for `host` and ``localhost``; None without TLS.
    """

    host: str
    port: int
    listener: Listener
    handler: Handler
    client_context: ssl.SSLContext | None = None


@functools.cache
def _pair() -> KeyPair:
    """Return the certificate and key that all servers in this process use."""
    return generate("test.example")


def _client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=_pair().cert.decode())


@contextlib.asynccontextmanager
async def serve(
    handler: type[Handler] | Handler | str | Callable[..., Awaitable[None]],
    *,
    tls: Literal["implicit", "starttls"] | None = None,
    host: Literal["127.0.0.1", "::1"] = "127.0.0.1",
    max_connections: int = 100,
    limit_action: Literal["refuse", "wait"] = "refuse",
    linger: float = 0.0,
    first_byte_timeout: float = 0.0,
    idle_timeout: float = 0.0,
    drain_timeout: float = 5.0,
    data_directory: str = "",
    options: Mapping[str, Any] | None = None,
) -> AsyncIterator[Served]:
    """Serve a handler on an ephemeral port of the running loop while the block runs.

    Args:
        handler: a handler class, an instance, an async function of (reader, writer), a protocol
            name, or ``"package.module:Class"``.
        tls: ``implicit``: TLS from the first byte; ``starttls``: the handler's settings have the
            argument for `Connection.start_tls` (settings of a handler instance are replaced).
            Either needs the extra ``tls``.
        host: loopback address.
        max_connections: as in the configuration.
        limit_action: as in the configuration.
        linger: seconds, as `socket.linger`.
        first_byte_timeout: seconds, 0 for no limit.
        idle_timeout: seconds, 0 for no limit.
        drain_timeout: seconds that busy connections may take to finish at the end of the block.
        data_directory: where the handler keeps its data; a temporary directory if empty.
        options: values of the handler's own options, by key without the protocol's prefix.

    Raises:
        MissingLibraryError: TLS needs the package `cryptography`, which is not installed.
    """
    bind = with_port(host, 0)
    config = loads(f'[server.listener.test]\nprotocol = "smtp"\nbind = "{bind}"\n')
    with contextlib.ExitStack() as stack:
        directory = data_directory or stack.enter_context(tempfile.TemporaryDirectory())
        sockets = open_all(config.listeners)
        stack.callback(sockets[0].close)
        settings = None
        given = handler if isinstance(handler, Handler) else handler_class(handler)
        if tls is not None:
            settings = TlsSettings(ContextSettings(alpn=given.alpn).context(_pair()))
        starttls = settings if tls == "starttls" else None
        if isinstance(given, Handler):
            handler = given
            if tls is not None:
                handler.settings = dataclasses.replace(
                    handler.settings,
                    tls_implicit=tls == "implicit",
                    tls_available=starttls is not None,
                    tls=starttls,
                )
        else:
            handler = given(
                HandlerSettings(
                    listener="test",
                    protocol=given.name,
                    hostname="test.example",
                    tls_implicit=tls == "implicit",
                    tls_available=starttls is not None,
                    tls=starttls,
                    port=sockets[0].port,
                    data_directory=directory,
                    options=dict(options or {}),
                )
            )
        port = sockets[0].port
        policy = ConnectionPolicy(
            wait=limit_action == "wait",
            linger=linger,
            first_byte=first_byte_timeout,
            idle=idle_timeout,
        )
        listener = Listener(
            "test", handler, sockets, policy, settings if tls == "implicit" else None
        )
        arena = Arena(1, 1)
        places = arena.places(0, arena.join())
        places.limit = max_connections
        await handler.start()
        engine = engine_for(asyncio.get_running_loop())
        try:
            listen_all(sockets)
            listener.listen(engine, places)
            yield Served(host, port, listener, handler, _client_context() if tls else None)
        finally:
            await drain((listener,), drain_timeout)
            await handler.stop()
            if engine.idle:
                engine.close()
