"""The files of Unix sockets: created with the right permissions, removed by their creator only.

Rules of this file: paths come from the administrator and are trusted. A socket that is in use, or a
file of another kind, is left alone.
"""

from __future__ import annotations

import os
import socket
import stat

__all__ = ["bind_file", "remove_file"]


def bind_file(sock: socket.socket, path: str, mode: int | None) -> tuple[str, int, int]:
    """Bind a Unix socket to a path, replacing a stale socket.

    Args:
        sock: an unbound socket.
        path: the path of the file.
        mode: its permission bits; None for the default, which depends on the umask.

    Returns:
        Path, device and inode, for `remove_file`.

    Raises:
        OSError: of bind(2) or another system call; no file is left behind.
    """
    if mode is not None:
        # So that the file never has more permissions than that: bind(2) uses the mode of the
        # socket's inode, less the umask.
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
    """Remove a socket's file if it is still the one that `bind_file` created.

    A process that has changed its user may be unable to; the next start replaces the file.
    """
    path, device, inode = made
    try:
        found = os.stat(path)
        if (found.st_dev, found.st_ino) == (device, inode):
            os.unlink(path)
    except (FileNotFoundError, PermissionError):
        pass


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
