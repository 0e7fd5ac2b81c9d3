"""Finds socket options that an accepted socket does not inherit from its listening socket.

Rules of this file: this is tried out, once per set of options, with a connection on loopback.
Options that are not inherited are set on every accepted socket. On Linux, accepted sockets inherit
all options that can be configured, so accepting needs no setsockopt(2).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from functools import cache

from fastlisten._core import OptionBatch
from fastlisten.config import SocketSetting

__all__ = ["not_inherited"]

#: Options that have a meaning on listening sockets only.
_LISTENING_ONLY = frozenset({(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)})


def not_inherited(
    family: str, dual_stack: bool, settings: Sequence[SocketSetting]
) -> list[SocketSetting]:
    """Return the settings that accepted sockets don't inherit.

    Args:
        family: ``inet`` or ``inet6``.
        dual_stack: the socket accepts IPv4 clients too, so both kinds of client are tried.
        settings: what is set before listen(2), for TCP sockets only.
    """
    wanted = [one for one in settings if (one.call.level, one.call.name) not in _LISTENING_ONLY]
    entries = tuple((one.call.level, one.call.name, one.packed) for one in wanted)
    if not entries:
        return []
    clients = (
        ("127.0.0.1", "::1") if dual_stack else ("127.0.0.1",) if family == "inet" else ("::1",)
    )
    missing = {
        index for client in clients for index in _missing(family, dual_stack, client, entries)
    }
    return [wanted[index] for index in sorted(missing)]


@cache
def _missing(
    family: str, dual_stack: bool, client: str, entries: tuple[tuple[int, int, bytes], ...]
) -> frozenset[int]:
    """Accept a connection on loopback and compare; return the indexes of options that differ.

    A host without this loopback address has no such clients.
    """
    batch = OptionBatch(entries)
    with contextlib.ExitStack() as stack:
        try:
            listening = stack.enter_context(
                socket.socket(socket.AF_INET6 if family == "inet6" else socket.AF_INET)
            )
            if family == "inet6":
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual_stack))
            batch.apply(listening.fileno())
            listening.bind(("::" if dual_stack else client, 0))
            listening.listen(1)
            listening.settimeout(5)
            peer = stack.enter_context(
                socket.socket(socket.AF_INET if "." in client else socket.AF_INET6)
            )
            peer.settimeout(5)
            peer.connect((client, listening.getsockname()[1]))
            accepted = stack.enter_context(listening.accept()[0])
        except OSError:
            return frozenset()
        before, after = batch.read(listening.fileno()), batch.read(accepted.fileno())
        return frozenset(
            index
            for index, value in enumerate(before)
            if value is not None and value != after[index]
        )
