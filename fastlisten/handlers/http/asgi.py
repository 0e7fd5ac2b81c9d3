"""ASGI's types, and the error that `send` raises when the client has disconnected.

Rules of this file: definitions only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["Application", "ClientGoneError", "Message", "Scope"]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
#: An ASGI 3 application.
Application: TypeAlias = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class ClientGoneError(OSError):
    """The application sends to a client that has disconnected (ASGI 2.4 requires an OSError)."""
