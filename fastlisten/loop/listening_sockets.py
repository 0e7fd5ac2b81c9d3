"""Bound sockets for the address arguments of `create_server` and `create_unix_server`.

Rules of this file: the order of steps and the error messages are asyncio's (base_events.py and
unix_events.py of CPython). All sockets are bound or none, and none listens yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import socket
import stat
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from fastlisten._core import OptionBatch

__all__ = [
    "bind_all",
    "bind_unix",
    "inode_of",
    "remove_unix",
    "set_nodelay",
    "set_options",
]

logger = logging.getLogger("asyncio")

#: One entry of what getaddrinfo(3) returns.
_Info = tuple[Any, ...]


def set_nodelay(sock: socket.socket) -> None:
    """Turn Nagle's algorithm off on a TCP socket; accepted sockets inherit this.

    asyncio and uvloop do so on every connection. (asyncio does not if the socket was created
    without IPPROTO_TCP; an answer sent in two pieces then takes 40 ms longer.)
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Other stream protocols, such as SCTP, don't have the option.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_options(
    sockets: Sequence[socket.socket], options: Iterable[tuple[int, int, int | bytes]]
) -> None:
    """Set (level, name, value) on every socket.

    Raises:
        OSError: the kernel rejected an option; the text names it, its value and the address.
        ValueError: a value is longer than 32 bytes.
    """
    entries = [
        (level, name, _bytes(value) if isinstance(value, int) else value)
        for level, name, value in options
    ]
    batch = OptionBatch(entries)
    for sock in sockets:
        for index, number in batch.apply(sock.fileno()):
            level, name, value = entries[index]
            raise OSError(
                number,
                f"setsockopt({level}, {name}, {value!r}) on {sock.getsockname()!r}: "
                f"{os.strerror(number)}",
            )


def _bytes(value: int) -> bytes:
    return int(value).to_bytes(4, sys.byteorder, signed=True)


# --- TCP sockets ------------------------------------------------------------------------------


async def _resolve(
    loop: asyncio.AbstractEventLoop, host: str | None, port: int | None, family: int, flags: int
) -> Sequence[_Info]:
    """Resolve one host; a numeric address is converted here, without a thread."""
    if host is not None:
        try:
            return socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, 0, flags | socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            pass  # a name, or a mistake, for which loop.getaddrinfo raises the error
    found: Sequence[_Info] = await loop.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=flags
    )
    if not found:
        raise OSError(f"getaddrinfo({host!r}) returned empty list")
    return found


async def bind_all(
    loop: asyncio.AbstractEventLoop,
    host: str | Sequence[str] | None,
    port: int | None,
    family: int,
    flags: int,
    reuse_address: bool | None,
    reuse_port: bool | None,
) -> list[socket.socket]:
    """Resolve the hosts and bind a socket for each address, as `loop.create_server` does.

    Raises:
        OSError: a name does not resolve, or an address cannot be bound. No socket is left open.
        OverflowError: the port is out of range.
    """
    if isinstance(port, int) and not 0 <= port <= 65535:
        # getaddrinfo(3) would use it modulo 65,536.
        raise OverflowError("bind(): port must be 0-65535.")
    hosts: Sequence[str | None]
    hosts = [None] if host in (None, "") else [host] if isinstance(host, str) else list(host or ())
    found = await asyncio.gather(*(_resolve(loop, one, port, family, flags) for one in hosts))
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    try:
        for info in dict.fromkeys(itertools.chain.from_iterable(found)):
            address_family, kind, protocol, _, address = info
            try:
                sock = socket.socket(address_family, kind, protocol)
            except OSError:
                # This host does not support the address family; others may work.
                continue
            sockets.append(sock)
            if reuse_address is None or reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if address_family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as error:
                failure = OSError(
                    error.errno,
                    f"error while attempting to bind on address {address!r}: "
                    f"{(error.strerror or '').lower()}",
                )
                if error.errno != errno.EADDRNOTAVAIL:
                    raise failure from None
                # ::1 where IPv6 is supported but has no addresses (in asyncio since 3.12).
                sockets.pop().close()
                unavailable = unavailable or failure
        if not sockets and unavailable is not None:
            raise unavailable
        if not sockets:
            tried = [info[4] for one in found for info in one]
            raise OSError(f"could not bind on any address out of {tried!r}")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


# --- Unix sockets -----------------------------------------------------------------------------


def bind_unix(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> socket.socket:
    """Return a socket bound to a path or, if it begins with NUL, to an abstract name.

    An existing socket at the path is removed, even if a process is serving it, as in asyncio.

    Raises:
        OSError: bind(2) failed; for EADDRINUSE the text names the path.
    """
    name = os.fspath(path)
    if name[0] not in (0, "\0"):
        try:
            if stat.S_ISSOCK(os.stat(name).st_mode):
                os.remove(name)
        except FileNotFoundError:
            pass
        except OSError as error:
            # The directory may have permissions only to create sockets.
            logger.error("Unable to check or remove stale UNIX socket %r: %r", name, error)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(name)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {name!r} is already in use") from None
        raise
    return sock


def inode_of(sock: socket.socket) -> tuple[str, int] | None:
    """Return the path and inode of a bound Unix socket's file; None if it has no file."""
    name = sock.getsockname()
    if not isinstance(name, str) or not name:
        return None
    try:
        return name, os.stat(name).st_ino
    except FileNotFoundError:
        return None


def remove_unix(file: tuple[str, int]) -> None:
    """Remove a socket's file unless it has been replaced (in asyncio since Python 3.13)."""
    path, inode = file
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.error("Unable to clean up listening UNIX socket %r: %r", path, error)
