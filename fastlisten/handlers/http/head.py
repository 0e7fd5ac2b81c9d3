"""Parses the head of a request: octets in; a `Request` out, or the status that refuses it.

Rules of this file: sans I/O, and nothing about ASGI. httptools (llhttp) splits the header fields
and refuses invalid ones. Where a message ends, which host it is for and whether the connection
stays open is decided here, because request smuggling works where two servers interpret these
differently (RFC 9112 11.2):

- httptools gets a complete head, with a request line of our own, because it accepts only the
  methods and versions that it knows, and has no limits.
- What it says about the body, or about an upgrade, is ignored.
"""

from __future__ import annotations

import functools
import re

from httptools import HttpParserUpgrade, HttpRequestParser
from httptools.parser.errors import HttpParserError

__all__ = ["MAX_LINES", "Request", "RequestError", "find_end", "read_head"]

#: The most lines of a head, or of trailers. Apache accepts 100 fields, browsers send 20.
MAX_LINES = 256

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")

#: The end of a head, as the most lenient parser sees it; `read_head` refuses bare LFs and CRs.
_END = re.compile(rb"\n\r?\n")

#: A field's value (RFC 9110 5.5): visible characters, spaces, tabs, octets above ASCII.
_FIELD_OCTETS = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

#: The request line that httptools gets; the client's has been parsed by then.
_LINE_FOR_PARSER = b"GET / HTTP/1.1\r\n"

#: The most digits of a Content-Length.
_LENGTH = re.compile(rb"[0-9]{1,18}")

#: A target in absolute form (RFC 9112 3.2.2): authority, then path and query.
_ABSOLUTE = re.compile(rb"https?://([^/?]*)((?:[/?].*)?)", re.IGNORECASE | re.DOTALL)

#: RFC 3986 3.2.2 and 3.2.3: a name or an IPv4 address, or an address in brackets; a port.
_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
    rb"|\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\])"
    rb"(?::[0-9]{0,5})?"
)

#: Fields that are interpreted here.
_SPECIAL = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect")
)


class RequestError(Exception):
    """The request is refused, and the connection ends.

    Args:
        status: the response's status: 400, 413, 431, 501 or 505.
        why: the reason, for debugging.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Request:
    """The head of a request.

    Attributes:
        method: as the client sent it.
        target: path and query, or ``*``; without the host of an absolute target.
        version: ``"1.1"``, ``"1.0"``, or another 1.x as written.
        headers: names in lower case and values without surrounding blanks, in their order.
        length: octets of the body; None if it is chunked.
        close: the connection must close after the response.
        expects: the client waits for a 100 before it sends its body (RFC 9110 10.1.1).
        websocket: the client asks for a websocket (RFC 6455 4.1).
    """

    __slots__ = (
        "close",
        "expects",
        "headers",
        "length",
        "method",
        "target",
        "version",
        "websocket",
    )

    method: bytes
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int | None
    close: bool
    expects: bool
    websocket: bool


class _Fields:
    """Collects the fields of one head from httptools."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found.append((name.lower(), value.rstrip(b" \t")))


def find_end(data: bytes | bytearray, looked: int) -> int:
    """Return where the head at the beginning of `data` ends, or -1 if it is incomplete.

    Args:
        data: the input so far.
        looked: how many octets have been searched before.
    """
    found = _END.search(data, max(0, looked - 2))
    return -1 if found is None else found.end()


def read_head(head: bytes) -> Request:
    """Parse a head.

    Args:
        head: from the method to the empty line.

    Raises:
        RequestError: the head is invalid, or another server might interpret it differently.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise RequestError(400, "malformed request line")
    method, target, major, minor = line.groups()
    if major != b"1":
        raise RequestError(505, "not HTTP/1")
    fields = head[line.end() :]
    if head.count(b"\n") > MAX_LINES:
        raise RequestError(431, "too many header fields")
    if fields.replace(b"\r\n", b"").translate(None, _FIELD_OCTETS):
        raise RequestError(400, "bare CR or LF, or a control character")
    if b"\r\n " in fields or b"\r\n\t" in fields:
        raise RequestError(400, "a folded header field")
    request = Request()
    request.method = method
    request.version = "1.1" if minor == b"1" else f"1.{minor.decode()}"
    request.headers = _fields(fields)
    request.target = target
    _interpret(request, minor != b"0")
    if target[0] != 0x2F or b"#" in target or method == b"CONNECT":
        _change_target(request)
    return request


def _fields(fields: bytes) -> list[tuple[bytes, bytes]]:
    collector = _Fields()
    # A new parser each time, because after a body's length or an upgrade it would wait for that.
    parser = HttpRequestParser(collector)
    try:
        parser.feed_data(_LINE_FOR_PARSER)
        parser.feed_data(fields)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        if "Transfer-Encoding` header value" in str(error):
            # httptools accepts some other codings before the last; we accept none.
            raise RequestError(501, "a coding other than chunked") from error
        raise RequestError(400, str(error)) from error
    return collector.found


def _interpret(request: Request, persistent: bool) -> None:
    """Interpret the fields that concern the body, the host and the connection.

    Args:
        request: a request with its fields.
        persistent: connections are kept open by default (HTTP/1.1).
    """
    hosts = 0
    length: int | None = 0
    lengths = codings = 0
    connection: list[bytes] = []
    upgrade: list[bytes] = []
    request.expects = False
    for name, value in request.headers:
        if name not in _SPECIAL:
            continue
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                raise RequestError(400, "invalid Host")
        elif name == b"content-length":
            lengths += 1
            if not _LENGTH.fullmatch(value):
                raise RequestError(400, "invalid Content-Length")
            length = int(value)
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked":
                raise RequestError(501, "a coding other than chunked")
            length = None
        elif name == b"connection":
            connection += value.lower().split(b",")
        elif name == b"upgrade":
            upgrade += value.lower().split(b",")
        else:
            request.expects = persistent and value.lower() == b"100-continue"
    if hosts != 1 and (hosts or persistent):
        raise RequestError(400, "not exactly one Host")
    if lengths + codings > 1:
        if codings > 1 and not lengths:
            raise RequestError(501, "more than one Transfer-Encoding")
        raise RequestError(400, "more than one length")
    if codings and not persistent:
        raise RequestError(400, "Transfer-Encoding in HTTP/1.0")
    request.length = length
    options = {option.strip(b" \t") for option in connection}
    request.close = not persistent or b"close" in options
    request.websocket = (
        persistent
        and b"upgrade" in options
        and b"websocket" in (one.strip(b" \t") for one in upgrade)
    )


@functools.lru_cache(256)
def _is_host(value: bytes) -> bool:
    """Return whether this is a valid value of the Host field (RFC 9110 7.2)."""
    return _HOST.fullmatch(value) is not None


def _change_target(request: Request) -> None:
    """Move the host of an absolute target to the Host field, replacing it (RFC 9112 3.2.2)."""
    target = request.target
    if request.method == b"CONNECT":
        raise RequestError(501, "CONNECT, but this is not a proxy")
    if b"#" in target:
        raise RequestError(400, "a fragment in the target")
    if target == b"*" and request.method == b"OPTIONS":
        return
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise RequestError(400, "the target is neither a path nor a URL")
    host, path = found.groups()
    if not host or host.startswith(b":") or not _is_host(host):
        raise RequestError(400, "invalid host in the target")
    request.target = path if path.startswith(b"/") else b"/" + path
    fields = [field for field in request.headers if field[0] != b"host"]
    request.headers = [(b"host", host), *fields]
