"""Parses the head of a request: octets in; a `Request` out, or the status that refuses it.

Rules of this file: sans I/O, and nothing about ASGI. httptools (llhttp) splits the header fields
and refuses invalid ones. Where a message ends, which host it is for and whether the connection
stays open is decided here, because request smuggling works where two servers interpret these
differently (RFC 9112 11.2):

- httptools gets a complete head, with a request line of our own, because it accepts only the
  methods and versions that it knows, and has no limits.
- What it says about the body, or about an upgrade, is ignored.
- Its parser is used for one head after the other only as long as the heads have no field that
  changes the parser's state; see `HeadReader`.
"""

from __future__ import annotations

import functools
import re

from httptools import HttpParserUpgrade, HttpRequestParser
from httptools.parser.errors import HttpParserError

__all__ = ["MAX_LINES", "HeadReader", "Request", "RequestError", "find_end"]

#: The most lines of a head, or of trailers. Apache accepts 100 fields, browsers send 20.
MAX_LINES = 256

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")

#: Methods and versions that requests usually have; others are read by the expression above.
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}

#: The request line that httptools gets; the client's has been parsed by then.
_LINE_FOR_PARSER = b"GET / HTTP/1.1\r\n"

#: The most digits of a Content-Length.
_LENGTH = re.compile(rb"[0-9]{1,18}")

#: A control character, a bare CR or LF, or a folded line.
_MALFORMED = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|\r(?!\n)|(?<!\r)\n|\n[ \t]")

#: A target in absolute form (RFC 9112 3.2.2): authority, then path and query.
_ABSOLUTE = re.compile(rb"https?://([^/?]*)((?:[/?].*)?)", re.IGNORECASE | re.DOTALL)

#: RFC 3986 3.2.2 and 3.2.3: a name or an IPv4 address, or an address in brackets; a port.
_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
    rb"|\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\])"
    rb"(?::[0-9]{0,5})?"
)

#: The most octets of a domain name (RFC 1035 2.3.4), with some for a port.
_LONGEST_NAME = 264

#: Fields that are interpreted here, or by httptools.
_SPECIAL = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"proxy-connection",
        b"upgrade",
        b"expect",
    )
)

#: The usual spellings of names, to their lower case: a lookup, whose result has its hash already,
#: is cheaper than a conversion.
_LOWER = {
    spelling: name
    for name in (
        *_SPECIAL,
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"cache-control",
        b"content-type",
        b"cookie",
        b"forwarded",
        b"if-modified-since",
        b"if-none-match",
        b"origin",
        b"pragma",
        b"priority",
        b"range",
        b"referer",
        b"sec-ch-ua",
        b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-fetch-user",
        b"upgrade-insecure-requests",
        b"user-agent",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    )
    for spelling in (name, name.title())
}


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
    """Collects the fields of a head from httptools.

    Attributes:
        found: names in lower case, and values without surrounding blanks.
    """

    __slots__ = ("found",)

    #: httptools looks for all of its callbacks; a missing one costs it an exception.
    on_message_begin = on_url = on_status = on_headers_complete = on_body = None
    on_message_complete = on_chunk_header = on_chunk_complete = None

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found.append((_LOWER.get(name) or name.lower(), value.rstrip(b" \t")))


def find_end(data: bytes | bytearray, looked: int) -> int:
    """Return where the head at the beginning of `data` ends, or -1 if it is incomplete.

    This is the end as the most lenient parser sees it; `HeadReader` refuses bare LFs.

    Args:
        data: the input so far.
        looked: how many octets have been searched before.
    """
    start = looked - 2 if looked > 2 else 0
    end = data.find(b"\n\r\n", start)
    lone = data.find(b"\n\n", start) if end < 0 else data.find(b"\n\n", start, end + 1)
    if lone >= 0:
        return lone + 2
    return end if end < 0 else end + 3


