"""Protocols and handlers as other packages register them, for the length of a block.

Rules of this file: only the entry points are fake; the objects they name are imported as usual.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from unittest import mock

from fastlisten.handlers import installed

__all__ = ["registered"]


@contextlib.contextmanager
def registered(
    protocols: Mapping[str, str] | None = None, handlers: Mapping[str, str] | None = None
) -> Iterator[list[str]]:
    """Let these entry points exist, and no others, as in a source tree that was never installed.

    Args:
        protocols: ``module:attribute`` by name, in the group of `Protocol` objects.
        handlers: ``module:Class`` by name, in the older group of handler classes.

    Yields:
        The groups that were looked up, in order.
    """
    asked: list[str] = []
    groups = {
        installed.PROTOCOLS_GROUP: protocols or {},
        installed.HANDLERS_GROUP: handlers or {},
    }

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint(name, value, group) for name, value in groups[group].items()]

    installed.installed_protocols.cache_clear()
    try:
        with mock.patch.object(installed, "entry_points", entry_points):
            yield asked
    finally:
        installed.installed_protocols.cache_clear()
