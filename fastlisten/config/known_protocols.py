"""The installed protocols, with what the configuration needs to know about their rows.

Rules of this file: no protocol is known by name. Their `Protocol` objects (handlers/protocol.py)
say what they are; this file checks that their rows can be parsed and do not collide with others,
and knows which rows the listeners of each protocol have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from fastlisten.config.rows.listener import LISTENER_OPTIONS
from fastlisten.config.values.kinds import KINDS
from fastlisten.handlers.class_description import Describe
from fastlisten.handlers.installed import InstalledProtocols, ProtocolError, installed_protocols
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

__all__ = ["UNKNOWN", "KnownProtocols", "known_protocols", "own_rows"]

#: The protocol of a listener whose own has been reported as wrong; causes no further errors.
UNKNOWN = Protocol("", of_class=True)

# Names that a protocol's own table cannot have.
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
        broken: why a definition cannot be used, by name.
        listener_options: the rows of the option table, then those for listeners of one protocol.
    """

    def __init__(self, installed: InstalledProtocols) -> None:
        self._installed = installed
        self._invalid: dict[str, str] = {}
        self.names = installed.names
        definitions: dict[str, Protocol] = {}
        rows = {option.key: option for option in LISTENER_OPTIONS}
        for name, protocol in installed.definitions.items():
            taken = [row.key for row in protocol.listener_options if row.key in rows]
            if mistake := _mistake(protocol) or (taken and f"the key {taken[0]} is already in use"):
                self._invalid[name] = f"its definition is invalid: {mistake}"
                continue
            definitions[name] = protocol
            rows.update((row.key, row) for row in protocol.listener_options)
        self.definitions: Mapping[str, Protocol] = definitions
        self.broken: Mapping[str, str] = {**installed.broken, **self._invalid}
        self.listener_options = tuple(rows.values())

    def find(
        self, name: str, handler: str = "", describe: Describe | None = None
    ) -> Protocol | None:
        """Return a protocol; None if it is not installed and no handler class is named.

        Args:
            name: in lower case.
            handler: the listener's handler class, ``package.module:Class``; empty if none.
            describe: returns what a class says about itself; None to import the class here.

        Raises:
            ProtocolError: it cannot be used; the text says why.
            ClassNotFoundError: the listener's handler class cannot be imported or is no handler.
        """
        if name in self._invalid:
            raise ProtocolError(self._invalid[name])
        protocol = self._installed.find(name, handler, describe)
        if protocol is None or protocol is self.definitions.get(name):
            return protocol
        if mistake := _mistake(protocol):
            raise ProtocolError(f"its handler {protocol.handler} is invalid: {mistake}")
        return protocol

    def rows(self, protocol: Protocol) -> tuple[Option, ...]:
        """Return the rows that listeners of a protocol have."""
        general = LISTENER_OPTIONS if protocol is not UNKNOWN else self.listener_options
        return (
            *(row for row in general if _has(protocol, row)),
            *protocol.listener_options,
            *own_rows(protocol),
        )

    def absent(self, protocol: Protocol) -> Iterator[tuple[str, str]]:
        """Yield keys that listeners of a protocol do not have, with the message for each.

        None for UNKNOWN: which keys its listeners have is not known.
        """
        if protocol is UNKNOWN:
            return
        spoken = f"this listener speaks {protocol.name}"
        for row in LISTENER_OPTIONS:
            if not _has(protocol, row):
                yield row.key, f"this is only for protocols with a greeting; {spoken}"
        for other in self.definitions.values():
            for row in other.listener_options:
                if other.name != protocol.name:
                    yield row.key, f"this is only for {other.name} listeners; {spoken}"
        for name in self.names:
            if name != protocol.name:
                yield name, f"this is only for {name} listeners; {spoken}"


def known_protocols() -> KnownProtocols:
    """Return the protocols that are installed."""
    return _known(installed_protocols())


@lru_cache(maxsize=1)
def _known(installed: InstalledProtocols) -> KnownProtocols:
    return KnownProtocols(installed)


@lru_cache(maxsize=256)
def own_rows(protocol: Protocol) -> tuple[Option, ...]:
    """Return the rows of a protocol's own table, with their keys on a listener: ``smtp.relay``."""
    return tuple(
        replace(option, key=f"{protocol.name}.{option.key}") for option in protocol.options
    )


def _has(protocol: Protocol, option: Option) -> bool:
    """Tell whether the listeners of a protocol have a general row.

    A protocol that is made from a handler class may greet without saying so.
    """
    return not option.extra.get("greets") or protocol.server_speaks_first or protocol.of_class


def _mistake(protocol: Protocol) -> str:
    """Return why the rows or defaults of a protocol cannot be used, empty if they can."""
    if protocol.options and protocol.name in _RESERVED:
        return "a protocol of this name cannot have settings; the name is reserved"
    for row in (*protocol.options, *protocol.listener_options):
        if row.kind not in KINDS:
            kinds = ", ".join(sorted(KINDS))
            return f"{row.key} is of unknown kind {row.kind}; the kinds are {kinds}"
    keys = {row.key for row in (*LISTENER_OPTIONS, *protocol.listener_options)}
    for key in protocol.defaults:
        if key not in keys:
            return f"it has a default for {key}, which listeners do not have"
    return ""
