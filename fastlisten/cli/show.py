"""`fastlisten show [FILE]`: every setting of every listener, and who can reach it.

Rules of this file: the text form. JSON and TOML are in `config/export.py`, the actual values of
socket options in `cli/effective_options.py`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Literal, TextIO

from fastlisten.cli.check import CONFIGURATION_ERROR, open_config
from fastlisten.cli.effective_options import print_effective
from fastlisten.config import Bind, Config, ListenerSettings
from fastlisten.config.export import to_plain, to_toml
from fastlisten.config.notation import quote
from fastlisten.config.unavailable import find_unavailable
from fastlisten.config.values.kinds import write

__all__ = ["run"]

Mode = Literal["text", "json", "toml", "effective"]


def run(file: str | None, mode: Mode, out: TextIO, err: TextIO) -> int:
    """Show a configuration.

    Args:
        file: its path; None for the embedded default.
        mode: ``text``; ``json``; ``toml``, which can be loaded again; ``effective`` for requested
            and actual values of socket options.
        out: receives the configuration.
        err: receives mistakes and warnings.

    Returns:
        0, or 2 if the configuration cannot be used.
    """
    config = open_config(file, err)
    if config is None:
        return CONFIGURATION_ERROR
    if mode == "json":
        json.dump(to_plain(config), out, indent=2)
        out.write("\n")
    elif mode == "toml":
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(encoding="utf-8")  # TOML is UTF-8 whatever the locale
        out.write(to_toml(config))
    elif mode == "effective":
        print_effective(config, out)
    else:
        for line in _text(config):
            print(line, file=out)
    return 0


def _text(config: Config) -> Iterator[str]:
    yield "the whole process"
    for option in config.process_options:
        value = config.process[option.key]
        shown = "not set" if value is None else write(option, value)
        origin = config.origin(option.key)
        yield _row(option.key, shown, _where(origin, config.line(option.key)))
    for listener in config.listeners:
        yield ""
        yield from _listener(listener, config.workers)
    if unavailable := find_unavailable(config):
        yield ""
        yield "not available in this version"
        for problem in unavailable:
            yield f"  {problem}"


def _listener(listener: ListenerSettings, workers: int) -> Iterator[str]:
    yield f"listener {quote(listener.id)}: {listener.protocol}, {_encryption(listener)}"
    for bind in listener.bind:
        own = workers > 1 and listener["socket.reuse-port"] and bind.family in ("inet", "inet6")
        queues = f"; {workers} accept queues" if own else ""
        yield f"  {bind.text}: {reachable(bind)}{queues}"
    for option in listener.options:
        key = option.key
        value = listener[key]
        shown = "not set" if value is None else write(option, value)
        origin = listener.origin(key)
        yield _row(key, shown, _where(origin, 0 if origin == "default" else listener.line(key)))


def _row(key: str, value: str, where: str) -> str:
    return f"  {key:<30} {value:<24} {where}"


def _where(origin: str, line: int) -> str:
    return f"{origin}, line {line}" if line else origin


def _encryption(listener: ListenerSettings) -> str:
    if listener["tls.implicit"]:
        return "TLS from the first byte"
    if listener.starttls:
        return "plain text until STARTTLS"
    return "plain text"


def reachable(bind: Bind) -> str:
    """Return who can reach an address, as text."""
    if bind.family == "unix":
        return "processes on this host that may open the file"
    if bind.family in ("fd", "systemd"):
        return "whoever can reach the inherited socket"
    port = f"port {bind.port}" if bind.port else "a port that the kernel chooses"
    if bind.wildcard:
        families = "IPv4" if bind.family == "inet" else "IPv6" if bind.v6only else "IPv4 and IPv6"
        return f"all {families} addresses of this host, {port}"
    if bind.address.startswith("127.") or bind.address == "::1":
        return f"this host only, {port}"
    on = f" on interface {bind.scope}" if bind.scope else ""
    return f"whoever can reach {bind.address}{on}, {port}"
