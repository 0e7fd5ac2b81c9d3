"""From a document to a `Config`, with one report of all mistakes.

Rules of this file: only the order of the steps; each step has its own file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from fastlisten.config.checks import (
    check_binds,
    check_default_certificate,
    check_listener,
    check_total,
    check_unused_certificates,
    check_values,
    has_starttls,
    read_binds,
    server_speaks_first,
)
from fastlisten.config.document import Document
from fastlisten.config.known_protocols import KnownProtocols, known_protocols
from fastlisten.config.listener_reader import ListenerReader, UnresolvedListener
from fastlisten.config.machine import Machine
from fastlisten.config.notation import KeyPath, dotted, show_value
from fastlisten.config.protocol_checks import check_protocols
from fastlisten.config.reader import Reader, Schema, Values
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.settings import (
    Certificate,
    Config,
    ListenerSettings,
    data_directory,
)
from fastlisten.config.suggest import near
from fastlisten.handlers.class_description import Describe, describe_apart
from fastlisten.privileges import Identity, UnknownUserError, find_identity

__all__ = ["resolve"]

_LOG_SCHEMA = Schema(
    (row.key.removeprefix("log."), row) for row in PROCESS_OPTIONS if row.key.startswith("log.")
)
_CERTIFICATE_SCHEMA = Schema(((row.key, row) for row in CERTIFICATE_OPTIONS), secret=True)

_TOP_LEVEL = ("server", "certificate", "log")


@lru_cache(maxsize=1)
def _server_schema(protocols: KnownProtocols) -> Schema:
    """Return the schema of `[server]`."""
    rows = protocols.listener_options
    return Schema(
        (
            *(
                (row.key.removeprefix("server."), row)
                for row in PROCESS_OPTIONS
                if row.key.startswith("server.")
            ),
            *((row.key, row) for row in rows if "server" in row.scopes),
        ),
        elsewhere={
            **{
                row.key: f'this belongs to a listener: server.listener."ID".{row.key}'
                for row in rows
                if "server" not in row.scopes
            },
            "blocked-ip": "addresses are not blocked by this key, which would let them in: "
            "write limits.deny",
        },
        others=("listener",),
    )


def resolve(document: Document, machine: Machine, default_directory: str = "") -> Config:
    """Return what a document means on a host.

    Args:
        document: parsed, without notes yet.
        machine: the machine.
        default_directory: of data, where the document names none; empty for the host's.

    Raises:
        ConfigurationError: with all mistakes.
    """
    protocols = known_protocols()
    reader = Reader(document, machine)
    process = Values()
    server_table = reader.table(document.data, ("server",))
    tables = reader.table(server_table, ("server", "listener"))
    rest = {key: value for key, value in server_table.items() if key != "listener"}
    reader.read(rest, _server_schema(protocols), ("server",), process, strict=False)
    reader.read(reader.table(document.data, ("log",)), _LOG_SCHEMA, ("log",), process)
    certificates = _certificates(reader)
    server = {
        row.key: process.typed.pop(row.key)
        for row in protocols.listener_options
        if row.key in process.typed
    }
    check_values(document, machine, server, _in_server, certificates)

    values = _process(process.typed, machine, default_directory)
    if machine.refused_hostname and "server.hostname" not in process.typed:
        document.warning(
            (),
            f"this host's name {show_value(machine.refused_hostname)} is not a domain name, so the "
            f"server calls itself {machine.hostname}; set server.hostname",
        )
    own = {key: f"server.{key}" for key in ("hostname", "greeting")}
    written = {key: values[full] for key, full in own.items() if full in process.typed}
    defaults = {key: values[full] for key, full in own.items()}
    describe = _describe(values, machine)
    reading = ListenerReader(reader, protocols, {**server, **written}, defaults, describe)
    listeners = _read_listeners(reading, reader, tables, protocols)
    for listener in listeners:
        if listener.values.typed:
            check_values(document, machine, listener.values.typed, listener.at, certificates)
        check_listener(document, listener, certificates, protocols)
        read_binds(document, listener)
    check_protocols(document, protocols.definitions.values(), listeners, reading.tables)
    check_binds(document, listeners)
    check_total(document, values["server.total-connections"], listeners)
    check_unused_certificates(document, listeners, certificates)
    _check_default_backlog(document, machine, listeners)
    _report_foreign(document, reader, reading, protocols)
    reading.warn_of_missing_classes()
    document.check()
    shared = {**server, **reading.tables}
    return Config(
        listeners=tuple(_listener(listener, document) for listener in listeners),
        process=MappingProxyType(values),
        server=MappingProxyType(shared),
        server_options=MappingProxyType(reading.rows(shared)),
        protocol_tables=frozenset(key.partition(".")[0] for key in reading.tables),
        certificates=MappingProxyType(certificates),
        warnings=document.warnings(),
        file=document.file,
        _written=frozenset(process.typed),
        _processors=machine.processors,
        _document=document,
    )


#: The id of the user without rights in all Linux distributions, and of unmapped ones (proc(5)).
_NOBODY = 65534


def _describe(process: Mapping[str, Any], machine: Machine) -> Describe | None:
    """Return how handler classes are looked at; None: by importing them here.

    A process that becomes a supervisor, or changes its user, must not import them.
    """
    workers, user = process["server.workers"], process["server.run-as.user"]
    several = machine.processors > 1 if workers == "auto" else workers > 1
    identity = None
    if user is not None and os.geteuid() == 0:
        try:
            identity = find_identity(user, process["server.run-as.group"])
        except UnknownUserError:
            # Reported before anything is served; until then, somebody without rights.
            identity = Identity("nobody", _NOBODY, _NOBODY, (_NOBODY,))
    if identity is None and not several:
        return None
    return partial(describe_apart, identity=identity)


def _in_server(key: str) -> KeyPath:
    """Return the path of a listener's key in `[server]`."""
    return ("server", *key.split("."))


