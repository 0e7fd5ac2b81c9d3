"""The protocols that a listener can name, as the configuration uses them.

Rules of this file: no protocol is known by name here. What a protocol is comes from its `Protocol`
object (handlers/protocol.py); this adds what the option table must know: that its rows can be
parsed, that they collide with no others, and which rows a listener of it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from fastlisten.config.rows.listener import LISTENER_OPTIONS
from fastlisten.config.values.kinds import KINDS
from fastlisten.handlers.installed import InstalledProtocols, ProtocolError, installed_protocols
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

__all__ = ["UNKNOWN", "KnownProtocols", "known_protocols", "own_rows"]

#: What a listener speaks whose protocol has been reported as wrong: nothing more is wrong with it.
UNKNOWN = Protocol("", of_class=True)

# Names of tables and keys that a protocol's own table would collide with.
_RESERVED = frozenset(option.key.partition(".")[0] for option in LISTENER_OPTIONS) | {
    "certificate",
    "log",
    "server",
}


class KnownProtocols:
    """The installed protocols.

    Attributes:
        names: of all of them.
        definitions: those that are known without importing a handler, by name.
        listener_options: the rows of the option table, then those that listeners of one protocol
            have besides.
    """

    def __init__(self, installed: InstalledProtocols) -> None:
        self._installed = installed
        self._broken: dict[str, str] = {}
        self.names = installed.names
        definitions: dict[str, Protocol] = {}
        rows = {option.key: option for option in LISTENER_OPTIONS}
        for name, protocol in installed.definitions.items():
            taken = [row.key for row in protocol.listener_options if row.key in rows]
            if mistake := _mistake(protocol) or (taken and f"the key {taken[0]} is taken"):
                self._broken[name] = f"its definition cannot be used: {mistake}"
                continue
            definitions[name] = protocol
            rows.update((row.key, row) for row in protocol.listener_options)
        self.definitions: Mapping[str, Protocol] = definitions
        self.listener_options = tuple(rows.values())

    def find(self, name: str, handler: str = "") -> Protocol | None:
        """Return a protocol, None if none of that name is installed and no class is named.

        Args:
            name: in lower case.
            handler: the class that a listener names, ``package.module:Class``; empty if none.

        Raises:
            ProtocolError: it cannot be used; the text says why.
            ClassNotFoundError: the class that the listener names cannot be had.
        """
        if name in self._broken:
            raise ProtocolError(self._broken[name])
        protocol = self._installed.find(name, handler)
        if protocol is None or protocol is self.definitions.get(name):
            return protocol
        if mistake := _mistake(protocol):
            raise ProtocolError(f"its handler {protocol.handler} cannot be used: {mistake}")
        return protocol

    def rows(self, protocol: Protocol) -> tuple[Option, ...]:
        """Return the rows of the option table that listeners of a protocol have."""
        general = LISTENER_OPTIONS if protocol is not UNKNOWN else self.listener_options
        return (
            *(row for row in general if _has(protocol, row)),
            *protocol.listener_options,
            *own_rows(protocol),
        )

    def absent(self, protocol: Protocol) -> Iterator[tuple[str, str]]:
        """Yield keys that listeners of a protocol do not have, and what to say of each."""
        spoken = f"this listener speaks {protocol.name}"
        for row in LISTENER_OPTIONS:
            if not _has(protocol, row):
                yield row.key, f"only protocols with a greeting have this key; {spoken}"
        for other in self.definitions.values():
            for row in other.listener_options:
                if other.name != protocol.name and protocol is not UNKNOWN:
                    yield row.key, f"only {other.name} listeners have this key; {spoken}"
        for name in self.names:
            if name != protocol.name:
                why = f"; {spoken}" if protocol.name else ""
                yield name, f"this is a setting of {name}{why}"


def known_protocols() -> KnownProtocols:
    """Return the protocols that are installed."""
    return _known(installed_protocols())


@lru_cache(maxsize=1)
def _known(installed: InstalledProtocols) -> KnownProtocols:
    return KnownProtocols(installed)


@lru_cache(maxsize=256)
def own_rows(protocol: Protocol) -> tuple[Option, ...]:
    """Return the rows of a protocol's own table, by the keys they have on a listener."""
    return tuple(
        replace(option, key=f"{protocol.name}.{option.key}") for option in protocol.options
    )


def _has(protocol: Protocol, option: Option) -> bool:
    """Tell whether the listeners of a protocol have a general row.

    What a class's variables leave unsaid may be so.
    """
    return not option.extra.get("greets") or protocol.server_speaks_first or protocol.of_class


def _mistake(protocol: Protocol) -> str:
    """Return why the rows or defaults of a protocol cannot be used, empty if they can."""
    if protocol.options and protocol.name in _RESERVED:
        return "it has settings under a reserved name"
    for row in (*protocol.options, *protocol.listener_options):
        if row.kind not in KINDS:
            kinds = ", ".join(sorted(KINDS))
            return f"{row.key} has the unknown kind {row.kind}; the kinds are {kinds}"
    keys = {row.key for row in (*LISTENER_OPTIONS, *protocol.listener_options)}
    for key in protocol.defaults:
        if key not in keys:
            return f"it has a default for {key}, which is no key of a listener"
    return ""
