"""The setsockopt calls that a listener's settings ask for, ready to be made.

Rules of this file: from values to bytes; no socket is touched. Whether a call is made before
bind, before listen or on accepted connections is the row's phase.
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
        option: the row that asks for it.
        value: the typed value of the row.
        call: level, name and phase.
        packed: the option value as setsockopt takes it.
    """

    option: Option
    value: Any
    call: SocketOption
    packed: bytes


def socket_options(
    settings: ListenerSettings, family: Literal["inet", "inet6", "unix"], dual_stack: bool
) -> tuple[SocketSetting, ...]:
    """Return the calls for one socket, in the order in which they are to be made.

    What is not set is left to the kernel, and so is an option that is off by default. IPV6_V6ONLY
    is not among them: it follows from the bind.

    Args:
        settings: of the listener.
        family: of the socket.
        dual_stack: an inet6 socket that takes IPv4 clients too, which needs the options of both.
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
            # Carried out by the core: SO_LINGER with a time would make close() block.
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
