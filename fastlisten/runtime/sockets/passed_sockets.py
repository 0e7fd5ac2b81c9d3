"""Sockets that systemd has passed to this process, for binds such as ``systemd:smtp``.

Rules of this file: the protocol of sd_listen_fds_with_names(3). It tells which descriptors have a
name; what they are is asked of the kernel (inherited_descriptors.py). The environment is only read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from fastlisten.config.notation import quote
from fastlisten.config.suggest import likely

__all__ = ["descriptors_named", "passed_descriptors"]

#: SD_LISTEN_FDS_START.
_FIRST = 3

#: The name of a descriptor that has none.
_NO_NAME = "unknown"


def passed_descriptors(environ: Mapping[str, str] = os.environ) -> dict[int, str]:
    """Return the descriptors that systemd has passed, with their names.

    Raises:
        OSError: none have been passed to this process; the text says why.
    """
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    if not count:
        raise OSError(errno.ENOENT, "systemd has passed no sockets (LISTEN_FDS is not set)")
    if pid != str(os.getpid()):
        raise OSError(
            errno.ESRCH, f"systemd has passed its sockets to PID {pid}, this is PID {os.getpid()}"
        )
    if not (count.isascii() and count.isdigit()) or len(count) > 9:
        raise OSError(errno.EINVAL, f"LISTEN_FDS is not a number: {count[:20]}")
    names = environ.get("LISTEN_FDNAMES", "")
    given = names.split(":") if names else []
    if given and len(given) != int(count):
        raise OSError(errno.EINVAL, f"LISTEN_FDNAMES has {len(given)} names for {count} sockets")
    return dict(enumerate(given or [_NO_NAME] * int(count), _FIRST))


def descriptors_named(name: str, environ: Mapping[str, str] = os.environ) -> list[int]:
    """Return the descriptors of a name; a socket unit with several addresses has several.

    Raises:
        OSError: there are none; the text says which names there are.
    """
    passed = passed_descriptors(environ)
    if found := [fd for fd, given in passed.items() if given == name]:
        return found
    names = tuple(dict.fromkeys(passed.values()))
    text = f"systemd has passed no socket named {quote(name)}"
    if meant := likely(name, names):
        raise OSError(errno.ENOENT, f"{text}; did you mean {quote(meant)}?")
    raise OSError(errno.ENOENT, f"{text}; there are {', '.join(map(quote, names)) or 'none'}")
