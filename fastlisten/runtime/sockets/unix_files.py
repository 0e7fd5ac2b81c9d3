"""The files of Unix sockets: created with the right permissions, removed by their creator only.

Rules of this file: paths come from the administrator and are trusted. A socket that is in use, or a
file of another kind, is left alone. So is what somebody has put in the place of a new socket: the
directory may belong to another user, and this process may be root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

__all__ = ["REPLACED", "bind_file", "change_access", "remove_file"]

#: What is said of a socket's file that is another one now.
REPLACED = "its file has been replaced by another program"


def bind_file(sock: socket.socket, path: str, mode: int | None) -> tuple[str, int, int]:
    """Bind a Unix socket to a path, replacing a stale socket.

    Args:
        sock: an unbound socket.
        path: the path of the file.
        mode: its permission bits; None for the default, which depends on the umask.

    Returns:
        Path, device and inode, for `change_access` and `remove_file`.

    Raises:
        OSError: of bind(2) or another system call; no file is left behind.
    """
    if mode is not None:
        # So that the file never has more permissions than that: bind(2) uses the mode of the
        # socket's inode, less the umask.
        os.fchmod(sock.fileno(), mode)
    _remove_stale(path)
    sock.bind(path)
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode) or found.st_nlink > 1:
        raise OSError(errno.ESTALE, REPLACED)
    made = (path, found.st_dev, found.st_ino)
    try:
        if mode is not None:
            change_access(made, mode)
    except BaseException:
        remove_file(made)
        raise
    return made


def change_access(
    made: tuple[str, int, int], mode: int | None, owner: int = -1, group: int = -1
) -> None:
    """Change the mode and the owner of a socket's file.

    Never those of another file, to which a link has been put in its place meanwhile.

    Args:
        made: what `bind_file` returned.
        mode: its permission bits; None: they stay.
        owner: the id of its user; -1: it stays.
        group: the id of its group; -1: it stays.

    Raises:
        OSError: that is not permitted, or it is not the file that was created.
    """
    path, device, inode = made
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (device, inode):
            raise OSError(errno.ESTALE, REPLACED)
        # fchmod(2) and fchown(2) do not take a descriptor of this kind (open(2), O_PATH).
        name = f"/proc/self/fd/{fd}"
        if (owner, group) != (-1, -1):
            os.chown(name, owner, group)
        if mode is not None:
            os.chmod(name, mode)
    finally:
        os.close(fd)


def remove_file(made: tuple[str, int, int]) -> None:
    """Remove a socket's file if it is still the one that `bind_file` created.

    A process that has changed its user may be unable to; the next start replaces the file. Whatever
    prevents it, the caller has more sockets to close.
    """
    path, device, inode = made
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (device, inode):
            os.unlink(path)


def _remove_stale(path: str) -> None:
    """Remove a socket that no process serves any more; one in use makes bind(2) fail."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            # In use but busy (EAGAIN), or not accessible (EACCES): bind(2) will fail.
            pass
