"""Imports the ASGI application that `app = "package.module:name"` names.

Rules of this file: it only imports. All errors are mistakes in the configuration, and say whether
the name, the module or the object is wrong.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from fastlisten.handlers.base import SettingError
from fastlisten.handlers.http.asgi import Application

__all__ = ["load_application"]


def load_application(name: str) -> Application:
    """Return the application with this name.

    Args:
        name: ``package.module:name``; a name that ends in ``()`` is a function without
            parameters that makes the application.

    Raises:
        SettingError: it cannot be imported or is not an ASGI 3 application.
    """
    module, _, attribute = name.removesuffix("()").partition(":")
    found: Any = _imported(module)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise SettingError("app", f"module {module} has no {attribute}") from error
    if name.endswith("()"):
        try:
            found = found()
        except Exception as error:
            # The application's own code raised; its message is meant for the administrator.
            reason = f"{type(error).__name__}: {error}"
            raise SettingError("app", f"{attribute}() failed: {reason}") from error
    return _checked(found, attribute)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            text = f'no module "{error.name}"; it must be installed or on PYTHONPATH'
        else:
            text = f"importing {module} failed: {error}"
        raise SettingError("app", text) from error
    except Exception as error:
        # The module's own code ran and raised.
        reason = f"{type(error).__name__}: {error}"
        raise SettingError("app", f"importing {module} failed: {reason}") from error


def _checked(found: Any, attribute: str) -> Application:
    """Return the object if it looks like an ASGI 3 application."""
    if not callable(found):
        raise SettingError("app", f"{attribute} is not an application, it cannot be called")
    if inspect.isclass(found) and not hasattr(found, "__await__"):
        raise SettingError("app", f"{attribute} is a class and not an application")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        # Compiled code does not always have a signature.
        pass
    else:
        try:
            signature.bind(None, None, None)
        except TypeError:
            raise SettingError("app", _unfit(attribute, signature, found)) from None
    application: Application = found
    return application


def _unfit(attribute: str, signature: inspect.Signature, found: Callable[..., object]) -> str:
    needed = [one for one in signature.parameters.values() if one.default is one.empty]
    kinds = {0: "a function that makes one, write it with ()", 1: "ASGI 2", 2: "WSGI"}
    kind = kinds.get(len(needed), "something else")
    return f"{attribute} does not take scope, receive and send (ASGI 3); it looks like {kind}"
