"""Listeners while they are put together: what their tables say over what they inherit.

Rules of this file: reading and inheriting; what must hold between values is in `checks.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastlisten.config.protocols import (
    PROTOCOLS,
    Protocol,
    ProtocolError,
    load_registered,
    registered,
)
from fastlisten.config.reader import Reader, Schema, Values
from fastlisten.config.rows.listener import LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.settings import Bind, server_path
from fastlisten.config.suggest import likely, near
from fastlisten.config.text import Path, quote
from fastlisten.config.values.grammar import BadValueError, text_of
from fastlisten.option import Option, Origin

__all__ = ["Base", "Draft", "Drafts"]

# A protocol that is not known: nothing is required of its listener but what is so of all.
_UNKNOWN = Protocol("")


@dataclass(frozen=True, slots=True)
class Base:
    """What all listeners of a protocol share.

    Attributes:
        protocol: as known.
        options: the rows of values that they have.
        schema: what may stand in their tables.
        inherited: defaults, with the server's values over them.
        from_server: the keys whose inherited value is the server's.
    """

    protocol: Protocol
    options: tuple[Option, ...]
    schema: Schema
    inherited: Mapping[str, Any]
    from_server: frozenset[str]


@dataclass(slots=True)
class Draft:
    """One listener.

    Attributes:
        id: the name of its table.
        path: the path of its table.
        base: what it shares with others.
        values: what its table says.
        adjusted: values that a rule changed, with the origin each counts as.
        binds: its addresses that could be read.
        bind_paths: the path of each.
    """

    id: str
    path: Path
    base: Base
    values: Values
    adjusted: dict[str, tuple[Any, Origin]] = field(default_factory=dict)
    binds: list[Bind] = field(default_factory=list)
    bind_paths: list[Path] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        """Return what holds for a key."""
        if key in self.adjusted:
            return self.adjusted[key][0]
        typed = self.values.typed
        return typed[key] if key in typed else self.base.inherited[key]

    def at(self, key: str) -> Path:
        """Return the path of a key in this listener's table."""
        return (*self.path, *key.split("."))

    def is_written(self, key: str) -> bool:
        """Tell whether a value is written anywhere, or the table's default holds."""
        return key in self.values.typed or key in self.base.from_server

    def written_at(self, key: str) -> Path:
        """Return the path where the value that holds for a key is written."""
        own = key in self.values.typed or key not in self.base.from_server
        return self.at(key) if own else server_path(key)


