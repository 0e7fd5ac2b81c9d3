"""Runs the checks of protocols: implements the interfaces of handlers/check_interface.py.

Rules of this file: it only passes on what checks ask and report; mistakes are reported at the
place where a value is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastlisten.config.checks import has_starttls
from fastlisten.config.document import NO_VALUE, Document
from fastlisten.config.listener_reader import UnresolvedListener
from fastlisten.config.notation import KeyPath
from fastlisten.config.settings import Bind
from fastlisten.config.values.binds import is_loopback
from fastlisten.handlers.protocol import Protocol

__all__ = ["check_protocols"]


def check_protocols(
    document: Document,
    protocols: Iterable[Protocol],
    listeners: Sequence[UnresolvedListener],
    tables: Mapping[str, Any],
) -> None:
    """Let every protocol check its listeners and its own table.

    Args:
        document: receives the reports.
        protocols: all known protocols, in use or not.
        listeners: all listeners, their addresses parsed.
        tables: the values of protocols' own tables, by key on a listener.
    """
    checks = {protocol.name: protocol.check for protocol in protocols}
    spoken: dict[str, list[UnresolvedListener]] = {name: [] for name in checks}
    for listener in listeners:
        protocol = listener.base.protocol
        checks.setdefault(protocol.name, protocol.check)
        spoken.setdefault(protocol.name, []).append(listener)
    for name, check in checks.items():
        if check is not None:
            check(_Protocol(document, name, spoken[name], tables))


class _Bind:
    """One address of a listener."""

    def __init__(self, document: Document, bind: Bind, path: KeyPath) -> None:
        self._document = document
        self._path = path
        self.text = bind.text
        self.port = bind.port
        self.is_loopback = is_loopback(bind)

    def error(self, message: str, allowed: str = "") -> None:
        self._document.error(self._path, message, self.text, allowed)


class _Listener:
    """One listener."""

    def __init__(self, document: Document, listener: UnresolvedListener) -> None:
        self._document = document
        self._listener = listener
        self.id = listener.id
        pairs = zip(listener.binds, listener.bind_paths, strict=True)
        self.binds = tuple(_Bind(document, bind, path) for bind, path in pairs)

    @property
    def starttls(self) -> bool:
        return has_starttls(self._listener)

    def __getitem__(self, key: str) -> Any:
        return self._listener[key]

    def sets(self, key: str) -> bool:
        return key in self._listener.values.typed

    def is_set(self, key: str) -> bool:
        return self._listener.is_written(key)

    def is_wrong(self, key: str) -> bool:
        # A short cut: this is asked several times per listener, and most files have no mistakes.
        if not self._document.has_errors:
            return False
        return self._document.has_errors_at(
            self._listener.at(key), self._listener.inherited_at(key)
        )

    def set_default(self, key: str, value: Any) -> None:
        self._listener.adjusted[key] = (value, "default")

    def error(self, key: str, message: str, allowed: str = "") -> None:
        path = self._listener.written_at(key)
        if not self._document.has_errors_at(path):
            self._document.error(path, message, self._value(key, path), allowed)

    def warning(self, key: str, message: str) -> None:
        path = self._listener.written_at(key) if key else self._listener.path
        # Only one for a value that many listeners inherit, but any number for the listener itself.
        if not key or not self._document.has_warning_at(path):
            value = self._value(key, path) if key else NO_VALUE
            self._document.warning(path, message, value)

    def _value(self, key: str, path: KeyPath) -> Any:
        """Return a value as written, or the value that applies if it is not written."""
        value = self._document.value_at(path)
        return self._listener[key] if value is NO_VALUE else value


class _Protocol:
    """One protocol: its listeners, and its own table."""

    def __init__(
        self,
        document: Document,
        name: str,
        listeners: Sequence[UnresolvedListener],
        tables: Mapping[str, Any],
    ) -> None:
        self._document = document
        self._tables = tables
        self.name = name
        self.listeners = tuple(_Listener(document, listener) for listener in listeners)

    def table_sets(self, key: str) -> bool:
        return f"{self.name}.{key}" in self._tables

    def table_warning(self, key: str, message: str) -> None:
        self._document.warning((self.name, *key.split(".")), message)
