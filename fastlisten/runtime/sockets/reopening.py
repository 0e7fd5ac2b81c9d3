"""The sockets of a reload: those that stay, with other options, and those that are new.

    sockets in use, new settings ─> reopen ─> Reopened ─> commit   the others may be closed
                                                    └───> undo     everything is as it was

Rules of this file: a socket is known by its address and stays open whatever its listener is called,
so its backlog is not lost. A bind that stays has as many sockets as before: `socket.reuse-port`
needs a restart. Nothing accepts on the new sockets before `commit`, and everything can
be undone until then. All failures are collected, as when a server starts.

A new socket for an address that another socket is still bound to (`[::]:25` that leaves IPv4 to
`0.0.0.0:25`, or `127.0.0.1:25` that becomes `0.0.0.0:25`) is bound beside it, with SO_REUSEPORT on
both. Clients that wait in the backlog of the old one are lost when it is closed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from fastlisten._core import OptionBatch
from fastlisten.config import Bind, ListenerSettings, SocketSetting
from fastlisten.config.settings import Family
from fastlisten.errors import SocketFailure, StartError
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.failures import option_failure, socket_failure
from fastlisten.runtime.sockets.opening import ipv4_wildcards, listen_all
from fastlisten.runtime.sockets.opening_bind import Opening, unix_owner
from fastlisten.runtime.sockets.socket_calls import socket_calls
from fastlisten.runtime.sockets.unix_files import REPLACED, change_access

__all__ = ["Reopened", "reopen"]

# asm-generic/socket.h: which buffer sizes the kernel must not adjust. Since Linux 5.14.
_SO_BUF_LOCK = 72

_BUFFERS = ((socket.SOL_SOCKET, socket.SO_SNDBUF), (socket.SOL_SOCKET, socket.SO_RCVBUF))

_ACCESS = ("socket.mode", "socket.user", "socket.group")

_IP: tuple[Family, ...] = ("inet", "inet6")


class Reopened:
    """The sockets of the new settings, before they are used.

    Attributes:
        sockets: all of them, in order of listener and bind; those that stay are new objects with
            the same `sock`.
        opened: those that are new; they listen.
        gone: those of the former settings that are not needed any more. Whoever accepts on them
            closes them.
    """

    def __init__(self) -> None:
        self.sockets: list[BoundSocket] = []
        self.opened: list[BoundSocket] = []
        self.gone: list[BoundSocket] = []
        self._kept: list[BoundSocket] = []
        self._undo: list[Callable[[], object]] = []
        self._shared: list[tuple[socket.socket, bool]] = []

    def commit(self) -> None:
        """Make the new objects responsible for the files of Unix sockets."""
        for former in self._kept:
            former.unlink = None
        for sock, wanted in self._shared:
            _reuse_port(sock, wanted)

    def undo(self) -> None:
        """Close what was opened, and restore the options of the others."""
        close_all(self.opened)
        for action in reversed(self._undo):
            # As good as possible: there is nobody left to tell.
            with contextlib.suppress(OSError):
                action()
        self._undo.clear()


#: The sockets of a bind, with the former settings of its listener; and all of them by address.
_Group = tuple[ListenerSettings, list[BoundSocket]]
_Groups = dict[tuple[object, ...], list[_Group]]


def reopen(
    before: Sequence[tuple[ListenerSettings, Sequence[BoundSocket]]],
    listeners: Iterable[ListenerSettings],
    notes: list[str] | None = None,
    owner: tuple[int, int] = (-1, -1),
    workers: int = 1,
) -> Reopened:
    """Open the sockets of new settings; keep those whose address is in use already.

    Args:
        before: the former settings with their sockets, which are listening.
        listeners: the new settings.
        notes: receives what the administrator should know, a sentence each.
        owner: user and group of Unix sockets' files, as for `open_all`.
        workers: how many there are.

    Raises:
        StartError: with every failure; nothing has changed.
    """
    listeners = tuple(listeners)
    found = Reopened()
    # The sockets of each bind: several for a name of systemd's, or with one queue for each worker.
    former: _Groups = {}
    for settings, sockets in before:
        for _, several in itertools.groupby(sockets, key=lambda bound: id(bound.bind)):
            group = list(several)
            former.setdefault(group[0].bind.key, []).append((settings, group))
    binds = [(settings, bind) for settings in listeners for bind in settings.bind]
    # With port 0 several listeners have the same address: each keeps what it has.
    own = [_taken(former, bind, settings.id) for settings, bind in binds]
    wanted = [
        (settings, bind, kept or _taken(former, bind))
        for (settings, bind), kept in zip(binds, own, strict=True)
    ]
    found.gone = [bound for left in former.values() for _, group in left for bound in group]
    failures: list[SocketFailure] = []
    wildcards = ipv4_wildcards(listeners)
    try:
        for settings, bind, kept in wanted:
            if kept is None:
                opening = Opening(settings, bind, wildcards, owner)
                failures += _open(found, opening, workers, notes)
                continue
            for bound in kept[1]:
                failures += _keep(found, kept[0], bound, settings, bind, owner)
        if failures:
            raise StartError(failures)
        listen_all(found.opened)
    except BaseException:
        found.undo()
        raise
    return found


def _taken(former: _Groups, bind: Bind, id: str = "") -> _Group | None:
    """Take the sockets of a bind that are left, of this listener if one is named."""
    groups = former.get(bind.key, [])
    for index, group in enumerate(groups):
        if id in ("", group[0].id):
            return groups.pop(index)
    return None


def _open(
    found: Reopened, opening: Opening, workers: int, notes: list[str] | None
) -> list[SocketFailure]:
    """Open the sockets of a bind; return what went wrong."""
    bind = opening.bind
    if bind.family in ("fd", "systemd"):
        text = "an inherited descriptor can only be used from the start; stop and start the server"
        return [SocketFailure(opening.settings.id, bind.text, bind.family, "", 0, text)]
    rivals = [
        one.sock
        for one in found.gone
        if bind.port and bind.family in _IP and one.bind.family in _IP and one.port == bind.port
    ]
    for sock in rivals:
        had = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
        if not had:
            found._undo.append(partial(_reuse_port, sock, False))
            _reuse_port(sock, True)
    opening.beside = bool(rivals)
    opened = opening.open_for(workers)
    if notes is not None:
        notes += opening.notes
    found.opened += opened
    found.sockets += opened
    if rivals:
        wanted = opening.settings["socket.reuse-port"]
        found._shared += [(bound.sock, wanted) for bound in opened]
    return opening.failures


def _reuse_port(sock: socket.socket, on: bool) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(on))


def _keep(
    found: Reopened,
    former: ListenerSettings,
    bound: BoundSocket,
    settings: ListenerSettings,
    bind: Bind,
    owner: tuple[int, int],
) -> list[SocketFailure]:
    """Give a socket that stays its new options; return what went wrong."""
    try:
        old, new = socket_calls(former, bound.sock), socket_calls(settings, bound.sock)
        accepted = new.batch
        stays = dataclasses.replace(
            bound,
            listener=settings.id,
            bind=bind,
            backlog=settings["socket.backlog"],
            accepted=bound.accepted if accepted.entries == bound.accepted.entries else accepted,
        )
        failures: list[SocketFailure] = []
        calls = ((old.before_bind, new.before_bind), (old.before_listen, new.before_listen))
        for earlier, later in calls:
            if [one.packed for one in earlier] == [one.packed for one in later] and [
                one.call for one in earlier
            ] == [one.call for one in later]:
                continue
            found._undo.append(partial(_set, bound.sock, later, earlier))
            for one, number in _set(bound.sock, earlier, later):
                failures.append(option_failure(settings, bind, one, number))
        # One that does not listen is the queue of a worker that is not started again.
        if stays.backlog != bound.backlog and bound.listens:
            found._undo.append(partial(bound.sock.listen, bound.backlog))
            bound.sock.listen(stays.backlog)
        if bound.unlink is not None:
            failures += _set_access(found, bound.unlink, former, settings, bind, owner)
    except OSError as error:
        return [socket_failure(settings.id, bind, "reload", error)]
    found.sockets.append(stays)
    found._kept.append(bound)
    return failures


def _set(
    sock: socket.socket, before: Sequence[SocketSetting], after: Sequence[SocketSetting]
) -> list[tuple[SocketSetting, int]]:
    """Replace options by others; return those that failed, with their errno.

    An option that is not set any more gets the value of a new socket.
    """
    named = {(one.call.level, one.call.name) for one in after}
    unset = [one for one in before if (one.call.level, one.call.name) not in named]
    with socket.socket(sock.family, sock.type) as fresh:
        batch = OptionBatch([(one.call.level, one.call.name, one.packed) for one in unset])
        values = batch.read(fresh.fileno())
    entries = []
    for one, value in zip(unset, values, strict=True):
        name = (one.call.level, one.call.name)
        if value is not None and name in _BUFFERS:
            # The kernel doubles what it is given.
            value = struct.pack("=i", struct.unpack("=i", value)[0] // 2)
        entries.append((*name, one.packed if value is None else value))
    # All the others again: setting the TOS also sets the priority.
    entries += [(one.call.level, one.call.name, one.packed) for one in after]
    failed = OptionBatch(entries).apply(sock.fileno())
    locked = sum(
        bit
        for bit, name in ((1, _BUFFERS[0]), (2, _BUFFERS[1]))
        if any((one.call.level, one.call.name) == name for one in after)
    )
    if any((one.call.level, one.call.name) in _BUFFERS for one in unset):
        # Older kernels do without: the size is that of a new socket, but not adjusted any more.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, locked)
    settings = [*unset, *after]
    return [(settings[index], number) for index, number in failed]


def _set_access(
    found: Reopened,
    made: tuple[str, int, int],
    former: ListenerSettings,
    settings: ListenerSettings,
    bind: Bind,
    owner: tuple[int, int],
) -> list[SocketFailure]:
    """Change mode and owner of a Unix socket's file that was created here."""
    if all(former[key] == settings[key] for key in _ACCESS):
        return []
    path, device, inode = made
    now = os.lstat(path)
    if (now.st_dev, now.st_ino) != (device, inode):
        return [SocketFailure(settings.id, bind.text, "socket.mode", "", 0, REPLACED)]
    failures: list[SocketFailure] = []
    own = (os.geteuid(), os.getegid())
    default = (owner[0] if owner[0] != -1 else own[0], owner[1] if owner[1] != -1 else own[1])
    ids = unix_owner(settings, bind, default, failures)
    if failures:
        return failures
    mode = settings["socket.mode"]
    try:
        before = (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid)
        found._undo.append(partial(change_access, made, *before))
        owner = (-1, -1) if (now.st_uid, now.st_gid) == ids else ids
        change_access(made, 0o777 & ~_umask() if mode is None else mode, *owner)
    except OSError as error:
        return [socket_failure(settings.id, bind, "socket.mode/user/group", error)]
    return []


def _umask() -> int:
    """Return the umask, which can only be read by setting it, or in /proc."""
    before = os.umask(0o077)
    os.umask(before)
    return before
