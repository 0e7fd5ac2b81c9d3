"""Reads listeners: the values of their tables over those they inherit.

Rules of this file: reading and inheriting; rules between values are in `checks.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastlisten.config.known_protocols import UNKNOWN, KnownProtocols, own_rows
from fastlisten.config.notation import KeyPath, quote
from fastlisten.config.reader import Reader, Schema, Values
from fastlisten.config.rows.listener import LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.settings import Bind, default_path
from fastlisten.config.suggest import likely, near
from fastlisten.config.values.grammar import BadValueError, text_of
from fastlisten.config.values.kinds import KINDS
from fastlisten.handlers.class_description import Describe
from fastlisten.handlers.installed import ClassNotFoundError, ProtocolError
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option, Origin

__all__ = ["SERVE_FAILS", "ListenerBase", "ListenerReader", "UnresolvedListener"]

#: The end of the warnings about settings that are correct, but with which `serve` will not start.
SERVE_FAILS = "`serve` will fail"

_HANDLER_ROW = next(row for row in LISTENER_OPTIONS if row.key == "handler")


@dataclass(frozen=True, slots=True)
class ListenerBase:
    """What all listeners of a protocol share.

    Attributes:
        protocol: the protocol.
        options: their rows.
        schema: the keys of their tables.
        inherited: defaults, overridden by the server's values.
        from_server: keys whose inherited value is set by the server.
    """

    protocol: Protocol
    options: tuple[Option, ...]
    schema: Schema
    inherited: Mapping[str, Any]
    from_server: frozenset[str]


@dataclass(slots=True)
class UnresolvedListener:
    """One listener.

    Attributes:
        id: the name of its table.
        path: the path of its table.
        base: what it shares with the other listeners of its protocol.
        values: the values of its table.
        adjusted: values that a check has changed, each with the origin to show for it.
        binds: its addresses, without those that could not be parsed.
        bind_paths: the path of each.
    """

    id: str
    path: KeyPath
    base: ListenerBase
    values: Values
    adjusted: dict[str, tuple[Any, Origin]] = field(default_factory=dict)
    binds: list[Bind] = field(default_factory=list)
    bind_paths: list[KeyPath] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key."""
        if key in self.adjusted:
            return self.adjusted[key][0]
        typed = self.values.typed
        return typed[key] if key in typed else self.base.inherited[key]

    def at(self, key: str) -> KeyPath:
        """Return the path of a key in this listener's table."""
        return (*self.path, *key.split("."))

    def is_written(self, key: str) -> bool:
        """Tell whether a key is set anywhere, rather than having its default."""
        return key in self.values.typed or key in self.base.from_server

    def written_at(self, key: str) -> KeyPath:
        """Return the path where the value of a key is set."""
        own = key in self.values.typed or key not in self.base.from_server
        return self.at(key) if own else self.inherited_at(key)

    def inherited_at(self, key: str) -> KeyPath:
        """Return the path where the inherited value of a key is set."""
        return default_path(key, self.base.protocol.name)


