"""The token that every change needs: created at the first start, kept in the data directory.

Rules of this file: the token is never logged and never part of an error. Processes that start at
the same time all use the token that was created first.

A file that others may read is refused, not repaired: somebody may have read it already, and only
the administrator can tell whether a new token is needed.
"""

from __future__ import annotations

import os
import re
import secrets
import stat

from fastlisten.errors import FastlistenError
from fastlisten.private_files import create_once

__all__ = ["FILE_NAME", "TokenError", "keep_token"]

#: Name of the file in the data directory.
FILE_NAME = "management.token"

#: 256 bits: too many to guess, so failed attempts need not be counted.
_OCTETS = 32

#: What may follow ``Bearer`` (RFC 6750 2.1, b64token). The administrator may write a token of their
#: own; one of less than 32 characters could be guessed.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{32,512}=*")

#: Octets to read at most; more than any token.
_LARGEST_FILE = 1024


class TokenError(FastlistenError):
    """The file cannot be used; `path` is its name, and the message says what to do."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(f"{path}: {message}")


def keep_token(directory: str) -> tuple[str, bool]:
    """Return the token of a data directory; create it if there is none.

    Args:
        directory: created if it does not exist.

    Returns:
        The token, and whether it has just been created.

    Raises:
        TokenError: the file cannot be used as it is.
        OSError: the file cannot be written.
    """
    path = os.path.join(directory, FILE_NAME)
    if not os.path.lexists(path):
        token = secrets.token_urlsafe(_OCTETS)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if create_once(path, token.encode() + b"\n"):
            return token, True
    return _read(path), False


def _read(path: str) -> str:
    """Return the token in the file.

    Raises:
        TokenError: the file cannot be read, can be read by others, or holds no token.
    """
    try:
        # No symbolic link: another user may have chosen where it leads. No waiting for a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        link = " (it must not be a symbolic link)" if os.path.islink(path) else ""
        raise TokenError(path, f"cannot be read: {error.strerror}{link}") from None
    try:
        _check(path, os.fstat(fd))
        content = os.read(fd, _LARGEST_FILE + 1)
    finally:
        os.close(fd)
    text = content.strip().decode("ascii", "replace")
    if len(content) > _LARGEST_FILE or not _TOKEN.fullmatch(text):
        raise TokenError(
            path,
            "holds no token (at least 32 characters of A-Z a-z 0-9 . _ ~ + / -); "
            "remove it to get a new one at the next start",
        )
    return text


def _check(path: str, found: os.stat_result) -> None:
    """Raise TokenError if other users can read or change the open file."""
    if not stat.S_ISREG(found.st_mode):
        raise TokenError(path, "is not a regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise TokenError(
            path,
            f"belongs to user {found.st_uid}, who can read and change it; make it belong to root "
            f"or to user {os.geteuid()}",
        )
    if found.st_mode & 0o077:
        raise TokenError(
            path,
            f"has mode {stat.S_IMODE(found.st_mode):04o}, so that others may use it; remove it to "
            "get a new token at the next start, or, if nobody can have read it, set it to 0600",
        )
