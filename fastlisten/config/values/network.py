"""Kinds of values: addresses, networks, host names, URLs and rates.

Rules of this file: those of `scalars.py`. Nothing is looked up: no DNS, no interface list.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from fastlisten.addresses import unmapped_network, with_port
from fastlisten.config.notation import quote, show_value
from fastlisten.config.values.grammar import (
    BadValueError,
    Kind,
    format_duration,
    parse_duration,
    strings,
    text_of,
)
from fastlisten.hostnames import is_hostname
from fastlisten.option import Option

__all__ = ["DSCP", "NETWORK_KINDS", "HostPort", "Network", "Rate"]

#: A network, or the word ``unix`` for peers on Unix sockets.
Network = ipaddress.IPv4Network | ipaddress.IPv6Network | str

#: DSCP classes and their code points: RFC 2474 (CS), 2597 (AF), 3246 (EF), 5865 (VA), 8622 (LE).
DSCP: dict[str, int] = {
    **{f"cs{number}": number * 8 for number in range(8)},
    **{f"af{row}{drop}": row * 8 + drop * 2 for row in range(1, 5) for drop in range(1, 4)},
    "ef": 46,
    "va": 44,
    "le": 1,
}

_INTEGER = re.compile(r"[0-9]{1,4}|0x[0-9a-fA-F]{1,4}")
_PORT = re.compile(r"[0-9]{1,5}")
# What may follow the scheme of a URL: host, port and path, but no user and no query.
_URL_REST = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?((?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]*)*)"
)
_MAX_EVENTS = 2**31 - 1
# Counting over more than a day would often outlast the process.
_MAX_RATE_SECONDS = 86400.0


class Rate(NamedTuple):
    """A number of events per time.

    Attributes:
        events: how many.
        seconds: the length of the time.
    """

    events: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.events} / {format_duration(self.seconds)}"


class HostPort(NamedTuple):
    """Where another server listens.

    Attributes:
        host: an IP address in canonical form, a host name, or the path of a Unix socket.
        port: its port, 0 for a Unix socket.
    """

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return f"unix:{self.host}"
        return with_port(self.host, self.port)


def _network(option: Option, text: str) -> Network:
    if option.extra.get("unix") and text.strip().lower() == "unix":
        return "unix"
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError:
        try:
            loose = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise BadValueError(f"{show_value(text)} is not a network") from None
        raise BadValueError(
            f"{show_value(text)} has host bits set", suggestion=quote(str(loose))
        ) from None
    return unmapped_network(network)


def _networks(option: Option, raw: Any) -> tuple[Network, ...]:
    return tuple(dict.fromkeys(_network(option, text) for text in strings(raw)))


def _describe_networks(option: Option) -> str:
    return 'networks such as "10.0.0.0/8"' + (', or "unix"' if option.extra.get("unix") else "")


def _write_networks(value: tuple[Network, ...]) -> str:
    return "[" + ", ".join(quote(str(network)) for network in value) + "]"


def _rate(option: Option, raw: Any) -> Rate | None:
    if raw is False or raw == "false":
        return None
    count, slash, time = text_of(raw).partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,12}", count.strip()):
        raise BadValueError("this is not a rate")
    rate = Rate(int(count), parse_duration(time.strip()))
    if not 1 <= rate.events <= _MAX_EVENTS:
        raise BadValueError("the number before the slash is out of range")
    if not 1 <= rate.seconds <= _MAX_RATE_SECONDS:
        raise BadValueError("the time after the slash is out of range")
    return rate


def _tos(option: Option, raw: Any) -> int | None:
    if raw is False or raw == "false":
        return None
    if isinstance(raw, str):
        word = raw.strip().lower()
        if word in DSCP:
            return DSCP[word] << 2
        if _INTEGER.fullmatch(word):
            raw = int(word, 0 if word.startswith("0x") else 10)
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise BadValueError("this is neither a number nor a DSCP class")
    if not 0 <= raw <= 255:
        raise BadValueError("this is out of range")
    return raw


def _hostname(option: Option, raw: Any) -> str:
    text = text_of(raw)
    if not _is_literal(text) and not is_hostname(text):
        raise BadValueError("this is not a host name")
    return text.removesuffix(".")


def _is_literal(text: str) -> bool:
    """Tell whether a text is an address literal (RFC 5321 4.1.3), allowed instead of a name."""
    address = text[1:-1]
    if text != f"[{address}]":
        return False
    try:
        if address[:5].lower() == "ipv6:":
            return not ipaddress.IPv6Address(address[5:]).scope_id
        ipaddress.IPv4Address(address)
    except ValueError:
        return False
    return True


def _hostnames(option: Option, raw: Any) -> tuple[str, ...]:
    found = []
    for text in strings(raw):
        name = text.strip().removesuffix(".").lower()
        bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        try:
            found.append(str(ipaddress.ip_address(bare)))
        except ValueError:
            if bare != name or not is_hostname(name):
                raise BadValueError(
                    f"{show_value(text)} is neither a host name nor an address"
                ) from None
            found.append(name)
    return tuple(dict.fromkeys(found))


def _url(option: Option, raw: Any) -> str | None:
    text = text_of(raw).strip()
    scheme, separator, rest = text.rpartition("://")
    match = _URL_REST.fullmatch(rest)
    scheme = scheme.lower() if separator else "https"
    if match is None or scheme not in ("https", "http"):
        raise BadValueError("this is not a URL")
    host, port, path = match.groups()
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            raise BadValueError(f"{show_value(host)} is not an IPv6 address") from None
    elif not is_hostname(host):
        raise BadValueError(f"{show_value(host)} is not a host name")
    if port is not None and not 1 <= int(port) <= 65535:
        raise BadValueError("the port must be between 1 and 65535")
    # The default port of the scheme is left out, as in browsers.
    usual = "443" if scheme == "https" else "80"
    at = f":{int(port)}" if port is not None and port.lstrip("0") != usual else ""
    return f"{scheme}://{host.lower().removesuffix('.')}{at}{path.rstrip('/')}"


def _with_port(text: str, names: bool) -> str:
    """Suggest a port for a host name without one; empty for anything else."""
    # Relays accept submissions on port 587 (RFC 6409 3.1).
    return quote(f"{text}:587") if names and is_hostname(text) else ""


def _endpoint(names: bool) -> Callable[[Option, Any], HostPort]:
    def parse(option: Option, raw: Any) -> HostPort:
        text = text_of(raw).strip()
        if text.startswith("unix:"):
            if not text.startswith("unix:/"):
                raise BadValueError("the path after unix: must start with /")
            return HostPort(text.removeprefix("unix:"), 0)
        host, colon, port = text.rpartition(":")
        if not colon or not host or not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
            raise BadValueError(
                "this is not an address with a port", suggestion=_with_port(text, names)
            )
        if host.startswith("[") and host.endswith("]"):
            version: type[ipaddress.IPv4Address | ipaddress.IPv6Address] = ipaddress.IPv6Address
            host = host[1:-1]
        else:
            version = ipaddress.IPv4Address
        try:
            return HostPort(str(version(host)), int(port))
        except ValueError:
            if names and version is ipaddress.IPv4Address and is_hostname(host):
                return HostPort(host, int(port))
            raise BadValueError("this is not an address with a port") from None

    return parse


def _bind(option: Option, raw: Any) -> tuple[str, ...]:
    """Check only that these are strings; `binds.py` parses them, which takes the protocol."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        near = f'"[::]:{raw}"' if 0 <= raw <= 65535 else ""
        raise BadValueError("a port alone is not an address", suggestion=near)
    texts = tuple(strings(raw))
    if not texts:
        raise BadValueError("this is empty")
    return texts


