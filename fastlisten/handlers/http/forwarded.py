"""Finds the client of a request in the headers of trusted proxies.

Rules of this file: sans I/O. Each proxy appends its own client on the right. So the list is read
from the right up to the first address that is not a trusted proxy: that is the client. Everything
further left may be made up by that client.

`X-Forwarded-For` and `X-Forwarded-Proto` take precedence; `Forwarded` (RFC 7239) is read only if
there is neither. Most proxies write only the former, and pass on the `Forwarded` of a client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastlisten.addresses import Network, parse_address
from fastlisten.handlers.base import ConnectionInfo

__all__ = ["TrustedProxies"]

#: A parameter of Forwarded (RFC 7239 4): name, value or quoted value, and what follows.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(
    rb"[ \t]*(" + _TOKEN + rb")=(?:(" + _TOKEN + rb')|"((?:[^"\\]|\\.)*)")[ \t]*([;,]|$)'
)
#: An address and perhaps a port; with a port, IPv6 is in brackets (RFC 7239 6).
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")

_SCHEMES = frozenset((b"http", b"https", b"ws", b"wss"))

#: The most addresses that are read; no real chain of proxies is longer.
_MOST = 64


class TrustedProxies:
    """The trusted proxies of a listener.

    Args:
        networks: their networks, or ``unix`` for proxies on Unix sockets.
    """

    def __init__(self, networks: Iterable[Network | str]) -> None:
        found = tuple(networks)
        self._unix = "unix" in found
        self._networks = tuple(one for one in found if not isinstance(one, str))

    def trusts(self, peer: str | None) -> bool:
        """Return whether a peer is a trusted proxy.

        Args:
            peer: its address, or None on a Unix socket.
        """
        if not peer:
            return self._unix
        address = parse_address(peer)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )

    def sender(
        self, info: ConnectionInfo, headers: Iterable[tuple[bytes, bytes]]
    ) -> ConnectionInfo:
        """Return where a request comes from: the peer, or the client that a trusted proxy names.

        Args:
            info: the connection.
            headers: the request's headers.
        """
        told = self.client(headers) if self.trusts(info.peer) else None
        if told is None:
            return info
        client, tls = told
        peer, port = client or (info.peer, info.port)
        return ConnectionInfo(info.listener, peer, port, info.tls if tls is None else tls)

    def client(
        self, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[tuple[str, int] | None, bool | None] | None:
        """Return what the header fields of a trusted proxy say.

        Returns:
            The client's address and port (None if unknown, port 0 if only the port is), and whether
            the client uses TLS (None if unknown).
        """
        plain = _listed(_joined(headers, b"x-forwarded-for"))
        schemes = _listed(_joined(headers, b"x-forwarded-proto"))
        scheme = schemes[-1] if schemes else b""
        if plain or scheme:
            nodes = [(node, b"") for node in plain]
        else:
            nodes = _elements(_joined(headers, b"forwarded"))
        if not nodes and not scheme:
            return None
        client: tuple[str, int] | None = None
        for node, proto in nodes[: -_MOST - 1 : -1]:
            scheme = scheme or proto
            client = _node(node.decode("latin-1"))
            if client is None or not self.trusts(client[0]):
                break
        scheme = scheme.lower()
        return client, scheme in (b"https", b"wss") if scheme in _SCHEMES else None


def _joined(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the values of all fields of a name as one list (RFC 9110 5.3)."""
    return b", ".join(value for field, value in headers if field == name)


def _listed(value: bytes) -> list[bytes]:
    return [one for each in value.split(b",") if (one := each.strip(b" \t"))]


def _elements(value: bytes) -> list[tuple[bytes, bytes]]:
    """Return `for` and `proto` of each element of Forwarded, empty where it has none."""
    elements: list[tuple[bytes, bytes]] = []
    node = proto = b""
    at = 0
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None:
            # What follows cannot be trusted, and what precedes it is from proxies further away.
            return []
        name, plain, quoted = found[1].lower(), found[2], found[3]
        text = plain if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        if name == b"for":
            node = text
        elif name == b"proto":
            proto = text
        at = found.end()
        if found[4] == b"," or at >= len(value):
            elements.append((node, proto))
            node = proto = b""
    return elements


def _node(text: str) -> tuple[str, int] | None:
    """Return address and port, or None if it is not an address (`unknown`, `_hidden`)."""
    if found := _NODE.fullmatch(text):
        address, port = found[1] or found[2], int(found[3] or 0)
    else:
        address, port = text, 0
    parsed = parse_address(address)
    return None if parsed is None or port > 65535 else (str(parsed), port)
