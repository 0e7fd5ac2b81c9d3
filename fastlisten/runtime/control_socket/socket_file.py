"""The file of the control socket: where it is, and how it is created.

Rules of this file: blocking system calls, no event loop. A stale socket is replaced; one that a
process listens on is left alone. The directory may belong to the user that root serves as, who can
put a link anywhere in it, and lock it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping

from fastlisten.config import Config
from fastlisten.private_files import make_directory
from fastlisten.runtime.sockets.address_holders import describe_holder
from fastlisten.runtime.sockets.unix_files import bind_file, change_access, remove_file

__all__ = [
    "LOCK_TIMEOUT",
    "MAX_PATH",
    "SYSTEM_DIRECTORY",
    "ControlSocketError",
    "ListeningFile",
    "default_path",
    "possible_paths",
]

#: sun_path has 108 bytes with the final NUL: unix(7).
MAX_PATH = 107

#: The run directory of a service, as `RuntimeDirectory=fastlisten` makes it.
SYSTEM_DIRECTORY = "/run/fastlisten"

_NAME = "control.sock"

#: Seconds to wait for the lock of the directory. Another server holds it for milliseconds; any user
#: who can read the directory can keep it.
LOCK_TIMEOUT = 5.0

_LOCK_RETRY = 0.01

#: Clients that wait until they are accepted.
_BACKLOG = 64


class ControlSocketError(OSError):
    """The control socket cannot be created; the text says which and why."""


def default_path(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of a server's control socket.

    What is configured; else `control.sock` in the run directory that systemd has made for the
    service, in that of the user (XDG), or in the data directory.

    Args:
        config: the server's configuration.
        environ: the server's environment.
    """
    if path := config.process["server.control-socket"]:
        return str(path)
    if directory := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return os.path.join(directory, _NAME)
    if os.path.isabs(directory := environ.get("XDG_RUNTIME_DIR", "")):
        return os.path.join(directory, "fastlisten", _NAME)
    return os.path.join(os.path.abspath(config.process["server.data-directory"]), _NAME)


def possible_paths(config: Config, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return where the control socket may be of a server with another environment.

    Such as that of a service: RUNTIME_DIRECTORY is set for it alone.
    """
    first = default_path(config, environ)
    if config.process["server.control-socket"]:
        return [first]
    data = os.path.abspath(config.process["server.data-directory"])
    return list(dict.fromkeys((first, *(os.path.join(d, _NAME) for d in (data, SYSTEM_DIRECTORY)))))


class ListeningFile:
    """A listening control socket and its file.

    Creating it makes the directory if it is missing, with mode 0700.

    Args:
        path: where to create it.
        owner: user and group of the file, and of a directory that is made for it; None for those of
            this process.

    Attributes:
        path: as given.
        sock: the listening socket, non-blocking.
        made: path, device and inode of the file, by which `close` knows it.

    Raises:
        ControlSocketError: it cannot be created, or another process listens on it.
    """

    def __init__(self, path: str, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        if len(os.fsencode(path)) > MAX_PATH:
            raise ControlSocketError(
                errno.ENAMETOOLONG, f"{path}: the path of a socket has at most {MAX_PATH} bytes"
            )
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            directory = os.path.dirname(path)
            if not os.path.exists(directory):
                make_directory(directory, owner)
            with _locked(directory):
                with _umask(0o177):
                    self.made = bind_file(self.sock, path, None)
                try:
                    if owner is not None:
                        change_access(self.made, None, *owner)
                    self.sock.listen(_BACKLOG)
                except BaseException:
                    remove_file(self.made)
                    raise
        except OSError as error:
            self.sock.close()
            text = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                text += describe_holder(path)
            raise ControlSocketError(error.errno, f"{path}: {text}") from None

    @classmethod
    def taken_over(cls, sock: socket.socket, made: tuple[str, int, int]) -> ListeningFile:
        """Return the control socket that a former program has created in this process.

        Args:
            sock: it listens.
            made: as the attribute.
        """
        file = cls.__new__(cls)
        sock.setblocking(False)
        file.path, file.sock, file.made = made[0], sock, made
        return file

    def close(self) -> None:
        """Close the socket and remove its file, unless it is no longer ours."""
        self.sock.close()
        remove_file(self.made)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    """Create files with this mask while the block runs; it holds for all threads."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Let one process at a time look for a stale socket in a directory and replace it.

    Otherwise, of two servers that start at the same time, the second could take the first one's
    socket for stale after the first has bound it and before it listens.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Lock a directory.

    Raises:
        TimeoutError: another process keeps it locked.
    """
    ends = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                text = f"another process has locked its directory for {LOCK_TIMEOUT:g} s"
                raise TimeoutError(errno.ETIMEDOUT, text) from None
            time.sleep(_LOCK_RETRY)
        except OSError:  # a file system without locks
            return
        else:
            return
