# TLS on the descriptor as Python sees it; docstrings are in _tls.pyx.

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Never

from typing_extensions import disjoint_base

from fastlisten._arena import Places
from fastlisten._connection import Connection, ConnectionAcceptor, Security
from fastlisten._core import Engine, OptionBatch, _AcceptorOwner

def calls_openssl() -> bool: ...
def set_alpn(context: ssl.SSLContext, protocols: Sequence[str]) -> bool: ...
def use_memory(wanted: bool) -> bool: ...

@disjoint_base
class TlsSettings(Security):
    @property
    def context(self) -> ssl.SSLContext: ...
    @property
    def handshake_timeout(self) -> float: ...
    @property
    def shutdown_timeout(self) -> float: ...
    @property
    def handshakes(self) -> int: ...
    @property
    def in_progress(self) -> int: ...
    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        handshake_timeout: float = 60.0,
        shutdown_timeout: float = 30.0,
        handshakes: int = 1024,
    ) -> None: ...
    def attach(
        self,
        acceptor: ConnectionAcceptor,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
    ) -> asyncio.Future[TlsConnection]: ...

@disjoint_base
class Buffers: ...

@disjoint_base
class TlsConnection(Connection):
    def start_tls(self, settings: Any) -> Never: ...
    def _waited(self, waiter: asyncio.Future[TlsConnection]) -> None: ...
    def _deliver(self) -> None: ...

@disjoint_base
class TlsAcceptor(ConnectionAcceptor):
    @property
    def tls(self) -> TlsSettings: ...
    def __init__(
        self,
        engine: Engine,
        sock: socket.socket,
        factory: Callable[..., asyncio.BaseProtocol],
        *,
        tls: TlsSettings,
        greeting: bytes = b"",
        first_byte: float = 0.0,
        lazy: bool = False,
        server: _AcceptorOwner | None = None,
        listener: Any = None,
        with_connection: bool = False,
        places: Places | None = None,
        options: OptionBatch | None = None,
        server_first: bool = False,
        wait: bool = False,
        refusal: bytes = b"",
        overload: bytes = b"",
        farewell_first_byte: bytes = b"",
        farewell_idle: bytes = b"",
        farewell_shutdown: bytes = b"",
        linger: float = 0.0,
        idle: float = 0.0,
        notice_loss: bool = False,
        own_queue: bool = False,
    ) -> None: ...