class HeadReader:
    """Parses heads of requests. One is enough for all connections of an event loop.

    llhttp has a state between two messages. After a message without a body that keeps the
    connection open, it is that of a new parser. So the parser is used again after a head in which
    no field says anything about that; after any other head, and after an error, there is a new one.
    """

    __slots__ = ("_fields", "_parser")

    def __init__(self) -> None:
        self._fields = _Fields()
        # None if the next head needs a new one.
        self._parser: HttpRequestParser | None = None

    def read(self, head: bytes) -> Request:
        """Parse a head.

        Args:
            head: from the method to the empty line.

        Raises:
            RequestError: it is invalid, or another server might interpret it differently.
        """
        line, _, fields = head.partition(b"\r\n")
        text = line.decode("ascii") if line.isascii() else ""
        parts = line.split(b" ")
        request = Request()
        if (
            len(parts) == 3
            and parts[0] in _METHODS
            and parts[2] in _VERSIONS
            and text
            and text.isprintable()
            and parts[1].startswith(b"/")
            and "#" not in text
        ):
            request.method, request.target, protocol = parts
            request.version = _VERSIONS[protocol]
            path = True
        else:
            request.method, request.target, request.version = _request_line(head)
            path = False
        # Each line has two octets or more.
        if len(head) > 2 * MAX_LINES and head.count(b"\n") > MAX_LINES:
            raise RequestError(431, "too many header fields")
        parser, self._parser = self._parser or HttpRequestParser(self._fields), None
        request.headers = self._split(parser, fields)
        if _interpret(request, request.version != "1.0"):
            self._parser = parser
        if not path:
            _change_target(request)
        return request

    def _split(self, parser: HttpRequestParser, lines: bytes) -> list[tuple[bytes, bytes]]:
        """Return the fields in the lines that follow the request line."""
        found = self._fields.found = []
        try:
            parser.feed_data(_LINE_FOR_PARSER + lines)
        except HttpParserUpgrade:
            pass
        except HttpParserError as error:
            if "Transfer-Encoding` header value" in str(error) and not _MALFORMED.search(lines):
                # httptools accepts some other codings before the last; we accept none.
                raise RequestError(501, "a coding other than chunked") from error
            raise RequestError(400, str(error)) from error
        if lines.count(b"\r\n") != len(found) + 1:
            raise RequestError(400, "a line that is not one header field: folded, or a bare LF")
        return found


def _request_line(head: bytes) -> tuple[bytes, bytes, str]:
    """Return method, target and version of any request line."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise RequestError(400, "malformed request line")
    method, target, major, minor = line.groups()
    if major != b"1":
        raise RequestError(505, "not HTTP/1")
    return method, target, f"1.{minor.decode()}"


def _interpret(request: Request, persistent: bool) -> bool:
    """Interpret the fields that concern the body, the host and the connection.

    Args:
        request: a request with its fields.
        persistent: connections are kept open by default (HTTP/1.1).

    Returns:
        whether none of these fields changes the state of a parser.
    """
    hosts = 0
    length: int | None = 0
    lengths = codings = 0
    connection: list[bytes] = []
    upgrade: list[bytes] = []
    plain = True
    request.expects = False
    for name, value in request.headers:
        if name not in _SPECIAL:
            continue
        if name == b"host":
            hosts += 1
            if not (_is_short_host if len(value) <= _LONGEST_NAME else _is_host)(value):
                raise RequestError(400, "invalid Host")
        elif name == b"connection":
            value = value.lower()
            if value != b"keep-alive":
                plain = False
                connection += value.split(b",")
        elif name == b"expect":
            request.expects = persistent and value.lower() == b"100-continue"
        else:
            plain = False
            if name == b"content-length":
                lengths += 1
                if not _LENGTH.fullmatch(value):
                    raise RequestError(400, "invalid Content-Length")
                length = int(value)
            elif name == b"transfer-encoding":
                codings += 1
                if value.lower() != b"chunked":
                    raise RequestError(501, "a coding other than chunked")
                length = None
            elif name == b"upgrade":
                upgrade += value.lower().split(b",")
    if hosts != 1 and (hosts or persistent):
        raise RequestError(400, "not exactly one Host")
    if lengths + codings > 1:
        if codings > 1 and not lengths:
            raise RequestError(501, "more than one Transfer-Encoding")
        raise RequestError(400, "more than one length")
    if codings and not persistent:
        raise RequestError(400, "Transfer-Encoding in HTTP/1.0")
    request.length = length
    request.close = not persistent
    request.websocket = False
    if connection:
        options = {option.strip(b" \t") for option in connection}
        request.close = not persistent or b"close" in options
        request.websocket = (
            persistent
            and b"upgrade" in options
            and b"websocket" in (one.strip(b" \t") for one in upgrade)
        )
    return plain


def _is_host(value: bytes) -> bool:
    """Return whether this is a valid value of the Host field (RFC 9110 7.2)."""
    return _HOST.fullmatch(value) is not None


#: The same for values whose results are remembered. Those of other lengths, as long as a head may
#: be, would take 16 MiB by default.
_is_short_host = functools.lru_cache(256)(_is_host)


def _change_target(request: Request) -> None:
    """Move the host of an absolute target to the Host field, replacing it (RFC 9112 3.2.2)."""
    target = request.target
    if request.method == b"CONNECT":
        raise RequestError(501, "CONNECT, but this is not a proxy")
    if b"#" in target:
        raise RequestError(400, "a fragment in the target")
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
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
