"""A loaded configuration: `Config`, `ListenerSettings`, `Bind` and `Certificate`, all frozen.

Rules of this file: data and look-ups. Values are typed: durations are seconds (float), sizes are
bytes (int), and a value that is not set is None.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from fastlisten.config.document import Document
from fastlisten.config.notation import KeyPath
from fastlisten.config.rows.listener import LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.rows.process import MAX_WORKERS
from fastlisten.config.secret_places import SecretPlaces, find_secrets
from fastlisten.errors import Problem
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option, Origin

__all__ = ["Bind", "Certificate", "Config", "Family", "ListenerSettings", "default_path"]

Family = Literal["inet", "inet6", "unix", "fd", "systemd"]


@dataclass(frozen=True, slots=True)
class Bind:
    """One address to listen on.

    Attributes:
        text: as written in the configuration.
        family: kind of socket; the real family of ``fd`` and ``systemd`` is known from the socket.
        address: canonical IP address, or a path, or the name of a systemd socket.
        port: TCP port; 0 if the kernel is to choose one, and for other families.
        scope: name or number of the interface of a scoped IPv6 address, or empty.
        wildcard: whether it is all addresses of the host.
        v6only: the value of IPV6_V6ONLY; None if the family is not inet6.
        fd: number of an inherited descriptor, None for other families.
    """

    text: str
    family: Family
    address: str
    port: int = 0
    scope: str = ""
    wildcard: bool = False
    v6only: bool | None = None
    fd: int | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What identifies its socket, however the address is written."""
        return (self.family, self.address, self.port, self.scope, self.v6only, self.fd)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One `[certificate."ID"]` table.

    Attributes:
        id: its name.
        cert: PEM text, or ``file://`` and a path.
        private_key: the same for the key.
        default: used for listeners that name no certificate.
    """

    id: str
    cert: str
    private_key: str = field(repr=False)
    default: bool = False


def default_path(key: str, protocol: str) -> KeyPath:
    """Return the path of the default of a key: in `[server]` or in the protocol's table.

    Args:
        key: the key on a listener.
        protocol: the listener's protocol.
    """
    parts = tuple(key.split("."))
    own = parts[0] == protocol and protocol not in _SERVER_GROUPS
    return parts if own else ("server", *parts)


# First parts of the keys that all listeners have; these are never a protocol's own table.
_SERVER_GROUPS = frozenset(option.key.partition(".")[0] for option in LISTENER_OPTIONS)


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener with all its values, inherited ones included; index it by dotted key.

    Attributes:
        id: the name of its table.
        protocol: its name, in lower case.
        definition: that protocol, with the name of its handler class.
        bind: its addresses, in the order written.
        server_speaks_first: whether clients wait for the server to speak.
        starttls: whether connections start in plain text and may switch to TLS.
        options: its rows, in the table's order, those of its protocol last.
        written: the typed values of the listener's own table.
        adjusted: values that a check has changed, each with the origin to show for it: TLS enabled
            by the listener's own `tls.implicit`, the default certificate.
    """

    id: str
    protocol: str
    definition: Protocol = field(repr=False)
    bind: tuple[Bind, ...]
    server_speaks_first: bool
    starttls: bool
    options: tuple[Option, ...] = field(repr=False)
    written: Mapping[str, Any]
    adjusted: Mapping[str, tuple[Any, Origin]]
    # Shared by all listeners of a protocol: defaults, overridden by the server's values.
    _inherited: Mapping[str, Any] = field(repr=False)
    _from_server: frozenset[str] = field(repr=False)
    _document: Document = field(repr=False, compare=False)

    def __getitem__(self, key: str) -> Any:
        """Return the typed value of a dotted key; KeyError for a key that is no option."""
        if key in self.adjusted:
            return self.adjusted[key][0]
        if key in self.written:
            return self.written[key]
        return self._inherited[key]

    @property
    def settings(self) -> Mapping[str, Any]:
        """All keys and values, as a new mapping; for one value, index the listener itself."""
        values = {**self._inherited, **self.written}
        values.update((key, value) for key, (value, _) in self.adjusted.items())
        return MappingProxyType(values)

    def keys(self) -> tuple[str, ...]:
        """Return the keys in the table's order."""
        return tuple(option.key for option in self.options)

    def origin(self, key: str) -> Origin:
        """Return where the value of a key comes from."""
        if key in self.adjusted:
            return self.adjusted[key][1]
        if key in self.written:
            return "listener"
        if key in self._from_server:
            return "server"
        self._inherited[key]  # raises KeyError for a key that is no option
        return "default"

    def path(self, key: str) -> KeyPath:
        """Return the key path of the value: on the listener, or where its default is written."""
        if key not in self.written and key in self._from_server:
            return default_path(key, self.protocol)
        return ("server", "listener", self.id, *key.split("."))

    def line(self, key: str) -> int:
        """Return the line where a key is set, else the line of the listener's table."""
        path = self.path(key)
        if key not in self.written and key not in self._from_server:
            path = path[: len(("server", "listener", "id"))]
        return self._document.line(path)

    @property
    def handler_options(self) -> Mapping[str, Any]:
        """The values of the protocol's own keys, without their prefix: ``relay``."""
        own = self.definition.options
        return {option.key: self[f"{self.protocol}.{option.key}"] for option in own}


