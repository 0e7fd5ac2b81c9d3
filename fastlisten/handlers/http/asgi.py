"""ASGI's types, and the error that it wants for clients that have gone.

Rules of this file: names only.
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
    """The application sends to a client that has gone (ASGI 2.4 wants an OSError)."""