class ListenerReader:
    """Reads listeners.

    Call `find_protocol` for all of them first: handler classes that they name may add keys to the
    tables of protocols.

    Args:
        reader: reads the document.
        protocols: the known protocols.
        server: the values of `[server]`, by key on a listener.
        defaults: defaults that depend on the host, by key on a listener.
        describe: returns what a handler class says about itself; None to import classes here.

    Attributes:
        tables: the values of protocols' own tables, such as `[smtp]`, by key on a listener.
    """

    def __init__(
        self,
        reader: Reader,
        protocols: KnownProtocols,
        server: Mapping[str, Any],
        defaults: Mapping[str, Any],
        describe: Describe | None = None,
    ) -> None:
        self._reader = reader
        self._describe = describe
        self._document = reader.document
        self._protocols = protocols
        self._server = server
        self._defaults = defaults
        self._spoken: dict[str, Protocol] = {}  # by listener
        # Protocols that have been reported because they cannot be used, by listener.
        self._unusable: dict[str, str] = {}
        self._found: dict[tuple[str, str], Protocol | ProtocolError] = {}
        self._known = set(protocols.definitions.values())
        # The rows of each protocol's own table; handler classes that listeners name may add some.
        self._rows = {
            protocol.name: {row.key: row for row in own_rows(protocol)}
            for protocol in protocols.definitions.values()
        }
        self._bases: dict[int, ListenerBase] = {}
        self._tables_read: dict[str, Mapping[str, Any]] = {}
        self._classes_not_found: list[tuple[KeyPath, str]] = []
        self.tables: dict[str, Any] = {}

    def find_protocol(self, id: str, data: dict[str, Any]) -> None:
        """Find the protocol of a listener; report one that is unknown or cannot be used."""
        path: KeyPath = ("server", "listener", id)
        protocol = self._spoken[id] = self._protocol(data, path)
        if protocol is UNKNOWN or protocol in self._known:
            return
        rows = self._rows.setdefault(protocol.name, {})
        for row in own_rows(protocol):
            if rows.setdefault(row.key, row) != row:
                message = f"another handler of protocol {quote(protocol.name)} defines the option "
                message += f"{row.key} differently; give one of them another protocol name"
                self._document.error((*path, "handler"), message, data.get("handler"))
                self._spoken[id] = UNKNOWN
                self._unusable[id] = protocol.name
                return
        self._known.add(protocol)

    def read(self, id: str, data: dict[str, Any]) -> UnresolvedListener:
        """Return the listener of one table; report mistakes in it."""
        path: KeyPath = ("server", "listener", id)
        base = self._base(self._spoken[id])
        listener = UnresolvedListener(id, path, base, Values())
        known = {key: data[key] for key in data if self._can_read(id, key)}
        self._reader.read(known, base.schema, path, listener.values)
        if "bind" not in data:
            allowed = 'an address, such as bind = "[::]:25"'
            self._document.error(path, "the key bind is missing", allowed=allowed)
        if "protocol" not in data:
            allowed = self._names() + "; with handler, any other name"
            self._document.error(path, "the key protocol is missing", allowed=allowed)
        return listener

    def _can_read(self, id: str, key: str) -> bool:
        """Tell whether a key of a listener can be checked; its protocol may have been reported.

        Which keys an unusable protocol has is not known; and with an unknown protocol any other
        protocol's table may be the right one.
        """
        if self._spoken[id] is not UNKNOWN:
            return True
        if id in self._unusable:
            return key in self._base(UNKNOWN).schema.tree
        return key not in self._protocols.names

    def read_tables(self) -> None:
        """Read the own tables of all known protocols, in use or not."""
        for protocol in self._protocols.definitions.values():
            self._own_table(protocol)

    def warn_of_missing_classes(self) -> None:
        """Report the classes of `handler =` that could not be imported."""
        for path, message in self._classes_not_found:
            text = "; its ports, options and STARTTLS are unknown, and "
            self._document.warning(path, message + text + SERVE_FAILS)

    def is_own_table(self, name: str) -> bool:
        """Tell whether a top-level table is a protocol's own and has been read."""
        return name in self._tables_read

    def is_reported(self, protocol: str) -> bool:
        """Tell whether a listener has been reported because its protocol cannot be used."""
        return protocol in self._unusable.values()

    def rows(self, keys: Iterable[str]) -> dict[str, Option]:
        """Return the rows of keys of `[server]` or of a protocol's own table."""
        rows = {row.key: row for row in self._protocols.listener_options}
        for own in self._rows.values():
            rows.update(own)
        return {key: rows[key] for key in keys}

    def _base(self, protocol: Protocol) -> ListenerBase:
        """Return what the listeners of a protocol share."""
        if (base := self._bases.get(id(protocol))) is None:
            written = {**self._server, **self._own_table(protocol)}
            rows = self._protocols.rows(protocol)
            # These two say what a listener is; they are not values.
            options = tuple(row for row in rows if row.key not in ("bind", "protocol"))
            inherited = {row.key: protocol.defaults.get(row.key, row.default) for row in options}
            inherited.update(self._defaults)
            base = self._bases[id(protocol)] = ListenerBase(
                protocol=protocol,
                options=options,
                schema=Schema(((row.key, row) for row in rows), self._elsewhere(protocol)),
                inherited={key: written.get(key, value) for key, value in inherited.items()},
                from_server=frozenset(key for key in inherited if key in written),
            )
        return base

    def _own_table(self, protocol: Protocol) -> Mapping[str, Any]:
        """Return the values of a protocol's own table, which is read at the first call."""
        name = protocol.name
        rows = self._rows.get(name)
        if not rows:
            return {}
        if name not in self._tables_read:
            values = Values()
            schema = Schema((key.removeprefix(f"{name}."), row) for key, row in rows.items())
            table = self._reader.table(self._document.data, (name,))
            self._reader.read(table, schema, (name,), values)
            self._tables_read[name] = values.typed
            self.tables.update(values.typed)
        return self._tables_read[name]

    def _protocol(self, data: dict[str, Any], path: KeyPath) -> Protocol:
        """Return the protocol of a listener, `UNKNOWN` if it has none or a wrong one."""
        raw = data.get("protocol")
        try:
            text = text_of(self._reader.expanded(raw))
        except BadValueError:
            # The reader reports this, as it reports an empty string or a missing key.
            text = ""
        if not text:
            return UNKNOWN
        name = text.strip().lower()
        known = self._protocols.names
        at = (*path, "protocol")
        slip = near(name, known)
        handler = self._handler(data)
        # With `handler` the name may be a new one; one like a known one needs a valid handler.
        invented = bool(name) and "handler" in data and (bool(handler) or not slip)
        if name not in known and not invented:
            suggestion = self._other_name(name) or likely(name, known)
            message = "unknown protocol"
            self._document.error(at, message, raw, self._names(), suggestion)
            return UNKNOWN
        if slip:
            message = f"similar to {quote(slip)}; taken as a new protocol, because `handler` is set"
            self._document.warning(at, message, raw)
        found = self._find(name, handler)
        if isinstance(found, ClassNotFoundError):
            # Serving it will fail; check what else can be checked.
            self._classes_not_found.append(((*path, "handler"), str(found)))
            found = self._find(name, "")
        if isinstance(found, ProtocolError):
            self._document.error(at, str(found), raw)
            self._unusable[str(path[-1])] = name
            return UNKNOWN
        return found

    def _find(self, name: str, handler: str) -> Protocol | ProtocolError:
        """Return a protocol, or its error; cached, since thousands of listeners may ask."""
        found = self._found.get((name, handler))
        if found is None:
            try:
                known = self._protocols.find(name, handler, self._describe)
                found = known or Protocol(name, of_class=True)
            except ProtocolError as error:
                found = error
            self._found[name, handler] = found
        return found

    def _handler(self, data: dict[str, Any]) -> str:
        """Return the handler class that a listener names, empty if none or an invalid one."""
        try:
            return str(KINDS["object"].parse(_HANDLER_ROW, self._reader.expanded(data["handler"])))
        except (KeyError, BadValueError):
            return ""

    def _names(self) -> str:
        return ", ".join(map(quote, self._protocols.names))

    def _other_name(self, name: str) -> str:
        others = (each.other_names for each in self._protocols.definitions.values())
        return next((names[name] for names in others if name in names), "")

    def _elsewhere(self, protocol: Protocol) -> dict[str, str]:
        """Return the messages for known keys that listeners of this protocol do not have."""
        messages = {
            option.key.removeprefix(
                "server."
            ): f"this can only be set for the whole server, as {option.key}"
            for option in PROCESS_OPTIONS
            if option.key.startswith("server.")
        }
        messages.update(self._protocols.absent(protocol))
        messages["run-as"] = "this can only be set for the whole server, as server.run-as"
        return messages