def _read_listeners(
    reading: ListenerReader, reader: Reader, tables: Mapping[str, Any], protocols: KnownProtocols
) -> list[UnresolvedListener]:
    ids = sorted(tables)
    for id in ids:
        if isinstance(tables[id], dict):
            reading.find_protocol(id, tables[id])
    reading.read_tables()
    keys = frozenset(row.key for row in protocols.listener_options)
    listeners = []
    for id in ids:
        path = ("server", "listener", id)
        if isinstance(tables[id], dict):
            listeners.append(reading.read(id, tables[id]))
        elif id in keys:
            reader.document.error(
                path,
                "a listener needs an ID",
                tables[id],
                allowed=f'{id} in a table [server.listener."ID"]',
            )
        else:
            reader.table(tables, path)
    if not tables and not reader.document.has_errors_at(("server",), ("server", "listener")):
        message = "no listener is configured"
        if "include" in reader.document.data:
            message += "; files named by `include` are not read"
        reader.document.error((), message, allowed='one or more tables [server.listener."ID"]')
    return listeners


def _certificates(reader: Reader) -> dict[str, Certificate]:
    found = {}
    tables = reader.table(reader.document.data, ("certificate",))
    for id in tables:
        path = ("certificate", id)
        values = Values()
        table = reader.table(tables, path)
        reader.read(table, _CERTIFICATE_SCHEMA, path, values, strict=False)
        for key in ("cert", "private-key"):
            if isinstance(tables[id], dict) and key not in table:
                reader.document.error(path, f"the key {key} is missing")
        typed = values.typed
        found[id] = Certificate(
            id, typed.get("cert", ""), typed.get("private-key", ""), typed.get("default", False)
        )
    check_default_certificate(reader.document, found)
    return found


def _process(written: Mapping[str, Any], machine: Machine, directory: str) -> dict[str, Any]:
    """Return the process-wide values, with the defaults that depend on the host."""
    values = {row.key: written.get(row.key, row.default) for row in PROCESS_OPTIONS}
    if values["server.hostname"] is None:
        values["server.hostname"] = machine.hostname
    if values["server.data-directory"] is None:
        values["server.data-directory"] = directory or data_directory(machine.environ)
    if values["server.accounts"] is None:
        values["server.accounts"] = os.path.join(values["server.data-directory"], "accounts.toml")
    return values


def _check_default_backlog(
    document: Document, machine: Machine, listeners: list[UnresolvedListener]
) -> None:
    """Warn once if the default backlog is in use and the kernel limits it."""
    if machine.somaxconn is None:
        return
    for listener in listeners:
        key, base = "socket.backlog", listener.base
        if key not in listener.values.typed and key not in base.from_server:
            if base.inherited[key] > machine.somaxconn:
                document.warning(
                    (),
                    f"the kernel clamps the default {key} = {base.inherited[key]} to "
                    f"net.core.somaxconn = {machine.somaxconn}",
                )
            return


def _report_foreign(
    document: Document, reader: Reader, reading: ListenerReader, protocols: KnownProtocols
) -> None:
    """List tables and keys of other programs in one warning; report misspelt ones as errors."""
    foreign = list(reader.foreign)
    ours = (*_TOP_LEVEL, *protocols.definitions)
    # Sometimes written at the top of the file by mistake.
    keys_of_server = (*_server_schema(protocols).tree, "listener")
    for name in document.data:
        if name in _TOP_LEVEL or reading.is_own_table(name):
            continue
        path = (name,)
        if name == "acme":
            document.error(
                path,
                "ACME is not supported; use an external ACME client and name its files in "
                "[certificate]",
            )
        elif name in protocols.broken:
            if not reading.is_reported(name):
                message = f"ignored, because protocol {name} cannot be used: "
                document.warning(path, message + protocols.broken[name])
        elif name in keys_of_server:
            document.error(path, "this belongs in [server]", suggestion=f"server.{name}")
        elif name not in ours and (slip := near(name, ours)):
            document.error(path, "unknown table", suggestion=slip)
        elif name == "listeners":
            document.error(path, "unknown table", suggestion="server.listener")
        else:
            foreign.append(path)
    if foreign:
        names = ", ".join(dotted(path) for path in foreign[:20])
        more = f" and {len(foreign) - 20:,} more" if len(foreign) > 20 else ""
        document.warning((), f"not settings of this server, ignored: {names}{more}")


def _listener(listener: UnresolvedListener, document: Document) -> ListenerSettings:
    base, typed = listener.base, listener.values.typed
    typed.pop("bind", None)
    typed.pop("protocol", None)
    return ListenerSettings(
        id=listener.id,
        protocol=base.protocol.name,
        definition=base.protocol,
        bind=tuple(listener.binds),
        server_speaks_first=server_speaks_first(listener),
        starttls=has_starttls(listener),
        options=base.options,
        written=MappingProxyType(typed),
        adjusted=MappingProxyType(listener.adjusted),
        _inherited=base.inherited,
        _from_server=base.from_server,
        _document=document,
    )
