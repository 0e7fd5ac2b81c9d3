"""Takes over sockets from the former program of an upgrade.

Rules of this file: the kernel tells what a descriptor is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastlisten.config import ListenerSettings
from fastlisten.runtime.sockets.bound_socket import BoundSocket
from fastlisten.runtime.sockets.inherited_descriptors import take_descriptor
from fastlisten.runtime.sockets.socket_calls import socket_calls

__all__ = ["taken_over"]


def taken_over(
    fd: int, settings: ListenerSettings, bind: str, unlink: Sequence[Any] | None
) -> BoundSocket:
    """Return a socket that a former program has opened in this process.

    Options that can only be set before bind(2) or listen(2) stay as they are.

    Args:
        fd: its descriptor.
        settings: of the listener.
        bind: as written in the configuration.
        unlink: as the attribute.

    Raises:
        OSError: it is something else.
    """
    sock = take_descriptor(fd)
    sock.setblocking(False)
    made = None if unlink is None else (str(unlink[0]), int(unlink[1]), int(unlink[2]))
    found = next(one for one in settings.bind if one.text == bind)
    accepted = socket_calls(settings, sock).batch
    return BoundSocket(settings.id, found, sock, settings["socket.backlog"], accepted, made)