def _write_text(value: object) -> str:
    return "false" if value is None else quote(str(value))


def _plain_text(value: object) -> str | None:
    return None if value is None else str(value)


NETWORK_KINDS: dict[str, Kind] = {
    "networks": Kind(
        _networks,
        _write_networks,
        lambda value: [str(network) for network in value],
        _describe_networks,
    ),
    "rate": Kind(
        _rate, _write_text, _plain_text, lambda _: 'a number and a time such as "20 / 5m", or false'
    ),
    "tos": Kind(
        _tos,
        lambda value: "false" if value is None else str(value),
        lambda value: value,
        lambda _: '0 to 255, or a DSCP class such as "CS1" or "AF21", or false',
    ),
    "hostname": Kind(
        _hostname, _write_text, _plain_text, lambda _: 'a host name such as "mx.example.org"'
    ),
    "hostnames": Kind(
        _hostnames,
        lambda value: "[" + ", ".join(quote(text) for text in value) + "]",
        list,
        lambda _: 'host names or addresses without a port, such as "mail.example.org"',
    ),
    "url": Kind(
        _url,
        _write_text,
        _plain_text,
        lambda _: '"https://mail.example.org" or "mail.example.org:8443"',
    ),
    "hostport": Kind(
        _endpoint(names=True),
        _write_text,
        _plain_text,
        lambda _: '"name:port", "address:port", "[address]:port" or "unix:/path"',
    ),
    "endpoint": Kind(
        _endpoint(names=False),
        _write_text,
        _plain_text,
        lambda _: '"address:port", "[address]:port" or "unix:/path"',
    ),
    "bind": Kind(
        _bind,
        lambda value: "[" + ", ".join(quote(text) for text in value) + "]",
        list,
        lambda _: '"address:port", "[address]:port", "unix:/path", "fd:number" or "systemd:name"',
    ),
}
