"""The token that every change needs: made at the first start, kept in a file of the data directory.

Rules of this file: the token is neither logged nor part of any error. Several processes that start
together all use the one that was made first.

A file that others may read is refused rather than repaired: whoever could read it may have done
so, and only the administrator can tell whether a new token is needed.
"""

from __future__ import annotations

import os
import re
import secrets
import stat

from fastlisten.errors import FastlistenError
from fastlisten.private_files import make_once

__all__ = ["FILE_NAME", "TokenError", "keep_token"]

#: Name of the file in the data directory.
FILE_NAME = "management.token"

#: 256 bits: nobody guesses it, so that failed attempts need not be counted.
_OCTETS = 32

#: What RFC 6750 2.1 (b64token) lets stand after ``Bearer``. A token of the administrator's own may
#: be used; below 32 characters it would be open to guessing.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{32,512}=*")

#: More than any token; keeps a device or a log named by mistake out of memory.
_LARGEST_FILE = 1024


class TokenError(FastlistenError):
    """The file cannot be used; `path` is its name, the text says what to do."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(f"{path}: {message}")


def keep_token(directory: str) -> tuple[str, bool]:
    """Return the token of a data directory, made now if there is none.

    Args:
        directory: made if it does not exist.

    Returns:
        The token, and whether it was made just now.

    Raises:
        TokenError: the file cannot be used as it is.
        OSError: it cannot be written.
    """
    path = os.path.join(directory, FILE_NAME)
    if not os.path.lexists(path):
        token = secrets.token_urlsafe(_OCTETS)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if make_once(path, token.encode() + b"\n"):
            return token, True
    return _read(path), False


def _read(path: str) -> str:
    """Return what the file holds.

    Raises:
        TokenError: it cannot be read, or not only by its owner, or it holds no token.
    """
    try:
        # Not a link: it might lead to a file that another user chose. Not waiting for a pipe.
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
            "remove it to get one at the next start",
        )
    return text


def _check(path: str, found: os.stat_result) -> None:
    """Raise TokenError if the open file can be used by others."""
    if not stat.S_ISREG(found.st_mode):
        raise TokenError(path, "is not a regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise TokenError(path, f"belongs to user {found.st_uid}, who can read and change it")
    if found.st_mode & 0o077:
        raise TokenError(
            path,
            f"has mode {stat.S_IMODE(found.st_mode):04o}, so that others may use it; remove it to "
            "get a new token at the next start, or set it to 0600 if nobody can have read it",
        )
