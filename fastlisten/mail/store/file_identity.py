"""Whether a file is still the one that was made, and not a copy of it.

Rules of this file: it opens nothing, because closing any descriptor of a database would drop the
locks that SQLite has on it.

An inode's number is not enough: ext4 gives the number of a file that was removed to the next one
that is made, which is the restored copy. The time at which an inode was made, statx(2) alone says.
"""

from __future__ import annotations

import ctypes
import os
import struct

__all__ = ["identity_of"]

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)

#: stx_mask at the beginning of struct statx, and stx_btime.
_MASK = struct.Struct("=I")
_TIME, _TIME_AT = struct.Struct("=qI"), 80


def identity_of(path: str) -> str:
    """Return what tells a file from all others that ever have this path.

    Raises:
        OSError: there is none.
    """
    number = os.stat(path).st_ino
    if _statx is None:
        return str(number)
    buffer = ctypes.create_string_buffer(256)
    if _statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer):
        return str(number)
    (mask,) = _MASK.unpack_from(buffer.raw)
    if not mask & _STATX_BTIME:
        return str(number)  # a filesystem that does not keep it
    seconds, nanoseconds = _TIME.unpack_from(buffer.raw, _TIME_AT)
    return f"{number} {seconds}.{nanoseconds:09}"
