"""Code of others that is loaded, and whether its files have changed since.

Rules of this file: nothing is imported or loaded again. A module stays what it was for the life of
its process, so all that a reload can do about new code is to say that a restart loads it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from fastlisten.config import ListenerSettings

__all__ = ["LoadedCode"]


class LoadedCode:
    """The modules that `handler`, `app` and other keys of their kind name."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, int]] = {}

    def remember(self, listeners: Iterable[ListenerSettings]) -> None:
        """Note the files of the modules that listeners use, as they are now."""
        for name in _modules(listeners):
            if name not in self._files and (found := _file(name)):
                self._files[name] = found

    def changed(self, listeners: Iterable[ListenerSettings]) -> list[str]:
        """Return the modules whose files are not what they were when they were noted."""
        return [
            name
            for name in _modules(listeners)
            if name in self._files and _file(name) != self._files[name]
        ]


def _modules(listeners: Iterable[ListenerSettings]) -> list[str]:
    names = (
        str(settings[row.key])
        for settings in listeners
        for row in settings.options
        if row.kind == "object" and settings[row.key]
    )
    return list(dict.fromkeys(name.partition(":")[0] for name in names))


def _file(module: str) -> tuple[str, int] | None:
    """Return a loaded module's file and when it was written."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if not path:
        return None
    try:
        return path, os.stat(path).st_mtime_ns
    except OSError:
        return path, 0
