"""IP addresses as text, in the canonical form in which they are compared, counted and shown.

Rules of this file: nothing is looked up, and nothing of the package is imported.

On a dual-stack socket an IPv4 client has an IPv4-mapped IPv6 address, ``::ffff:192.0.2.1`` (RFC
4291 2.5.5.2). Configured networks, limits per address, logs and HTTP responses use the IPv4
address, so mapped addresses are converted wherever they come in.
"""

from __future__ import annotations

import ipaddress
from typing import Any

__all__ = [
    "MAPPED_PREFIX",
    "Address",
    "Network",
    "is_loopback",
    "parse_address",
    "peer_address",
    "unmapped",
    "unmapped_network",
    "with_port",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The first 12 of the 16 bytes of an IPv4-mapped address.
MAPPED_PREFIX = b"\0" * 10 + b"\xff\xff"

_MAPPED = ipaddress.IPv6Network((MAPPED_PREFIX + bytes(4), 96))


def unmapped(text: str) -> str:
    """Return an address, as IPv4 if it is an IPv4-mapped one.

    Args:
        text: an address as the kernel, inet_ntop(3) or `socket` writes it.
    """
    return text[7:] if text.startswith("::ffff:") and "." in text else text


def peer_address(name: tuple[Any, ...]) -> str:
    """Return the address in a socket's name, with its scope if it has one: ``fe80::1%2``.

    Args:
        name: what getpeername or getsockname of an IPv4 or IPv6 socket returns.
    """
    address: str = name[0]
    if len(name) == 4 and name[3]:
        return f"{address}%{name[3]}"
    return unmapped(address)


def parse_address(text: str) -> Address | None:
    """Parse an address, ignoring its scope; an IPv4-mapped one becomes IPv4.

    Returns:
        None if it is not an address.
    """
    bare, percent, _ = text.partition("%")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    # Only IPv6 has scopes (RFC 4007): `127.0.0.1%example.org` is not an address.
    return None if percent else address


def unmapped_network(network: Network) -> Network:
    """Return a network, as IPv4 if it is one of IPv4-mapped addresses."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        packed = network.network_address.packed.removeprefix(MAPPED_PREFIX)
        return ipaddress.IPv4Network((packed, network.prefixlen - 96))
    return network


def is_loopback(text: str) -> bool:
    """Tell whether a string is a loopback address; False for a host name."""
    address = parse_address(text)
    return address is not None and address.is_loopback


def with_port(host: str, port: int) -> str:
    """Return an address or a host name with a port: ``192.0.2.1:25``, ``[2001:db8::1]:25``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
