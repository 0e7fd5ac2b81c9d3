"""The head of a response: an application's status and headers, checked against RFC 9110.

Rules of this file: sans I/O. For a head that is not allowed, the application gets a `ResponseError`
before anything is sent. Fields that are up to the server are left out.

    an application's field       what happens to it
    Content-Length               used; left out of 204 (RFC 9110 8.6)
    Transfer-Encoding            left out, as ASGI says: the server decides
    Connection: close            the connection closes; `keep-alive` is left out
    Date                         replaces the server's
    all others                   sent, with names in lower case and values stripped
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

__all__ = ["ResponseError", "ResponseHead", "field_of", "octets", "refusal"]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE_OCTETS = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

#: The most digits of a Content-Length.
_DIGITS = 18

#: Statuses whose responses have no content: RFC 9110 15.3.5, 15.3.6, 15.4.5.
_NO_CONTENT = frozenset((204, 205, 304))

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}

#: Fields that are interpreted here.
_SPECIAL = frozenset((b"content-length", b"transfer-encoding", b"connection", b"date"))


class ResponseError(Exception):
    """An application's message is not a valid response, or not allowed at this point by ASGI."""


class ResponseHead:
    """The head of a response.

    Args:
        status: 200 to 599.
        headers: pairs of bytes.
        head_only: the request was HEAD.

    Attributes:
        status: as given.
        length: octets of the body that the application has announced, or None.
        bodiless: nothing follows the head; a body from the application is dropped.
        content: the status allows content.
        close: the application wants the connection to close.

    Raises:
        ResponseError: a part of the head is not allowed.
    """

    __slots__ = ("_dated", "_left", "_lines", "bodiless", "close", "content", "length", "status")

    def __init__(self, status: Any, headers: Iterable[Any], *, head_only: bool) -> None:
        # A bool is an int too; frameworks may use http.HTTPStatus, which is also an int.
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ResponseError(f"the status {status!r} is not one of 200 to 599")
        self.status = int(status)
        self.length: int | None = None
        self.content = status not in _NO_CONTENT
        self.bodiless = head_only or not self.content
        self.close = False
        self._dated = False
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            if type(name) is bytes and type(value) is bytes and value.isascii():
                # The same as field_of() for what is usual, without a call.
                field, value = _name(name), value.strip(b" \t")
                if not value.decode().isprintable():
                    field, value = field_of(name, value)
            else:
                field, value = field_of(name, value)
            if field not in _SPECIAL or self._keep(field, value):
                lines += (field, b": ", value, b"\r\n")
        self._lines = lines
        self._left: int | None = self.length

    def _keep(self, field: bytes, value: bytes) -> bool:
        """Interpret a field; return whether it is sent as it is."""
        if field == b"content-length":
            if not value.isdigit() or len(value) > _DIGITS:
                raise ResponseError(f"the Content-Length {value!r} is not a number")
            if self.length is not None:
                raise ResponseError("there are two Content-Length fields")
            self.length = int(value)
            # Without content, the server decides.
            return self.content or self.status == 304
        if field == b"connection":
            options = [option.strip(b" \t") for option in value.lower().split(b",")]
            self.close = self.close or b"close" in options
            others = [one for one in options if one not in (b"close", b"keep-alive", b"")]
            return bool(others) and b"close" not in options
        if field == b"date":
            self._dated = True
            return True
        return False

    def count(self, size: int, *, more: bool) -> None:
        """Check a part of the body against the head.

        Args:
            size: bytes of this part.
            more: it is not the last part.

        Raises:
            ResponseError: there must be no body, or its length is wrong.
        """
        if self.bodiless:
            if size and not self.content:
                raise ResponseError(f"a response of {self.status} has no content")
        elif self._left is not None:
            if size > self._left or (not more and size < self._left):
                raise ResponseError("the body is not as long as its Content-Length")
            self._left -= size

    def encode(self, *fields: bytes) -> bytes:
        """Return the head; called once.

        Args:
            fields: whole lines that the server adds.
        """
        lines = self._lines
        if not self._dated:
            lines.insert(1, _date_line(int(time.time())))
        if self.status == 205:
            lines.append(b"content-length: 0\r\n")
        lines += fields
        lines.append(b"\r\n")
        return b"".join(lines)


def octets(value: Any) -> bytes:
    """Return bytes or a similar object as bytes.

    Raises:
        ResponseError: it is of another type. (`bytes` would turn the number 3 into three NULs.)
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise ResponseError(f"{value!r} is not bytes")


def field_of(name: Any, value: Any) -> tuple[bytes, bytes]:
    """Return a header field as it is sent.

    Raises:
        ResponseError: it is invalid.
    """
    if type(name) is not bytes or type(value) is not bytes:
        name, value = octets(name), octets(value)
    field = _name(name)
    if value.translate(None, _VALUE_OCTETS):
        raise ResponseError(f"the value of {field.decode()} contains a control character")
    return field, value.strip(b" \t")


@functools.lru_cache(1024)
def _name(name: bytes) -> bytes:
    """Return a field's name in lower case."""
    if not _NAME.fullmatch(name):
        raise ResponseError(f"{name!r} is not a valid field name")
    return name.lower()


@functools.lru_cache(1)
def _date_line(second: int) -> bytes:
    """Return the field Date for a time (RFC 9110 6.6.1); made once a second."""
    return b"date: %b\r\n" % formatdate(second, usegmt=True).encode()


def refusal(status: int, *, head_only: bool, fields: bytes = b"") -> bytes:
    """Return a response of the server's own, after which the connection closes.

    Args:
        status: the response's status.
        head_only: the request was HEAD.
        fields: more lines of the head.
    """
    phrase = HTTPStatus(status).phrase
    body = f"{phrase}\n".encode()
    lines = (
        _STATUS_LINES[status],
        _date_line(int(time.time())),
        b"content-type: text/plain; charset=utf-8\r\n",
        b"content-length: %d\r\n" % len(body),
        fields,
        b"connection: close\r\n\r\n",
    )
    head = b"".join(lines)
    return head if head_only else head + body
