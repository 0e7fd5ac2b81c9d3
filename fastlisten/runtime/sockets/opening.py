"""Opens sockets: creates, sets up and binds all of them, then listens on all of them.

Rules of this file: each of the two phases goes through all sockets and collects every failure
before it raises, so that an administrator sees them together. On failure all sockets are closed. No
socket listens unless all are bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastlisten.config import Bind, ListenerSettings
from fastlisten.errors import SocketFailure, StartError
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.failures import socket_failure
from fastlisten.runtime.sockets.opening_bind import Opening
from fastlisten.runtime.sockets.passed_sockets import descriptors_named, passed_descriptors

__all__ = ["ipv4_wildcards", "listen_all", "open_all"]


def open_all(
    listeners: Iterable[ListenerSettings],
    notes: list[str] | None = None,
    owner: tuple[int, int] = (-1, -1),
    workers: int = 1,
) -> list[BoundSocket]:
    """Create, set up and bind the sockets of all listeners; none of them listens yet.

    Args:
        listeners: their settings.
        notes: receives what the administrator should know, a sentence each.
        owner: user and group of Unix sockets' files whose listener has no `socket.user` or
            `socket.group`; -1 for those of this process.
        workers: how many there are.

    Returns:
        The sockets in order of listener, bind and worker.

    Raises:
        StartError: with every failure; all sockets are closed.
    """
    opened: list[BoundSocket] = []
    failures: list[SocketFailure] = []
    listeners = tuple(listeners)
    wildcards = ipv4_wildcards(listeners)
    try:
        for settings in listeners:
            for bind in settings.bind:
                try:
                    descriptors = _descriptors(bind)
                except OSError as error:
                    failures.append(socket_failure(settings.id, bind, "systemd", error))
                    continue
                for fd in descriptors:
                    opening = Opening(settings, bind, wildcards, owner, fd)
                    opened += opening.open_for(workers)
                    failures += opening.failures
                    if notes is not None:
                        notes += opening.notes
        if failures:
            raise StartError(failures)
    except BaseException:
        close_all(opened)
        raise
    if notes is not None:
        notes += _unused(opened)
    return opened


def _descriptors(bind: Bind) -> Sequence[int | None]:
    """Return the inherited descriptors of a bind; None for a socket to be created.

    Raises:
        OSError: systemd has passed none of its name.
    """
    if bind.family == "systemd":
        return descriptors_named(bind.address)
    return [bind.fd]


def ipv4_wildcards(listeners: Iterable[ListenerSettings]) -> set[int]:
    """Return the ports that listeners bind on all IPv4 addresses."""
    return {
        bind.port
        for settings in listeners
        for bind in settings.bind
        if bind.family == "inet" and bind.wildcard and bind.port
    }


def _unused(opened: Iterable[BoundSocket]) -> list[str]:
    """Return a note for each socket that systemd has passed and that no listener uses."""
    try:
        passed = passed_descriptors()
    except OSError:
        return []
    used = {bound.sock.fileno() for bound in opened}
    return [
        f'systemd has passed a socket named "{name}" that no listener uses: its clients will wait '
        "in vain"
        for name in dict.fromkeys(name for fd, name in passed.items() if fd not in used)
    ]


def listen_all(sockets: Sequence[BoundSocket]) -> None:
    """Call listen(2) on all sockets.

    Raises:
        StartError: with every failure; all sockets are closed.
    """
    failures = []
    for bound in sockets:
        try:
            bound.sock.listen(bound.backlog)
        except OSError as error:
            failures.append(
                socket_failure(
                    bound.listener, bound.bind, "listen", error, bound.sock.getsockname()
                )
            )
    if failures:
        close_all(sockets)
        raise StartError(failures)
