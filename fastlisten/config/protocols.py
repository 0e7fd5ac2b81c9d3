"""The protocols that a listener can name: the six of the format, and those that packages register.

Rules of this file: what the configuration must know of a protocol, as data. A registered handler
is imported only when a file names its protocol, because importing it may start a loop's modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from fastlisten.config.rows.listener import LISTENER_OPTIONS
from fastlisten.config.values.kinds import KINDS
from fastlisten.handlers.http.settings import OPTIONS as HTTP_OPTIONS
from fastlisten.handlers.smtp.settings import LMTP_OPTIONS
from fastlisten.handlers.smtp.settings import OPTIONS as SMTP_OPTIONS
from fastlisten.option import Option

__all__ = [
    "PROTOCOLS",
    "WITHOUT_STARTTLS",
    "Protocol",
    "ProtocolError",
    "is_served",
    "load_registered",
    "registered",
]

#: The entry-point group that handlers register in.
GROUP = "fastlisten.handlers"


class ProtocolError(Exception):
    """A registered handler that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the configuration knows of a protocol.

    Attributes:
        name: the word for it.
        port: its standard port, 0 if it has none.
        tls_port: the same with TLS from the first byte, 0 if it has none of its own.
        server_speaks_first: the server greets; clients wait for it.
        starttls: going over to TLS within a connection is a part of it.
        options: the rows of its own table, keys with the protocol's name before them.
    """

    name: str
    port: int = 0
    tls_port: int = 0
    server_speaks_first: bool = False
    starttls: bool = False
    options: tuple[Option, ...] = ()

    def standard_port(self, implicit_tls: bool) -> int:
        """Return the port of a bind that names none, 0 if there is no such port."""
        return (implicit_tls and self.tls_port) or self.port


def _prefixed(name: str, options: tuple[Option, ...]) -> tuple[Option, ...]:
    return tuple(replace(option, key=f"{name}.{option.key}") for option in options)


#: The protocols of the format. Ports: RFC 5321 and 8314 (smtp), 2033 (lmtp: any but 25, IANA has
#: 24), 9051 (imap), 5804 (managesieve), 9110 (http), 8620 (jmap, which is always over TLS).
PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("smtp", 25, 465, True, True, _prefixed("smtp", SMTP_OPTIONS)),
        Protocol("lmtp", 24, 0, True, True, _prefixed("lmtp", LMTP_OPTIONS)),
        Protocol("imap", 143, 993, True, True),
        Protocol("managesieve", 4190, 0, True, True),
        Protocol("jmap", 443, 443, False),
        Protocol("http", 80, 443, False, False, _prefixed("http", HTTP_OPTIONS)),
    )
}

# Those that this package has a handler for; it works also where it was never installed.
_OWN = frozenset(("smtp", "lmtp", "http"))

#: Protocols that cannot go from plain text to TLS within a connection.
WITHOUT_STARTTLS = frozenset(("http", "jmap"))

# Names of tables and keys that a handler's own table would collide with.
_RESERVED = frozenset(option.key.partition(".")[0] for option in LISTENER_OPTIONS) | {
    "certificate",
    "log",
    "server",
}


@cache
def registered() -> Mapping[str, EntryPoint]:
    """Return the handlers that installed packages register, by protocol."""
    return {point.name.lower(): point for point in entry_points(group=GROUP)}


def is_served(name: str) -> bool:
    """Tell whether this installation has a handler for a protocol."""
    return name in _OWN or name in registered()


@cache
def load_registered(name: str) -> Protocol:
    """Return a protocol that a package registers, which imports its handler.

    Raises:
        ProtocolError: if it cannot be imported, or is no handler.
    """
    point = registered()[name]
    try:
        handler = point.load()
    except Exception as error:
        # Foreign code runs here and may raise anything; the user learns which package it was.
        reason = f"{type(error).__name__}: {error}"
        raise ProtocolError(f"its handler {point.value} cannot be loaded: {reason}") from error
    try:
        options = tuple(handler.options)
        protocol = Protocol(
            name,
            handler.default_port,
            handler.default_tls_port,
            handler.server_speaks_first,
            getattr(handler, "starttls", False),
            _prefixed(name, options),
        )
    except (AttributeError, TypeError) as error:
        raise ProtocolError(f"its handler {point.value} is not a Handler: {error}") from error
    if options and name in _RESERVED:
        raise ProtocolError(f"its handler {point.value} has settings under a reserved name")
    for option in options:
        if option.kind not in KINDS:
            raise ProtocolError(f"{option.key} of its handler has the unknown kind {option.kind}")
    return protocol
