"""Parses `bind`, finds binds that overlap, and sets IPV6_V6ONLY.

Rules of this file: addresses are text and nothing is looked up. Time is linear in the number of
binds.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fastlisten.addresses import unmapped
from fastlisten.config.notation import quote, show_value
from fastlisten.config.settings import Bind
from fastlisten.config.values.grammar import BadValueError
from fastlisten.hostnames import is_hostname

__all__ = ["find_overlaps", "is_loopback", "looks_like_port", "parse_bind", "set_v6only"]

# sun_path has 108 bytes with the final NUL: unix(7).
_MAX_PATH_LENGTH = 107
# IFNAMSIZ is 16 with the final NUL: netdevice(7).
_SCOPE = re.compile(r"[^\s/:%\[\]]{1,15}")
_PORT = re.compile(r"[0-9]{1,5}")
# sd_listen_fds_with_names(3): ASCII without control characters and colons, at most 255.
_SYSTEMD_NAME = re.compile(r"[!-9;-~]{1,255}")
_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::(.*))?", re.DOTALL)

# Ports of mail and web servers: an IPv6 address without brackets that ends in one of these may
# have been meant as an address and a port.
_MAIL_PORTS = frozenset(
    ("24", "25", "80", "110", "143", "443", "465", "587", "993", "995", "2525", "4190", "8080")
)


def parse_bind(text: str, default_port: int) -> Bind:
    """Parse one bind; `v6only` is not set yet.

    Args:
        text: as written.
        default_port: of an address without port; 0 if the protocol has none.

    Raises:
        BadValueError: with what to write instead.
    """
    word = text.strip()
    if word.startswith("unix:"):
        return _unix(text, word[5:])
    if word.startswith("fd:"):
        if not re.fullmatch(r"[0-9]{1,9}", word[3:]) or int(word[3:]) < 3:
            raise BadValueError("fd: takes the number of an inherited socket, 3 or more")
        return Bind(text, "fd", "", fd=int(word[3:]))
    if word.startswith("systemd:"):
        if not _SYSTEMD_NAME.fullmatch(word[8:]):
            raise BadValueError("systemd: takes the FileDescriptorName= of a socket unit")
        return Bind(text, "systemd", word[8:])
    if word.startswith("["):
        match = _BRACKETS.fullmatch(word)
        if match is None:
            raise BadValueError("the brackets are wrong")
        return _inet6(text, match[1], match[2], default_port)
    if word.count(":") > 1:
        return _inet6(text, word, None, default_port)
    host, colon, port = word.partition(":")
    if not _is_address(socket.AF_INET, host):
        raise _not_an_address(word, host, port)
    number = _port(port if colon else None, default_port)
    return Bind(text, "inet", host, number, wildcard=host == "0.0.0.0")  # noqa: S104


def _unix(text: str, path: str) -> Bind:
    if not path.startswith("/"):
        raise BadValueError("the path after unix: must start with /")
    if len(path.encode()) > _MAX_PATH_LENGTH:
        raise BadValueError(f"the path of a Unix socket can have at most {_MAX_PATH_LENGTH} bytes")
    if path.endswith("/"):
        raise BadValueError("the path after unix: names a directory")
    return Bind(text, "unix", path)


def _is_address(family: socket.AddressFamily, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


def _port(port: str | None, default_port: int) -> int:
    if port is None:
        if not default_port:
            raise BadValueError("the port is missing; this protocol has no standard port")
        return default_port
    if not _PORT.fullmatch(port) or int(port) > 65535:
        # With an @ it may be a URL with a password, which must not be repeated.
        shown = "this" if "@" in port else show_value(port)
        raise BadValueError(f"{shown} is not a port", allowed="0 to 65535")
    return int(port)


def _is_index(scope: str) -> bool:
    """Tell whether digits are an interface index; Python truncates larger numbers to 32 bits."""
    return scope.isascii() and int(scope) < 1 << 32


def _inet6(text: str, host: str, port: str | None, default_port: int) -> Bind:
    address, percent, scope = host.partition("%")
    if not _is_address(socket.AF_INET6, address):
        if _is_address(socket.AF_INET, address):
            raise BadValueError(
                "brackets are for IPv6 addresses", suggestion=quote(f"{address}:{port or ''}")
            )
        raise BadValueError("this is not an IPv6 address")
    if percent and (not _SCOPE.fullmatch(scope) or (scope.isdigit() and not _is_index(scope))):
        raise BadValueError(
            f"{show_value(scope)} is not an interface name", allowed='"[fe80::1%eth0]:25"'
        )
    packed = socket.inet_pton(socket.AF_INET6, address)
    canonical = socket.inet_ntop(socket.AF_INET6, packed)
    number = _port(port, default_port)
    if (plain := unmapped(canonical)) != canonical:
        raise BadValueError(
            "this is an IPv4-mapped IPv6 address", suggestion=quote(f"{plain}:{number}")
        )
    if packed[0] == 0xFE and packed[1] & 0xC0 == 0x80 and not scope:
        raise BadValueError(
            "a link-local address needs an interface", allowed=f'"[{canonical}%eth0]:{number}"'
        )
    return Bind(text, "inet6", canonical, number, scope=scope, wildcard=canonical == "::")


def _not_an_address(word: str, host: str, port: str) -> BadValueError:
    if not word:
        return BadValueError("this is empty")
    if host in ("", "*") or (word.isascii() and word.isdigit()):
        shown = word if word.isdigit() else port
        return BadValueError(
            "the address is missing; [::] means all interfaces",
            suggestion=quote(f"[::]:{shown}" if shown else "[::]"),
        )
    if "/" in word:
        near = quote(f"unix:{word}") if word.startswith("/") and not word.endswith("/") else ""
        return BadValueError("this is not an address", suggestion=near)
    if re.fullmatch(r"[0-9.]+", host):
        return BadValueError(f"{show_value(host)} is not an IPv4 address")
    if host.lower() == "localhost":
        near = quote(f"127.0.0.1:{port}" if port else "127.0.0.1")
        return BadValueError("this is a host name; use its address", suggestion=near)
    if is_hostname(host):
        return BadValueError("this is a host name; use its address")
    return BadValueError("this is not an address")


def looks_like_port(bind: Bind) -> str:
    """Return the end of an IPv6 address without brackets if it looks like a port, else empty."""
    if bind.family != "inet6" or "[" in bind.text:
        return ""
    tail = bind.text.strip().partition("%")[0].rpartition(":")[2]
    return tail if tail in _MAIL_PORTS else ""


def is_loopback(bind: Bind) -> bool:
    """Tell whether only this host can connect to a bind; False for inherited sockets."""
    if bind.family == "inet":
        return bind.address.startswith("127.")
    return bind.family == "unix" or (bind.family == "inet6" and bind.address == "::1")


def set_v6only(binds: Sequence[Bind], ipv4_wildcards: frozenset[int]) -> tuple[Bind, ...]:
    """Set IPV6_V6ONLY: off for `[::]` unless 0.0.0.0 is bound on the same port, on otherwise.

    Args:
        binds: all binds of one listener.
        ipv4_wildcards: the ports on which any listener binds 0.0.0.0; without 0, because ports
            that the kernel chooses are never shared.
    """
    return tuple(
        replace(bind, v6only=not bind.wildcard or bind.port in ipv4_wildcards)
        if bind.family == "inet6"
        else bind
        for bind in binds
    )


def find_overlaps(binds: Sequence[tuple[str, Bind]]) -> Iterator[tuple[int, int]]:
    """Yield (index, index of an earlier or wider one) for binds that use the same address.

    Args:
        binds: listener id and bind, in order; `v6only` is not read.
    """
    first: dict[tuple[object, ...], int] = {}
    wild4: dict[int, int] = {}
    wild6: dict[int, int] = {}
    for index, (_, bind) in enumerate(binds):
        if bind.family in ("inet", "inet6") and bind.port == 0:
            continue
        key = (bind.family, bind.address, bind.port, bind.scope, bind.fd)
        if key in first:
            yield index, first[key]
            continue
        first[key] = index
        if bind.wildcard:
            (wild4 if bind.family == "inet" else wild6)[bind.port] = index
    for index in first.values():
        bind = binds[index][1]
        if bind.wildcard or bind.family not in ("inet", "inet6"):
            continue
        # [::] leaves IPv4 to 0.0.0.0 where both are bound.
        wider = wild6.get(bind.port)
        if bind.family == "inet":
            wider = wild4.get(bind.port, wider)
        if wider is not None:
            yield index, wider