@dataclass(frozen=True, slots=True)
class Config:
    """One loaded configuration.

    Attributes:
        listeners: in order of id.
        process: the typed values of process-wide keys, by full key.
        server: the defaults for listeners that are written, by key on a listener.
        server_options: their rows, by the same key.
        protocol_tables: the names of protocols whose own table is written.
        certificates: by id.
        warnings: in order of line.
        file: the file name as given, empty if there is none.
    """

    listeners: tuple[ListenerSettings, ...]
    process: Mapping[str, Any]
    server: Mapping[str, Any]
    server_options: Mapping[str, Option] = field(repr=False)
    protocol_tables: frozenset[str] = field(repr=False)
    certificates: Mapping[str, Certificate]
    warnings: tuple[Problem, ...]
    file: str
    _written: frozenset[str] = field(repr=False)
    _processors: int = field(repr=False)
    _document: Document = field(repr=False, compare=False)

    @property
    def workers(self) -> int:
        """The number of worker processes, `auto` resolved."""
        workers: int | str = self.process["server.workers"]
        return min(self._processors, MAX_WORKERS) if isinstance(workers, str) else workers

    def origin(self, key: str) -> Origin:
        """Return where the value of a process-wide key comes from: ``server`` or ``default``."""
        self.process[key]  # raises KeyError for a key that is no option
        return "server" if key in self._written else "default"

    def line(self, key: str) -> int:
        """Return the line where a process-wide key is set, 0 if it is not."""
        return self._document.line(tuple(key.split("."))) if key in self._written else 0

    def problem(self, path: KeyPath, message: str, value: str = "", allowed: str = "") -> Problem:
        """Return a problem with a loaded value, with its file and line.

        Args:
            path: the key.
            message: what is wrong.
            value: the value as TOML text, empty if it is not to be shown.
            allowed: what would be accepted.
        """
        return self._document.problem(path, message, value, allowed)

    def secret_places(self) -> SecretPlaces:
        """Return where the secrets of the whole file are, including other programs'."""
        return find_secrets(self._document)

    @property
    def process_options(self) -> tuple[Option, ...]:
        """The rows of the process-wide keys."""
        return PROCESS_OPTIONS


def data_directory(environ: Mapping[str, str]) -> str:
    """Return the default data directory: systemd's, else one in the XDG data directory.

    A user without a home directory, as in many containers, gets /var/lib (FHS 5.8).
    """
    if state := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return state
    data = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # the XDG specification: relative paths are ignored
        home = environ.get("HOME") or os.path.expanduser("~")
        data = os.path.join(home, ".local", "share") if os.path.isabs(home) else "/var/lib"
    return os.path.join(data, "fastlisten")
