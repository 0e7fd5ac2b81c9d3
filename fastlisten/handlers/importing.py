"""Imports handler classes by name, `package.module:Class`.

Rules of this file: errors say which module could not be imported, and why. Nothing here depends on
which protocols are installed.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from fastlisten.errors import FastlistenError
from fastlisten.handlers.base import Handler
from fastlisten.handlers.streams import stream_handler

__all__ = ["HandlerNotFoundError", "as_handler_class", "explained", "named_handler"]


class HandlerNotFoundError(FastlistenError):
    """A handler cannot be found, imported or used; the text says which and why."""


def named_handler(name: str) -> type[Handler]:
    """Return the handler class that ``package.module:Class`` names.

    The name may also be that of an async function of (reader, writer).

    Raises:
        HandlerNotFoundError: it cannot be imported, or is neither of the two.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise HandlerNotFoundError(f'handler = {name!r}: write "package.module:Class"')
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise HandlerNotFoundError(f"handler {name!r}: {explained(error, module)}") from error
    except Exception as error:
        # The module's own code raised it.
        raise HandlerNotFoundError(
            f"handler {name!r}: importing it raised {type(error).__name__}: {error}"
        ) from error
    return as_handler_class(found, name)


def explained(error: Exception, module: str) -> str:
    """Return why importing something from a module failed, as text.

    Args:
        error: raised by the import.
        module: the name of the module. The missing module may be another one, imported by it.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (module == missing or module.startswith(missing + ".")):
        return f'no module "{missing}"; it must be installed or on PYTHONPATH'
    return str(error)


def as_handler_class(found: Any, name: str) -> type[Handler]:
    """Return a handler class unchanged; for an async function of (reader, writer) one that runs it.

    Args:
        found: the class or function.
        name: its name, for the error.

    Raises:
        HandlerNotFoundError: it is neither.
    """
    if inspect.isclass(found) and issubclass(found, Handler):
        return found
    if inspect.iscoroutinefunction(found):
        return stream_handler(found)
    raise HandlerNotFoundError(
        f"handler {name!r}: neither a subclass of fastlisten.Handler "
        "nor an async function of (reader, writer)"
    )
