"""The setsockopt calls for a listener's settings.

Rules of this file: from values to bytes; no socket is touched. The row's phase says whether a call
is made before bind, before listen or on accepted connections.
"""

from __future__ import annotations

import struct
from typing import Any, Literal, NamedTuple

from fastlisten.config.settings import ListenerSettings
from fastlisten.option import Option, SocketOption

__all__ = ["SocketSetting", "socket_options"]


class SocketSetting(NamedTuple):
    """One setsockopt call.

    Attributes:
        option: the row.
        value: its typed value.
        call: level, name and phase.
        packed: the value for setsockopt.
    """

    option: Option
    value: Any
    call: SocketOption
    packed: bytes


def socket_options(
    settings: ListenerSettings, family: Literal["inet", "inet6", "unix"], dual_stack: bool
) -> tuple[SocketSetting, ...]:
    """Return the calls for one socket, in the order in which to make them.

    There is no call for an option that is not set or off. IPV6_V6ONLY is not among them, since it
    follows from the bind.

    Args:
        settings: the listener.
        family: the socket's family.
        dual_stack: whether an inet6 socket accepts IPv4 clients too and needs the options of both.
    """
    families = {family, "any"}
    if family != "unix":
        families.add("ip")
    if family == "inet6" and dual_stack:
        families.add("inet")
    found = []
    for option in settings.options:
        if not option.sockets:
            continue
        value = settings[option.key]
        if value is None or value is False:
            continue
        if option.kind == "linger" and value > 0:
            # Done by the native core: SO_LINGER with a time would make close() block.
            continue
        packed = _pack(option, value)
        found += [
            SocketSetting(option, value, call, packed)
            for call in option.sockets
            if call.family in families
        ]
    return tuple(found)


def _pack(option: Option, value: Any) -> bytes:
    if option.kind == "linger":
        return struct.pack("=ii", 1, 0)
    if option.kind == "congestion":
        return bytes(value, "ascii")
    if option.key == "socket.user-timeout":
        return struct.pack("=i", round(value * 1000))
    return struct.pack("=i", int(value))
