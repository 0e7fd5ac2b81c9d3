"""A served handler for tests: a port on loopback for as long as a block runs.

Rules of this file: what it serves goes through the same listener code as `fastlisten serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastlisten._core import Arena
from fastlisten.config import loads
from fastlisten.handlers.base import Handler, HandlerSettings
from fastlisten.handlers.registry import handler_class
from fastlisten.runtime.listener import Limits, Listener
from fastlisten.runtime.loop import engine_for
from fastlisten.runtime.sockets import listen_all, open_all

__all__ = ["Served", "serve"]


@dataclass(frozen=True, slots=True)
class Served:
    """What `serve` gives to a test.

    Attributes:
        host: the address to connect to.
        port: the port to connect to.
        listener: the listener, with its state and counters.
        handler: the handler instance.
    """

    host: str
    port: int
    listener: Listener
    handler: Handler


@contextlib.asynccontextmanager
async def serve(
    handler: type[Handler] | Handler | str | Callable[..., Awaitable[None]],
    *,
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
        host: loopback address.
        max_connections: as in the configuration.
        limit_action: as in the configuration.
        linger: seconds, as `socket.linger`.
        first_byte_timeout: seconds, 0 for ever.
        idle_timeout: seconds, 0 for ever.
        drain_timeout: seconds that busy connections may take at the end of the block.
        data_directory: where the handler keeps its data; a temporary directory if empty.
        options: the handler's own rows, by key without the protocol's prefix.
    """
    bind = f"[{host}]:0" if ":" in host else f"{host}:0"
    config = loads(f'[server.listener.test]\nprotocol = "smtp"\nbind = "{bind}"\n')
    with contextlib.ExitStack() as stack:
        directory = data_directory or stack.enter_context(tempfile.TemporaryDirectory())
        sockets = open_all(config.listeners)
        stack.callback(sockets[0].close)
        if not isinstance(handler, Handler):
            kind = handler_class(handler)
            handler = kind(
                HandlerSettings(
                    listener="test",
                    protocol=kind.name,
                    hostname="test.example",
                    port=sockets[0].port,
                    data_directory=directory,
                    options=dict(options or {}),
                )
            )
        port = sockets[0].port
        limits = Limits(
            wait=limit_action == "wait",
            linger=linger,
            first_byte=first_byte_timeout,
            idle=idle_timeout,
        )
        listener = Listener("test", handler, sockets, limits)
        arena = Arena(1, 1)
        places = arena.places(0, arena.join())
        places.limit = max_connections
        await handler.start()
        engine = engine_for(asyncio.get_running_loop())
        try:
            listen_all(sockets)
            listener.listen(engine, places)
            yield Served(host, port, listener, handler)
        finally:
            # Looked at again every 10 ms: nothing tells when a protocol stops being busy.
            for _ in range(max(1, round(drain_timeout / 0.01))):
                if not listener.drain():
                    break
                await asyncio.sleep(0.01)
            listener.abort()
            await listener.closed()
            await handler.stop()
            if engine.idle:
                engine.close()
