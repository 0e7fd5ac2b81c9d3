"""A loaded configuration as text: TOML that loads to the same listeners, and JSON.

Rules of this file: TOML has only the values that are written, JSON has all. Passwords, and private
keys in the configuration itself, are replaced by placeholders that cannot be loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastlisten.config.notation import dotted, quote
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS
from fastlisten.config.settings import Bind, Config, ListenerSettings
from fastlisten.config.values.kinds import KINDS, plain, write
from fastlisten.option import Option

__all__ = ["to_plain", "to_toml"]

#: Version of the format of `to_plain`; programs that read it should check this first.
FORMAT = 1

_HIDDEN_KEY = "-----BEGIN PRIVATE KEY-----\nnot shown\n-----END PRIVATE KEY-----\n"


def to_plain(config: Config) -> dict[str, Any]:
    """Return all listeners with the value and origin of each key, for JSON."""
    return {"format": FORMAT, "listeners": [_plain_listener(each) for each in config.listeners]}


def _plain_listener(listener: ListenerSettings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": listener.id,
        "protocol": listener.protocol,
        "bind": [_plain_bind(bind) for bind in listener.bind],
    }
    for option in listener.options:
        key = option.key
        found[key] = {"value": plain(option, listener[key]), "origin": listener.origin(key)}
    return found


def _plain_bind(bind: Bind) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": bind.text,
        "family": bind.family,
        "address": bind.address,
        "port": bind.port,
    }
    if bind.scope:
        found["scope"] = bind.scope
    if bind.fd is not None:
        found["fd"] = bind.fd
    return found


def to_toml(config: Config) -> str:
    """Return TOML that loads to the same listeners once its secrets are filled in."""
    process = {option.key: option for option in config.process_options}
    rows = config.server_options
    server = [
        (key.removeprefix("server."), process[key], config.process[key])
        for key in process
        if key.startswith("server.") and config.origin(key) != "default"
    ]
    tables: dict[str, list[tuple[str, Option, Any]]] = {"server": server}
    for key, value in config.server.items():
        group = key.partition(".")[0]
        if group in config.protocol_tables:
            entry = (key.removeprefix(f"{group}."), rows[key], value)
            tables.setdefault(group, []).append(entry)
        else:
            server.append((key, rows[key], value))
    tables["log"] = [
        (key.removeprefix("log."), process[key], config.process[key])
        for key in process
        if key.startswith("log.") and config.origin(key) != "default"
    ]
    parts = [_table(dotted((name,)), entries) for name, entries in tables.items() if entries]
    for certificate in config.certificates.values():
        key_text = certificate.private_key
        shown = key_text if key_text.startswith("file://") else _HIDDEN_KEY
        values = (certificate.cert, shown, certificate.default)
        entries = [
            (row.key, row, value)
            for row, value in zip(CERTIFICATE_OPTIONS, values, strict=True)
            if value != row.default
        ]
        parts.append(_table(f"certificate.{quote(certificate.id)}", entries))
    parts += [_listener(listener) for listener in config.listeners]
    return "\n".join(parts)


def _listener(listener: ListenerSettings) -> str:
    binds = KINDS["bind"].write([bind.text for bind in listener.bind])
    text = f"[server.listener.{quote(listener.id)}]\n"
    text += f"protocol = {quote(listener.protocol)}\nbind = {binds}\n"
    rows = {option.key: option for option in listener.options}
    return text + _entries((key, rows[key], value) for key, value in listener.written.items())


def _table(name: str, entries: Iterable[tuple[str, Option, Any]]) -> str:
    return f"[{name}]\n{_entries(entries)}"


def _entries(entries: Iterable[tuple[str, Option, Any]]) -> str:
    return "".join(
        f"{dotted(key.split('.'))} = {write(option, value)}\n" for key, option, value in entries
    )
