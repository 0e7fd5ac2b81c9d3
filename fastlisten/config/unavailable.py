"""Finds settings that this version of the server does not support.

Rules of this file: it reads `available` and `inert` of the rows and has no list of its own, except
for what is not the value of a row: protocols without a handler.
"""

from __future__ import annotations

from fastlisten.config.notation import KeyPath, quote
from fastlisten.config.settings import Config, ListenerSettings
from fastlisten.config.values.kinds import write
from fastlisten.errors import Problem
from fastlisten.option import Option

__all__ = ["find_unavailable"]

_MESSAGE = "not available in this version"

# Listeners to name if a default concerns more of them.
_MAX_NAMED = 3


def find_unavailable(config: Config) -> tuple[Problem, ...]:
    """Return one problem for each value that is not supported, in order of line.

    A default is reported once, with the listeners that it concerns; not at all if it concerns none.
    """
    found: dict[tuple[KeyPath, str], list[str]] = {}
    for option in config.process_options:
        value = config.process[option.key]
        if not option.available and config.origin(option.key) != "default":
            if value in option.inert:
                continue
            shown = write(option, config.process[option.key])
            found.setdefault((tuple(option.key.split(".")), shown), [])
    for listener in config.listeners:
        for path, shown in _of_listener(listener):
            found.setdefault((path, shown), []).append(listener.id)
    problems = [
        config.problem(path, _MESSAGE + _needed_by(path, ids), shown)
        for (path, shown), ids in found.items()
    ]
    return tuple(sorted(problems, key=lambda problem: problem.line))


def _needed_by(path: KeyPath, ids: list[str]) -> str:
    """Name the listeners that inherit a value; a listener's own value needs no names."""
    if not ids or path[:2] == ("server", "listener"):
        return ""
    names = ", ".join(quote(name) for name in ids[:_MAX_NAMED])
    more = f" and {len(ids) - _MAX_NAMED:,} more" if len(ids) > _MAX_NAMED else ""
    return f" (listener{'s' if len(ids) > 1 else ''} {names}{more})"


def _of_listener(listener: ListenerSettings) -> list[tuple[KeyPath, str]]:
    here: KeyPath = ("server", "listener", listener.id)
    found = []
    if not listener["handler"] and not listener.definition.handler:
        found.append(((*here, "protocol"), quote(listener.protocol)))
    found += [
        (listener.path(option.key), write(option, listener[option.key]))
        for option in listener.options
        if not option.available and _needs(listener, option)
    ]
    return found


def _needs(listener: ListenerSettings, option: Option) -> bool:
    """Tell whether the value of an unavailable row has an effect on a listener."""
    key = option.key
    if key in listener.adjusted or listener.origin(key) == "default":
        return False
    if listener[key] in option.inert:
        return False
    # It has no effect if no peer may send a PROXY header.
    return not (key == "proxy.timeout" and not listener["proxy.trusted-networks"])
