"""Says which line of the configuration is to blame for a handler that cannot be used.

Rules of this file: no handler, event loop or native module is imported, since `check` needs it too.
"""

from __future__ import annotations

from fastlisten.config import Config, ListenerSettings
from fastlisten.config.notation import quote
from fastlisten.config.values.kinds import write
from fastlisten.errors import Problem

__all__ = ["handler_problem"]


def handler_problem(
    config: Config, settings: ListenerSettings, message: str, key: str = ""
) -> Problem:
    """Return a problem that points to the line of the configuration that names the handler.

    Args:
        config: the whole configuration.
        settings: the listener's.
        message: what is wrong.
        key: the key whose value is wrong; empty if it is the handler itself.
    """
    value = quote(settings["handler"] or settings.protocol)
    if not key:
        key = "handler" if settings["handler"] else "protocol"
    else:
        value = next(
            (write(row, settings[key]) for row in settings.options if row.key == key), value
        )
    return config.problem(settings.path(key), message, value)
