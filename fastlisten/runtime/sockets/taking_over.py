"""Sockets in an upgrade: what the former program passes on, and how the new one takes them over.

Rules of this file: the kernel tells what a descriptor is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastlisten.config import Bind, ListenerSettings
from fastlisten.runtime.sockets.bound_socket import BoundSocket
from fastlisten.runtime.sockets.inherited_descriptors import take_descriptor
from fastlisten.runtime.sockets.socket_calls import socket_calls

__all__ = ["state_of", "taken_over"]


def state_of(bound: BoundSocket, binds: Sequence[Bind]) -> dict[str, Any]:
    """Return what the new program needs to know of a socket, as a JSON value.

    Args:
        bound: the socket, with its descriptor.
        binds: of its listener.
    """
    return {
        "fd": bound.sock.fileno(),
        "listener": bound.listener,
        # Two that are written alike, with port 0, have different sockets.
        "bind": next(place for place, bind in enumerate(binds) if bind is bound.bind),
        "unlink": bound.unlink,
        "worker": bound.worker,
    }


def taken_over(state: Mapping[str, Any], settings: ListenerSettings) -> BoundSocket:
    """Return a socket that a former program has opened in this process.

    Options that can only be set before bind(2) or listen(2) stay as they are.

    Args:
        state: made by `state_of`.
        settings: of the listener.

    Raises:
        OSError: it is something else.
    """
    sock = take_descriptor(state["fd"])
    sock.setblocking(False)
    unlink = state["unlink"]
    return BoundSocket(
        settings.id,
        settings.bind[state["bind"]],
        sock,
        settings["socket.backlog"],
        socket_calls(settings, sock).batch,
        None if unlink is None else (str(unlink[0]), int(unlink[1]), int(unlink[2])),
        state["worker"],
    )
