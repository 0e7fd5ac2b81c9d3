"""From the address arguments of `create_server` and `create_unix_server` to bound sockets.

Rules of this file: asyncio's order, errors and texts (base_events.py and unix_events.py of
CPython); all sockets or none; nothing listens yet.
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

#: What getaddrinfo(3) returns of one address.
_Info = tuple[Any, ...]


def set_nodelay(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off on a TCP socket, and so on what is accepted from it.

    asyncio and uvloop do so on every connection. (asyncio does not where the socket was made
    without naming the protocol, and pays 40 ms for every answer in two pieces.)
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Other stream protocols (SCTP) have no such option.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_options(
    sockets: Sequence[socket.socket], options: Iterable[tuple[int, int, int | bytes]]
) -> None:
    """Set (level, name, value) on every socket.

    Raises:
        OSError: the kernel rejected one; names option, value and address.
        ValueError: a value has more than 32 bytes.
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


# --- addresses of the internet ----------------------------------------------------------------


async def _resolve(
    loop: asyncio.AbstractEventLoop, host: str | None, port: int | None, family: int, flags: int
) -> Sequence[_Info]:
    """Resolve one host; a numeric address needs neither a thread nor a resolver."""
    if host is not None:
        try:
            return socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, 0, flags | socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            pass  # a name, or a mistake that the loop's own resolver words
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
    """Resolve and bind as `loop.create_server` does; all or none.

    Raises:
        OSError: a name does not resolve, or an address cannot be bound.
        OverflowError: the port is out of range.
    """
    if isinstance(port, int) and not 0 <= port <= 65535:
        # getaddrinfo would take it modulo 65,536.
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
                # A host without this family; another address may do.
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
                # As above: ::1 of a host that has IPv6 only in name (asyncio since 3.12).
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

    As in asyncio a socket that stands there is removed, whether somebody serves it or not.

    Raises:
        OSError: of bind(2); EADDRINUSE names the path.
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
    """Return path and inode of a bound Unix socket's file; None if it has no file."""
    name = sock.getsockname()
    if not isinstance(name, str) or not name:
        return None
    try:
        return name, os.stat(name).st_ino
    except FileNotFoundError:
        return None


def remove_unix(made: tuple[str, int]) -> None:
    """Remove a socket's file unless another has taken its place (asyncio, Python 3.13)."""
    path, inode = made
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.error("Unable to clean up listening UNIX socket %r: %r", path, error)
