"""Who a request comes from, in the words of a proxy that is trusted.

Rules of this file: sans I/O. What a header says is believed as far as trusted proxies have written
it: each adds its own client on the right, so that the list is read from there, up to the first
address that is no trusted proxy. What stands further left, that client may have made up.

RFC 7239 (`Forwarded`) goes before `X-Forwarded-For` and `X-Forwarded-Proto`, which are read only
where there is none.
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
#: An address and perhaps a port; IPv6 in brackets if there is one (RFC 7239 6).
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")

_SCHEMES = frozenset((b"http", b"https", b"ws", b"wss"))

#: Addresses of one request that are looked at; more is no chain of proxies.
_MOST = 64


class TrustedProxies:
    """The proxies of a listener that are trusted.

    Args:
        networks: theirs, or ``unix`` for those that come over Unix sockets.
    """

    def __init__(self, networks: Iterable[Network | str]) -> None:
        found = tuple(networks)
        self._unix = "unix" in found
        self._networks = tuple(one for one in found if not isinstance(one, str))

    def trusts(self, peer: str | None) -> bool:
        """Tell whether a peer is one of them.

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
        """Return where a request comes from: the client, or whom a trusted proxy names.

        Args:
            info: of the connection.
            headers: of the request.
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
        """Return what the headers of a trusted proxy's request say.

        Returns:
            address and port of the client, port 0 where it is not told and None where the address
            is not; and whether the client uses TLS, None where that is not told. None for both if
            no header says anything.
        """
        forwarded = _joined(headers, b"forwarded")
        if forwarded:
            nodes, schemes = _parameters(forwarded)
        else:
            nodes = _listed(_joined(headers, b"x-forwarded-for"))
            schemes = _listed(_joined(headers, b"x-forwarded-proto"))
        if not nodes and not schemes:
            return None
        tls = None
        if schemes and (scheme := schemes[-1].lower()) in _SCHEMES:
            tls = scheme in (b"https", b"wss")
        return self._first_unknown(nodes), tls

    def _first_unknown(self, nodes: list[bytes]) -> tuple[str, int] | None:
        """Return the address that is nearest and no trusted proxy; the farthest if all are."""
        client: tuple[str, int] | None = None
        for node in nodes[: -_MOST - 1 : -1]:
            client = _node(node.decode("latin-1"))
            if client is None or not self.trusts(client[0]):
                break
        return client


def _joined(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the values of all fields of a name as one list (RFC 9110 5.3)."""
    return b", ".join(value for field, value in headers if field == name)


def _listed(value: bytes) -> list[bytes]:
    return [one for each in value.split(b",") if (one := each.strip(b" \t"))]


def _parameters(value: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the values of `for` and of `proto`, one for each element that has it."""
    nodes: list[bytes] = []
    schemes: list[bytes] = []
    at = 0
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None:
            # What stands after it is not to be believed, and what stands before it is older.
            return [], []
        name, plain, quoted = found[1].lower(), found[2], found[3]
        text = plain if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        if name == b"for":
            nodes.append(text)
        elif name == b"proto":
            schemes.append(text)
        at = found.end()
    return nodes, schemes


def _node(text: str) -> tuple[str, int] | None:
    """Return address and port; None for what is no address (`unknown`, `_hidden`)."""
    if found := _NODE.fullmatch(text):
        address, port = found[1] or found[2], int(found[3] or 0)
    else:
        address, port = text, 0
    parsed = parse_address(address)
    return None if parsed is None or port > 65535 else (str(parsed), port)
