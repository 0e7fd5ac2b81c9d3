"""`fastlisten show --effective`: the value that the kernel gives to each socket option.

Rules of this file: sockets are created, set up, bound and closed, but never listen, so clients do
not notice. If a running server holds the address, the failed bind is printed and does no harm.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Literal, TextIO

from fastlisten.config import Bind, Config, ListenerSettings, Machine, SocketSetting, socket_options
from fastlisten.config.notation import quote
from fastlisten.option import SocketOption

__all__ = ["print_effective"]

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}


def print_effective(config: Config, out: TextIO) -> None:
    """Print the requested and the actual value of every socket option of every bind."""
    somaxconn = Machine.current().somaxconn
    for listener in config.listeners:
        print(f"listener {quote(listener.id)}", file=out)
        for bind in listener.bind:
            print(f"  {bind.text}", file=out)
            for line in _bind(listener, bind, somaxconn):
                print(f"    {line}", file=out)


def _bind(listener: ListenerSettings, bind: Bind, somaxconn: int | None) -> Iterator[str]:
    if bind.family == "fd" or bind.family == "systemd":
        yield "inherited: options are set by `serve`"
        return
    try:
        made = socket.socket(_FAMILIES[bind.family], socket.SOCK_STREAM)
    except OSError as error:
        yield f"socket: {error.strerror}"
        return
    with made:
        yield from _options(made, listener, bind)
    backlog = listener["socket.backlog"]
    got = backlog if somaxconn is None else min(backlog, somaxconn)
    yield _row("socket.backlog", "listen", str(backlog), str(got))


def _options(made: socket.socket, listener: ListenerSettings, bind: Bind) -> Iterator[str]:
    family: Literal["inet", "inet6", "unix"] = "unix"
    if bind.family == "inet" or bind.family == "inet6":
        family = bind.family
    # Options that are set on accepted sockets again are shown once.
    settings = [
        setting
        for setting in socket_options(listener, family, bind.v6only is False)
        if setting.call.phase != "accepted"
    ]
    failed: dict[SocketOption, str] = {}
    if bind.v6only is not None:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bind.v6only))
        kept = made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        yield _row("", "IPV6_V6ONLY", str(int(bind.v6only)), str(kept))
    for phase in ("bind", "listen"):
        for setting in settings:
            if setting.call.phase == phase:
                try:
                    made.setsockopt(setting.call.level, setting.call.name, setting.packed)
                except OSError as error:
                    failed[setting.call] = str(error.strerror)
        if phase == "bind" and family != "unix":
            # Not a Unix socket, which would leave a file behind or replace a running server's.
            try:
                made.bind(_address(bind))
            except OSError as error:
                yield f"bind: {error.strerror}"
    for setting in settings:
        call = setting.call
        got = failed.get(call) or _got(made, setting)
        yield _row(setting.option.key, call.symbol, _shown(setting, setting.packed), got)


def _address(bind: Bind) -> tuple[str, int] | tuple[str, int, int, int]:
    if bind.family == "inet":
        return bind.address, bind.port
    scope = 0
    if bind.scope.isdigit():
        scope = int(bind.scope)
    elif bind.scope:
        # If there is no such interface, bind(2) reports it.
        with contextlib.suppress(OSError):
            scope = socket.if_nametoindex(bind.scope)
    return bind.address, bind.port, 0, scope


def _got(made: socket.socket, setting: SocketSetting) -> str:
    size = 16 if setting.option.kind == "congestion" else len(setting.packed)
    try:
        return _shown(setting, made.getsockopt(setting.call.level, setting.call.name, size))
    except OSError as error:
        return str(error.strerror)


def _shown(setting: SocketSetting, packed: bytes) -> str:
    """Return an option's value as text: a name, the values of SO_LINGER, or a number."""
    if setting.option.kind == "congestion":
        return packed.rstrip(b"\0").decode("ascii", "replace")
    if setting.option.kind == "linger":
        on, seconds = struct.unpack("=ii", packed)
        return f"on, {seconds} s" if on else "off"
    return str(struct.unpack("=i", packed)[0])


def _row(key: str, symbol: str, asked: str, got: str) -> str:
    return f"{key:<26} {symbol:<18} asked {asked:<10} got {got}"
