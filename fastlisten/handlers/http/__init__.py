"""http: an ASGI application, or the management application, on one listener.

settings        the rows of `[http]`; checks is about several of them
handler         one listener; service is what its connections share
  application   from `app = "package.module:name"` to an application
  lifespan      its start and its end
  protocol      one connection
    reader      its input: head, body
    exchange    one request: scope, response, forwarded
    websocket   one websocket: websocket_wire, pings, denial
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
