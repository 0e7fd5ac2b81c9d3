"""http: an ASGI application, or the management of the server, on one listener.

settings        the rows of `[http]`
handler         what all connections of a listener share
  protocol      one connection; below it framing, exchange, websocket
  application   from `app = "package.module:name"` to an application
  lifespan      its start and its end
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlisten.handlers.http.handler import HttpHandler

__all__ = ["HttpHandler"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.handler"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
