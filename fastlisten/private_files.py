"""Files that their owner alone may read and that are made once: tokens, keys.

Rules of this file: blocking system calls; it imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import secrets

__all__ = ["make_once"]


def make_once(path: str, content: bytes) -> bool:
    """Make a file, whole and durable or not at all, for its owner alone.

    It is written under a name that cannot be guessed and then linked to its own: of several
    processes that start together one is first, and none reads half of it.

    Returns:
        False if it is there already, or another process was faster.

    Raises:
        OSError: it cannot be made.
    """
    temporary = f"{path}.{os.getpid()}.{secrets.token_hex(4)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    opened = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    return True
