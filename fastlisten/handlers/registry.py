"""Finds the handler class of a protocol.

Rules of this file: a handler's module is imported only when a listener needs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastlisten.handlers.base import Handler
from fastlisten.handlers.importing import HandlerNotFoundError, as_handler_class, named_handler
from fastlisten.handlers.installed import ProtocolError, installed_protocols

__all__ = ["handler_class", "registered_handler"]


def registered_handler(protocol: str) -> type[Handler]:
    """Return the handler class of a protocol.

    Args:
        protocol: its name, in upper or lower case.

    Raises:
        HandlerNotFoundError: there is none, or its module cannot be imported.
    """
    name = protocol.lower()
    try:
        found = installed_protocols().find(name)
    except ProtocolError as error:
        raise HandlerNotFoundError(str(error)) from error
    if found is None or not found.handler:
        raise HandlerNotFoundError(f"no handler is installed for protocol {protocol!r}")
    return named_handler(found.handler)


def handler_class(
    what: type[Handler] | str | Callable[..., Awaitable[None]],
) -> type[Handler]:
    """Return a handler class for a class, a name, or an async function of (reader, writer)."""
    if isinstance(what, str):
        return named_handler(what) if ":" in what else registered_handler(what)
    return as_handler_class(what, getattr(what, "__qualname__", repr(what)))
