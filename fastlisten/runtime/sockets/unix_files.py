"""The files of Unix sockets: made with the right permissions, and removed only by their maker.

Rules of this file: paths are trusted, being the administrator's. A socket that is in use, or a
file of another kind, is left alone.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat

__all__ = ["bind_file", "group_id", "remove_file", "user_id"]


def bind_file(sock: socket.socket, path: str, mode: int | None) -> tuple[str, int, int]:
    """Bind a Unix socket to a path, replacing a socket that nobody serves any more.

    Args:
        sock: not bound yet.
        path: of the file.
        mode: its permission bits, None for what the umask leaves.

    Returns:
        What `remove_file` needs: path, device and inode.

    Raises:
        OSError: of bind(2), or of what comes before and after it; the file is not left behind.
    """
    if mode is not None:
        # The file never has more permissions than asked for, not even for a moment: bind(2)
        # takes the mode of the socket's inode, less the umask.
        os.fchmod(sock.fileno(), mode)
    _remove_stale(path)
    sock.bind(path)
    found = os.stat(path)
    made = (path, found.st_dev, found.st_ino)
    try:
        if mode is not None:
            os.chmod(path, mode)
    except BaseException:
        remove_file(made)
        raise
    return made


def remove_file(made: tuple[str, int, int]) -> None:
    """Remove a socket's file if it is still the one that `bind_file` made."""
    path, device, inode = made
    try:
        found = os.stat(path)
        if (found.st_dev, found.st_ino) == (device, inode):
            os.unlink(path)
    except FileNotFoundError:
        pass


def _remove_stale(path: str) -> None:
    """Remove a Unix socket that nobody serves any more; a live one makes bind fail."""
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
            # Alive but busy (EAGAIN), or not ours to ask (EACCES): bind will say so.
            pass


def user_id(name: str) -> int:
    """Return the number of a user given by name or number; KeyError for an unknown one."""
    number = _number(name)
    return pwd.getpwnam(name).pw_uid if number is None else number


def group_id(name: str) -> int:
    """Return the number of a group given by name or number; KeyError for an unknown one."""
    number = _number(name)
    return grp.getgrnam(name).gr_gid if number is None else number


def _number(name: str) -> int | None:
    """Return the number that a name is, None for another name; KeyError for one that is too large.

    The largest 32-bit number means to chown(2) that nothing is to be changed.
    """
    if not (name.isascii() and name.isdigit()):
        return None
    if len(name) > 10 or int(name) >= 2**32 - 1:
        raise KeyError(name)
    return int(name)
