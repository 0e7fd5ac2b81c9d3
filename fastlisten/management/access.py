"""Decides whether a request is allowed.

    request         from loopback or a Unix socket      from anywhere else
    reading         allowed                             needs the token
    a change        needs the token                     needs the token

Rules of this file: the decision depends only on the scope and the headers of a request; a refusal
is a `RefusedError`. There are no cookies and no CORS, so a page of another site can neither use
credentials stored in the browser nor read a response.

A browser on this host connects from loopback too, and shows other sites' pages. Three things keep
these out. **Host**: with DNS rebinding, where an attacker's name resolves to 127.0.0.1, the browser
still sends that name. **Origin** and **Sec-Fetch-Site**, which pages cannot set: a request by
another site's page is refused unless the user followed a link. The **token**: no page knows it, and
every change needs it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from fastlisten.addresses import Address, is_loopback, parse_address
from fastlisten.management.responses import RefusedError

__all__ = ["Access"]

#: RFC 9110 7.2: uri-host [":" port]. The first group is an IPv6 literal, the second anything else.
_HOST = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|((?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+))(?::([0-9]{0,5}))?"
)

#: A request with one of these came through a proxy. That the proxy is on loopback says nothing
#: about its client.
_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")

_PORTS = {"http": 80, "https": 443}

_CHALLENGE = 'Bearer realm="fastlisten"'


class Access:
    """Allows or refuses requests.

    Args:
        names: host names of this server, in addition to ``localhost``, loopback addresses and the
            address that a request came in at.

    Attributes:
        token: the token that allows changes; while it is empty, no change is allowed.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.token = ""
        # A host name may be an address literal of mail (RFC 5321 4.1.3).
        bare = (name.strip("[]").removeprefix("IPv6:") for name in names)
        self._names = {_canonical(name) for name in ("localhost", *bare) if name}

    def check(self, scope: Mapping[str, Any], headers: Headers) -> bool:
        """Check that a request is allowed to read.

        Args:
            scope: the ASGI scope.
            headers: the request's headers.

        Returns:
            True if the request has the token.

        Raises:
            RefusedError: 400 or 403 because of its Host or origin, 401 if it lacks the token.
        """
        host = self._check_host(scope, headers)
        _check_origin(scope, headers, host)
        authorized = self._check_token(headers)
        if not authorized and not _is_local(scope, headers):
            raise RefusedError(
                401,
                "from another machine, or through a proxy, reading needs the token too",
                {"www-authenticate": _CHALLENGE},
            )
        return authorized

    @staticmethod
    def check_change(authorized: bool) -> None:
        """Check that a request is allowed to change something.

        Args:
            authorized: what `check` returned.

        Raises:
            RefusedError: 401.
        """
        if not authorized:
            raise RefusedError(
                401,
                "a change needs the header Authorization: Bearer with the token, which is in "
                "management.token in the server's data directory",
                {"www-authenticate": _CHALLENGE},
            )

    def _check_host(self, scope: Mapping[str, Any], headers: Headers) -> tuple[str, int | None]:
        """Return the host and the port that a request is for.

        Raises:
            RefusedError: 400 if Host is missing or malformed, 403 if it is not a name of ours.
        """
        given = headers.getlist("host")
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise RefusedError(400, "exactly one well-formed Host is needed (RFC 9110 7.2)")
        host = _canonical(match[1] or match[2])
        address = _address(host)
        server = scope.get("server") or ("", None)
        ours = address is not None and (address.is_loopback or address == parse_address(server[0]))
        if not ours and host not in self._names:
            raise RefusedError(
                403, "the Host header does not name this server; add the name to http.allowed-hosts"
            )
        return host, int(match[3]) if match[3] else None

    def _check_token(self, headers: Headers) -> bool:
        """Tell whether a request has the token.

        Raises:
            RefusedError: 401 for a wrong token, even where none is needed: the sender meant to
                send the right one.
        """
        given = headers.getlist("authorization")
        if not given:
            return False
        scheme, _, value = given[0].partition(" ")
        # In constant time. The header may hold any octet; compare_digest takes that only as bytes.
        same = hmac.compare_digest(value.strip(" ").encode("latin-1"), self.token.encode("ascii"))
        if len(given) == 1 and scheme.lower() == "bearer" and same and self.token:
            return True
        raise RefusedError(
            401,
            "the header Authorization does not hold the token",
            {"www-authenticate": f'{_CHALLENGE}, error="invalid_token"'},
        )


def _check_origin(scope: Mapping[str, Any], headers: Headers, host: tuple[str, int | None]) -> None:
    """Refuse a request by a page of another site.

    Raises:
        RefusedError: 403.
    """
    for origin in headers.getlist("origin"):
        if not _is_same(origin, host):
            raise RefusedError(403, "the header Origin names another site")
    sites = headers.getlist("sec-fetch-site")
    if all(site in ("same-origin", "none") for site in sites):
        return
    # The user followed a link: the response is shown to a person, and no script can read it.
    followed = (
        scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if not followed:
        raise RefusedError(403, "the header Sec-Fetch-Site says that another site asks")


def _is_same(origin: str, host: tuple[str, int | None]) -> bool:
    """Tell whether an Origin (RFC 6454 7) names the host that the request is for.

    The scheme is not compared: a proxy may have terminated TLS.
    """
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS.get(parts.scheme)
        name = _canonical(parts.hostname or "")
    except ValueError:
        return False
    return (name, port) == (host[0], host[1] or _PORTS.get(parts.scheme))


def _is_local(scope: Mapping[str, Any], headers: Headers) -> bool:
    """Tell whether a request comes from this host, and not through a proxy on it."""
    if any(name in headers for name in _PROXIED):
        return False
    if client := scope.get("client"):
        return is_loopback(client[0])
    # On a Unix socket the server is a path without a port, and clients have no address. On other
    # sockets the address is missing if the client has disconnected, so it may be anywhere.
    server = scope.get("server")
    return server is not None and server[1] is None


def _address(host: str) -> Address | None:
    """Return the address in a Host or Origin header; None for a name, or an address with a scope.

    ``127.0.0.1%evil.example`` could be a name in the DNS.
    """
    return None if "%" in host else parse_address(host)


def _canonical(host: str) -> str:
    """Return the form of a host name or an address in which it is compared."""
    address = _address(host)
    return host.lower().removesuffix(".") if address is None else str(address)
