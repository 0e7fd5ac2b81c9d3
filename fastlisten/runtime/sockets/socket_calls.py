"""Which setsockopt calls a listener's settings ask for, on its sockets and on accepted ones.

Rules of this file: nothing is set here.
"""

from __future__ import annotations

import socket
from typing import Literal, NamedTuple

from fastlisten._core import OptionBatch
from fastlisten.config import ListenerSettings, SocketSetting, socket_options
from fastlisten.runtime.sockets.option_inheritance import not_inherited

__all__ = ["SocketCalls", "socket_calls"]

_WORDS: dict[int, Literal["inet", "inet6", "unix"]] = {
    int(socket.AF_INET): "inet",
    int(socket.AF_INET6): "inet6",
    int(socket.AF_UNIX): "unix",
}


class SocketCalls(NamedTuple):
    """The setsockopt calls for one socket.

    Attributes:
        before_bind: in this phase.
        before_listen: in this phase.
        accepted: for each accepted connection, including those that it does not inherit.
    """

    before_bind: list[SocketSetting]
    before_listen: list[SocketSetting]
    accepted: list[SocketSetting]

    @property
    def batch(self) -> OptionBatch:
        """The calls for accepted connections."""
        return OptionBatch([(one.call.level, one.call.name, one.packed) for one in self.accepted])


def socket_calls(settings: ListenerSettings, sock: socket.socket) -> SocketCalls:
    """Return the calls that a listener's settings ask for on one of its sockets."""
    family = _WORDS.get(int(sock.family), "unix")
    dual_stack = family == "inet6" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    options = socket_options(settings, family, dual_stack)
    phases: dict[str, list[SocketSetting]] = {"bind": [], "listen": [], "accepted": []}
    for one in options:
        phases[one.call.phase].append(one)
    accepted = phases["accepted"]
    if family != "unix":
        named = {(one.call.level, one.call.name) for one in accepted}
        accepted += [
            one
            for one in not_inherited(family, dual_stack, phases["listen"])
            if (one.call.level, one.call.name) not in named
        ]
    return SocketCalls(phases["bind"], phases["listen"], accepted)
