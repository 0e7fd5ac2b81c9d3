"""From a name to a handler class: `protocol`, `handler = "package.module:Class"`, or a function.

Rules of this file: a handler's module is imported only when a listener needs it, and an import
that fails says which listener's, which module's and why.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable
from importlib.metadata import entry_points
from typing import Any

from fastlisten.errors import FastlistenError
from fastlisten.handlers.base import Handler
from fastlisten.handlers.streams import stream_handler

__all__ = [
    "GROUP",
    "HandlerNotFoundError",
    "explained",
    "handler_class",
    "named_handler",
    "registered_handler",
]

#: The entry-point group in which packages register handlers, by protocol name.
GROUP = "fastlisten.handlers"


# The package's own handlers also work from a source tree that was never installed.
_OWN = {
    "smtp": "fastlisten.handlers.smtp:SmtpHandler",
    "lmtp": "fastlisten.handlers.smtp:LmtpHandler",
    "http": "fastlisten.handlers.http:HttpHandler",
}


class HandlerNotFoundError(FastlistenError):
    """A handler that cannot be found, imported or used; the text says which and why."""


def registered_handler(protocol: str) -> type[Handler]:
    """Return the handler class of a protocol.

    Args:
        protocol: the word as the configuration writes it, in any case.

    Raises:
        HandlerNotFoundError: no such handler, or its module does not import.
    """
    for point in entry_points(group=GROUP):
        if point.name.lower() == protocol.lower():
            return _load(point.value)
    if own := _OWN.get(protocol.lower()):
        return _load(own)
    raise HandlerNotFoundError(f"no handler is installed for protocol {protocol!r}")


def named_handler(name: str) -> type[Handler]:
    """Return the handler class that ``package.module:Class`` names.

    It may also name an async function of (reader, writer).

    Raises:
        HandlerNotFoundError: it does not import, or is neither of the two.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise HandlerNotFoundError(f'handler = {name!r}: write "package.module:Class"')
    return _load(name)


def handler_class(
    what: type[Handler] | str | Callable[..., Awaitable[None]],
) -> type[Handler]:
    """Return a handler class for a class, a name, or an async function of (reader, writer)."""
    if isinstance(what, str):
        return named_handler(what) if ":" in what else registered_handler(what)
    return _as_class(what, getattr(what, "__qualname__", repr(what)))


def explained(error: Exception, module: str) -> str:
    """Return why a module, or what is wanted of it, cannot be had.

    Args:
        error: of the import.
        module: its name; another that is missing is one that it needs.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (module == missing or module.startswith(missing + ".")):
        return f'no module "{missing}"; it must be installed or on PYTHONPATH'
    return str(error)


def _load(name: str) -> type[Handler]:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise HandlerNotFoundError(f"handler {name!r}: {explained(error, module)}") from error
    except Exception as error:
        # The module's own code ran and raised; which module it was matters more than how.
        raise HandlerNotFoundError(
            f"handler {name!r}: importing it raised {type(error).__name__}: {error}"
        ) from error
    return _as_class(found, name)


def _as_class(found: Any, name: str) -> type[Handler]:
    if inspect.isclass(found) and issubclass(found, Handler):
        return found
    if inspect.iscoroutinefunction(found):
        return stream_handler(found)
    raise HandlerNotFoundError(
        f"handler {name!r}: neither a subclass of fastlisten.Handler "
        "nor an async function of (reader, writer)"
    )