class Drafts:
    """Reads listeners.

    Args:
        reader: of the document.
        server: the values of `[server]`, by key on a listener.
        defaults: defaults that the host decides, by key on a listener.
    """

    def __init__(
        self, reader: Reader, server: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> None:
        self._reader = reader
        self._document = reader.document
        self._server = server
        self._defaults = defaults
        self._bases: dict[str, Base] = {}
        #: The values of handlers' own tables, as `[smtp]`.
        self.handlers: dict[str, Any] = {}

    def read(self, id: str, data: dict[str, Any]) -> Draft:
        """Return the listener of one table, having reported what is wrong in it."""
        path: Path = ("server", "listener", id)
        base = self.base(self._protocol(data, path))
        draft = Draft(id, path, base, Values())
        self._reader.read(data, base.schema, path, draft.values)
        for key in ("bind", "protocol"):
            if key not in data:
                self._document.error(path, f"the key {key} is missing", allowed=_REQUIRED[key])
        return draft

    def base(self, protocol: Protocol) -> Base:
        """Return what the listeners of a protocol share, having read the protocol's own table."""
        if (base := self._bases.get(protocol.name)) is None:
            written = {**self._server, **self._handler_table(protocol)}
            rows = [row for row in LISTENER_OPTIONS if _has(protocol, row)]
            rows += protocol.options
            # These two are not values that a listener has but what it is.
            options = tuple(row for row in rows if row.key not in ("bind", "protocol"))
            inherited = {option.key: _default(option, protocol.name) for option in options}
            inherited.update(self._defaults)
            base = self._bases[protocol.name] = Base(
                protocol=protocol,
                options=options,
                schema=Schema(((row.key, row) for row in rows), _elsewhere(protocol)),
                inherited={key: written.get(key, value) for key, value in inherited.items()},
                from_server=frozenset(key for key in inherited if key in written),
            )
        return base

    def is_table_of_handler(self, name: str) -> bool:
        """Tell whether a top-level table has been read as a handler's own."""
        return name in self._bases and bool(self._bases[name].protocol.options)

    def rows(self, keys: Iterable[str]) -> dict[str, Option]:
        """Return the row of each key that stands in `[server]` or in a handler's table."""
        rows = {row.key: row for row in LISTENER_OPTIONS}
        rows.update((row.key, row) for base in self._bases.values() for row in base.options)
        return {key: rows[key] for key in keys}

    def _handler_table(self, protocol: Protocol) -> dict[str, Any]:
        if not protocol.options:
            return {}
        values = Values()
        schema = Schema((row.key.partition(".")[2], row) for row in protocol.options)
        table = self._reader.table(self._document.data, (protocol.name,))
        self._reader.read(table, schema, (protocol.name,), values)
        self.handlers.update(values.typed)
        return values.typed

    def _protocol(self, data: dict[str, Any], path: Path) -> Protocol:
        """Return the protocol of a listener, an unknown one if it has none or a wrong one."""
        raw = data.get("protocol")
        try:
            text = text_of(self._reader.expanded(raw))
        except BadValueError:
            # As with an empty text, the reader reports it with its row, and its absence too.
            text = ""
        if not text:
            return _UNKNOWN
        name = text.strip().lower()
        if name in PROTOCOLS:
            return PROTOCOLS[name]
        at = (*path, "protocol")
        if name in registered():
            try:
                return load_registered(name)
            except ProtocolError as error:
                self._document.error(at, str(error), raw)
                return _UNKNOWN
        known = (*PROTOCOLS, *sorted(set(registered()) - set(PROTOCOLS)))
        # Whoever names the code that serves may invent a protocol's name, but not misspell one.
        if name and "handler" in data and not near(name, known):
            return Protocol(name)
        suggestion = "http with tls.implicit = true" if name == "https" else likely(name, known)
        self._document.error(
            at, "this protocol is not known", raw, ", ".join(map(quote, known)), suggestion
        )
        return _UNKNOWN


_REQUIRED = {
    "bind": 'an address, as bind = "[::]:25"',
    "protocol": ", ".join(map(quote, PROTOCOLS)) + "; with handler, any other name",
}


def _default(option: Option, protocol: str) -> Any:
    return option.extra.get("by-protocol", {}).get(protocol, option.default)


def _has(protocol: Protocol, option: Option) -> bool:
    """Tell whether the listeners of a protocol have a row; nothing is known of foreign ones."""
    if protocol.name not in PROTOCOLS:
        return True
    if option.extra.get("greets") and not protocol.server_speaks_first:
        return False
    return protocol.name in option.extra.get("protocols", PROTOCOLS)


def _elsewhere(protocol: Protocol) -> dict[str, str]:
    """Return what to say of keys that are known, but not on a listener of this protocol."""
    messages = {
        option.key.removeprefix("server."): f"this is for the whole server: {option.key}"
        for option in PROCESS_OPTIONS
        if option.key.startswith("server.")
    }
    for option in LISTENER_OPTIONS:
        if not _has(protocol, option):
            others = " and ".join(option.extra.get("protocols", ()))
            of = (
                f"only {others} listeners have this"
                if others
                else "only servers that greet have it"
            )
            messages[option.key] = f"{of}, and this listener speaks {protocol.name}"
    messages["run-as"] = "this is for the whole server: server.run-as"
    for other in PROTOCOLS.values():
        if other.name != protocol.name:
            spoken = f"this listener speaks {protocol.name}" if protocol.name else "unknown here"
            messages[other.name] = f"these are settings of {other.name}, and {spoken}"
    return messages
