"""Opens sockets: creates, sets up and binds all of them, then listens on all of them.

Rules of this file: each of the two phases goes through all sockets and collects every failure
before it raises, so that an administrator sees them together. On failure all sockets are closed. No
socket listens unless all are bound.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastlisten._core import OptionBatch
from fastlisten.config import Bind, ListenerSettings, SocketSetting, socket_options
from fastlisten.errors import SocketFailure, StartError
from fastlisten.privileges import given_up, group_id, user_id
from fastlisten.runtime.sockets.address_holders import describe_holder
from fastlisten.runtime.sockets.inherited_descriptors import take_descriptor
from fastlisten.runtime.sockets.option_inheritance import not_inherited
from fastlisten.runtime.sockets.passed_sockets import descriptors_named, passed_descriptors
from fastlisten.runtime.sockets.unix_files import bind_file, change_access, remove_file

__all__ = [
    "BoundSocket",
    "Opening",
    "SocketCalls",
    "close_all",
    "ipv4_wildcards",
    "listen_all",
    "open_all",
    "option_failure",
    "socket_calls",
    "socket_failure",
    "taken_over",
    "unix_owner",
]

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}
_WORDS = {int(number): word for word, number in _FAMILIES.items()}

#: Errors of socket(2) or bind(2) on a host without IPv6.
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


@dataclass(slots=True)
class BoundSocket:
    """One bound socket of a listener.

    Attributes:
        listener: id of the listener.
        bind: the bind in the configuration.
        sock: the socket, non-blocking.
        backlog: for listen(2).
        accepted: options that accepted sockets don't inherit, to set on each; usually empty.
        unlink: the file of a Unix socket created here, to remove at the end: path, device, inode.
    """

    listener: str
    bind: Bind
    sock: socket.socket
    backlog: int
    accepted: OptionBatch
    unlink: tuple[str, int, int] | None = None

    @property
    def address(self) -> str:
        """The bound address, ``[::]:25``, with the port that the kernel chose."""
        return format_address(self.sock)

    @property
    def port(self) -> int:
        """The bound port, 0 for a Unix socket."""
        name = self.sock.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    def duplicate(self) -> BoundSocket:
        """Return a duplicate (dup(2)) for another worker. It never removes a Unix socket's file."""
        return dataclasses.replace(self, sock=self.sock.dup(), unlink=None)

    def close(self) -> None:
        """Close the socket, and remove its file if it is still the one created here."""
        self.sock.close()
        if self.unlink is not None:
            made, self.unlink = self.unlink, None
            remove_file(made)


def format_address(sock: socket.socket) -> str:
    """Return the socket's own address as it would be written in a configuration."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        if sock.family == socket.AF_INET6:
            scope = f"%{socket.if_indextoname(name[3])}" if name[3] else ""
            return f"[{name[0].partition('%')[0]}{scope}]:{name[1]}"
        return f"{name[0]}:{name[1]}"
    return f"unix:{os.fsdecode(name)}"


def open_all(
    listeners: Iterable[ListenerSettings],
    notes: list[str] | None = None,
    owner: tuple[int, int] = (-1, -1),
) -> list[BoundSocket]:
    """Create, set up and bind the sockets of all listeners; none of them listens yet.

    Args:
        listeners: their settings.
        notes: receives what the administrator should know, a sentence each.
        owner: user and group of Unix sockets' files whose listener has no `socket.user` or
            `socket.group`; -1 for those of this process.

    Returns:
        The sockets in order of listener and bind.

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
                    bound = opening.open()
                    failures += opening.failures
                    if notes is not None:
                        notes += opening.notes
                    if bound is not None:
                        opened.append(bound)
        if failures:
            raise StartError(failures)
    except BaseException:
        close_all(opened)
        raise
    if notes is not None:
        notes += _unused(opened)
    return opened


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


def _descriptors(bind: Bind) -> Sequence[int | None]:
    """Return the inherited descriptors of a bind; None for a socket to be created.

    Raises:
        OSError: systemd has passed none of its name.
    """
    if bind.family == "systemd":
        return descriptors_named(bind.address)
    return [bind.fd]


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


def close_all(sockets: Iterable[BoundSocket]) -> None:
    """Close sockets and remove the files of Unix sockets created here."""
    for bound in sockets:
        bound.close()


def socket_failure(
    listener: str, bind: Bind, operation: str, error: OSError, name: object = None
) -> SocketFailure:
    """Return the failure of a system call; `name` is the address of the socket, if it matters."""
    text = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        text += describe_holder(name)
    if error.errno == errno.EACCES and operation == "bind" and 0 < bind.port < 1024:
        text += " (ports below 1024 need CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EACCES:
        text += given_up()
    return SocketFailure(listener, bind.text, operation, "", error.errno or 0, text)


def option_failure(
    settings: ListenerSettings, bind: Bind, setting: SocketSetting, number: int
) -> SocketFailure:
    """Return the failure of a setsockopt call, with its errno."""
    operation = f"{setting.option.key} ({setting.call.symbol})"
    value, text = str(setting.value), os.strerror(number)
    return SocketFailure(settings.id, bind.text, operation, value, number, text)


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
    options = socket_options(settings, family, dual_stack)  # type: ignore[arg-type]
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


def ipv4_wildcards(listeners: Iterable[ListenerSettings]) -> set[int]:
    """Return the ports that listeners bind on all IPv4 addresses."""
    return {
        bind.port
        for settings in listeners
        for bind in settings.bind
        if bind.family == "inet" and bind.wildcard and bind.port
    }


class Opening:
    """Opens the socket of one bind; `failures` says what went wrong.

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


def _scope_id(scope: str) -> int:
    """Return the index of an interface given by name or number; 0 for none."""
    if not scope:
        return 0
    return int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
