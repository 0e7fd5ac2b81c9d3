"""Opens the socket of one bind, or one for each worker: creates it, sets its options, binds it.

Rules of this file: all failures of a bind are collected. It does not listen.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
from collections.abc import Sequence

from fastlisten._core import OptionBatch
from fastlisten.config import Bind, ListenerSettings, SocketSetting
from fastlisten.errors import SocketFailure
from fastlisten.privileges import group_id, user_id
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.failures import option_failure, socket_failure
from fastlisten.runtime.sockets.inherited_descriptors import take_descriptor
from fastlisten.runtime.sockets.socket_calls import socket_calls
from fastlisten.runtime.sockets.unix_files import bind_file, change_access

__all__ = ["Opening", "unix_owner"]

_IP = ("inet", "inet6")
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}

#: Errors of socket(2) or bind(2) on a host without IPv6.
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class Opening:
    """Opens the sockets of one bind; `failures` says what went wrong.

    Attributes:
        beside: bind although another socket of this process has the address, with SO_REUSEPORT.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        bind: Bind,
        wildcards: set[int],
        owner: tuple[int, int],
        descriptor: int | None = None,
    ) -> None:
        self.settings = settings
        self.bind = bind
        self._descriptor = descriptor
        self.owner = owner
        self.beside = False
        self._configured = bind
        self._ipv4_wildcards = wildcards
        self.failures: list[SocketFailure] = []
        self.notes: list[str] = []

    def open_for(self, workers: int) -> list[BoundSocket]:
        """Return the bound sockets: one, or with `socket.reuse-port` one for each worker.

        Args:
            workers: how many there are.

        Returns:
            None of them if there are `failures`, or the bind is skipped.
        """
        if workers == 1 or not self.settings["socket.reuse-port"] or self.bind.family not in _IP:
            bound = self.open()
            return [] if bound is None else [bound]
        if self.bind.port:
            return self._open_queues(workers)
        chosen = self.open()
        if chosen is None:
            return []
        # One that was bound to port 0 would lose its port when it stops listening.
        self.bind = dataclasses.replace(self.bind, port=chosen.port)
        try:
            return self._open_queues(workers)
        finally:
            chosen.close()

    def _open_queues(self, workers: int) -> list[BoundSocket]:
        """Return a bound socket for each worker."""
        found: list[BoundSocket] = []
        try:
            for number in range(workers):
                bound = self.open()
                if bound is None:
                    close_all(found)
                    return []
                bound.worker = number
                found.append(bound)
        except BaseException:
            close_all(found)
            raise
        return found

    def open(self) -> BoundSocket | None:
        """Return the bound socket, or None if there are `failures` or the bind is skipped."""
        sock = self._create() if self._descriptor is None else self._inherited(self._descriptor)
        if sock is None:
            return None
        unlink: tuple[str, int, int] | None = None
        try:
            sock.setblocking(False)
            calls = socket_calls(self.settings, sock)
            if self._descriptor is None:
                self._apply(sock, calls.before_bind)
                if self.beside:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if not self.failures:
                    unlink = self._bind(sock)
            self._apply(sock, calls.before_listen)
        except BaseException:
            sock.close()
            raise
        bound = BoundSocket(
            self.settings.id,
            self._configured,
            sock,
            self.settings["socket.backlog"],
            calls.batch,
            unlink,
        )
        if self.failures:
            bound.close()
            return None
        return bound

    def _fail(self, operation: str, error: OSError, name: object = None) -> None:
        self.failures.append(socket_failure(self.settings.id, self.bind, operation, error, name))

    def _create(self) -> socket.socket | None:
        bind = self.bind
        try:
            sock = socket.socket(_FAMILIES[bind.family], socket.SOCK_STREAM)
            if bind.family != "inet6":
                return sock
            try:
                # Always set, because the default is a sysctl (net.ipv6.bindv6only).
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(bind.v6only)))
                if bind.wildcard:
                    # A host with IPv6 turned off may support such sockets but have no addresses.
                    probe = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
                    with probe:
                        probe.bind(("::", 0))
            except BaseException:
                sock.close()
                raise
            return sock
        except OSError as error:
            if bind.wildcard and bind.family == "inet6" and error.errno in _NO_IPV6:
                return self._fall_back()
            self._fail("socket", error)
            return None

    def _fall_back(self) -> socket.socket | None:
        """Serve the IPv4 half of ``[::]`` on a host without IPv6."""
        bind = self.bind
        if bind.port in self._ipv4_wildcards:
            self._note("0.0.0.0 is already bound")
            return None
        self._note("bound to 0.0.0.0 instead")
        self.bind = Bind(bind.text, "inet", "0.0.0.0", bind.port, wildcard=True)  # noqa: S104
        return self._create()

    def _note(self, consequence: str) -> None:
        self.notes.append(
            f'listener "{self.settings.id}" on {self.bind.text}: this host has no IPv6; '
            f"{consequence}"
        )

    def _inherited(self, descriptor: int) -> socket.socket | None:
        try:
            return take_descriptor(descriptor)
        except OSError as error:
            self._fail(self.bind.family, error)
            return None

    def _apply(self, sock: socket.socket, options: Sequence[SocketSetting]) -> None:
        batch = OptionBatch([(one.call.level, one.call.name, one.packed) for one in options])
        for index, number in batch.apply(sock.fileno()):
            failure = option_failure(self.settings, self.bind, options[index], number)
            self.failures.append(failure)

    def _bind(self, sock: socket.socket) -> tuple[str, int, int] | None:
        bind = self.bind
        name: object
        if bind.family == "unix":
            return self._bind_unix(sock)
        if bind.family == "inet":
            name = (bind.address, bind.port)
        else:
            try:
                scope = _scope_id(bind.scope)
            except OSError:
                # Not every version of Python sets errno here.
                self._fail(
                    f"interface {bind.scope}", OSError(errno.ENODEV, os.strerror(errno.ENODEV))
                )
                return None
            name = (bind.address, bind.port, 0, scope)
        try:
            sock.bind(name)
        except OSError as error:
            self._fail("bind", error, name)
        return None

    def _bind_unix(self, sock: socket.socket) -> tuple[str, int, int] | None:
        path, mode = self.bind.address, self.settings["socket.mode"]
        owner = unix_owner(self.settings, self.bind, self.owner, self.failures)
        if self.failures:
            return None
        try:
            made = bind_file(sock, path, mode)
        except OSError as error:
            self._fail("bind", error, path)
            return None
        try:
            if owner != (-1, -1):
                change_access(made, None, *owner)
        except OSError as error:
            self._fail("socket.user/group", error)
        return made


def unix_owner(
    settings: ListenerSettings,
    bind: Bind,
    default: tuple[int, int],
    failures: list[SocketFailure],
) -> tuple[int, int]:
    """Return the ids of `socket.user` and `socket.group`.

    Args:
        settings: of the listener.
        bind: of the Unix socket.
        default: user and group if they are not set.
        failures: receives those that do not exist.
    """
    ids = list(default)
    for index, (key, find) in enumerate((("socket.user", user_id), ("socket.group", group_id))):
        if name := settings[key]:
            try:
                ids[index] = find(name)
            except KeyError:
                text = "does not exist on this system"
                failures.append(SocketFailure(settings.id, bind.text, key, name, 0, text))
    return ids[0], ids[1]


def _scope_id(scope: str) -> int:
    """Return the index of an interface given by name or number; 0 for none."""
    if not scope:
        return 0
    return int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
