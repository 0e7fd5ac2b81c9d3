"""HTTP/1.1 requests as h11 reads them, less what it takes and two servers may read in two ways.

Rules of this file: sans I/O; h11's public interface only. What is refused here is what request
smuggling is made of (RFC 9112 11.2): a message whose length or lines another server in front of
this one may see elsewhere. h11 itself refuses spaces around names, NUL, lengths that differ and
codings other than chunked. It takes, and this module does not:

    a line that ends with LF alone, in the head, in a chunk's extension and in trailers
    CR in the middle of a chunk's extension, a blank after its size
    a header field that goes on in the next line (obs-fold)
    Content-Length together with Transfer-Encoding, or twice, or as a list
    Transfer-Encoding in HTTP/1.0
"""

from __future__ import annotations

import re
from typing import TypeAlias

import h11

__all__ = ["SLICE", "RequestReader"]

#: The most octets that are to be given to `RequestReader` at a time; see its `portion`. What h11
#: has consumed is known from what it has left, which copies it: that must stay small beside h11's
#: own work for a chunk.
SLICE = 8 * 1024

#: The same where many chunks may be among them: those of one octet take 20 ms for each 8 KiB,
#: 1.3 ms for this.
_CHUNKED_SLICE = 512

#: Lines of a head, or of trailers. Each costs h11 some 3 µs, and a head is read in one go; Apache
#: takes 100 fields, browsers send 20.
MAX_LINES = 256

#: Where h11 sees the end of a head, or of trailers.
_END = re.compile(rb"\n\r?\n")
#: An end of line that is only half of one, or a NUL.
_HALF = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
#: A line that goes on the one before it.
_FOLDED = re.compile(rb"\n[ \t]")
#: What decides on the length of a body; names of header fields have no space around them here,
#: because h11 refuses it.
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:", re.IGNORECASE)
#: A list of lengths, of which h11 takes one if they are all the same.
_LENGTHS = re.compile(rb"\r\ncontent-length[ \t]*:[^\r\n]*,", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
#: A chunk's size and a blank.
_BLANK = re.compile(rb"(?:^|\n)[0-9A-Fa-f]+[ \t]")
#: The line before a chunk.
_SIZE = re.compile(rb"(?:^|\n)([0-9A-Fa-f]+)(?:;[^\n]*)?\r\n")
#: A target with the host in it (RFC 9112 3.2.2): authority, then path and query.
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)((?:[/?].*)?)", re.IGNORECASE | re.DOTALL)

Event: TypeAlias = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class RequestReader(h11.Connection):
    """The server's end of an HTTP/1.1 connection.

    Args:
        max_head: octets of the largest head of a request, and of trailers.
        max_body: octets of the largest body; None for no limit.

    Attributes:
        error: what was wrong with the client's bytes; its `error_status_hint` is the status to
            answer with.
        partial: a head has begun and is not complete.
    """

    def __init__(self, max_head: int, max_body: int | None) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head)
        self.error: h11.RemoteProtocolError | None = None
        self.partial = False
        self._max_head = max_head
        self._max_body = max_body
        self._looked = 0
        self._body = 0
        self._chunked = False
        self._chunk = 0  # octets of the chunk that is being read which have not come
        self._held = b""

    @property
    def hungry(self) -> bool:
        """A request, or the rest of one, is waited for: more can be received."""
        return self.their_state in (h11.IDLE, h11.SEND_BODY)

    @property
    def portion(self) -> int:
        """The octets to be given next, at most. All of one portion is worked at in one go."""
        if self.their_state is h11.SEND_BODY and not self._chunked:
            return SLICE
        # Behind the end of a head, too, chunks may follow at once.
        return max(_CHUNKED_SLICE, min(SLICE, self._chunk))

    def next_event(self) -> Event:
        """Return the next event, as h11 does.

        Raises:
            h11.RemoteProtocolError: the client does not speak HTTP/1.1, or ambiguously, or too
                much; kept in `error`.
        """
        try:
            if self.their_state is h11.IDLE:
                return self._next_head()
            return self._next_chunk() if self._chunked else self._counted(super().next_event())
        except h11.RemoteProtocolError as error:
            self.error = error
            raise

    def _next_head(self) -> Event:
        raw, _ = self.trailing_data
        self.partial = bool(raw)
        # A head may come octet by octet: what has been looked at has no end in it.
        end = _END.search(raw, max(0, self._looked - 2))
        self._looked = len(raw)
        if end is not None:
            self._check_head(raw[: end.end()])
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.partial = False
            self._looked = self._body = 0
            return self._begin(event)
        return event

    def _check_head(self, head: bytes) -> None:
        if len(head) > self._max_head:
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        if head.count(b"\n") > MAX_LINES:
            raise h11.RemoteProtocolError("too many header fields", error_status_hint=431)
        if _HALF.search(head):
            raise h11.RemoteProtocolError("half an end of line, or NUL")
        if _FOLDED.search(head):
            raise h11.RemoteProtocolError("a folded header field")
        lengths, codings = len(_LENGTH.findall(head)), len(_CODING.findall(head))
        if lengths > 1 or (lengths and codings) or _LENGTHS.search(head):
            raise h11.RemoteProtocolError("more than one length")

    def _begin(self, event: h11.Request) -> h11.Request:
        """Look at a complete head; return it with the target in the form that starts with /."""
        if not event.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("not HTTP/1", error_status_hint=505)
        length = 0
        for name, value in event.headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                if event.http_version == b"1.0":
                    raise h11.RemoteProtocolError("Transfer-Encoding in HTTP/1.0")
                self._chunked = True
        if self._max_body is not None and length > self._max_body:
            raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
        return _with_path(event)

    def _counted(self, event: Event) -> Event:
        if isinstance(event, h11.Data):
            self._body += len(event.data)
            if self._max_body is not None and self._body > self._max_body:
                raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage):
            self._chunked = False
            self._chunk = 0
        return event

    def _next_chunk(self) -> Event:
        before, _ = self.trailing_data
        event = super().next_event()
        left, _ = self.trailing_data
        data = len(event.data) if isinstance(event, h11.Data) else 0
        # All but the data: ends and beginnings of chunks, trailers.
        lines = self._held + before[: len(before) - len(left) - data]
        # h11 takes the end of a chunk octet by octet.
        self._held = lines[-1:] if lines.endswith(b"\r") else b""
        lines = lines.removesuffix(b"\r")
        if _HALF.search(lines) or _FOLDED.search(lines):
            raise h11.RemoteProtocolError("half an end of line, or a folded one, between chunks")
        if _BLANK.search(lines):
            raise h11.RemoteProtocolError("a blank after the size of a chunk")
        if lines.count(b"\n") > MAX_LINES:
            raise h11.RemoteProtocolError("too many trailers", error_status_hint=431)
        if found := _SIZE.search(lines):
            self._chunk = int(found[1], 16)
        self._chunk -= data
        return self._counted(event)


def _with_path(event: h11.Request) -> h11.Request:
    """Return a request whose target is a path or ``*``.

    The host of an absolute target replaces that of the Host header (RFC 9112 3.2.2).
    """
    target = event.target
    if event.method == b"CONNECT":
        raise h11.RemoteProtocolError("this is no proxy", error_status_hint=501)
    if b"#" in target:
        raise h11.RemoteProtocolError("a fragment in the target")
    if target.startswith(b"/") or (target == b"*" and event.method == b"OPTIONS"):
        return event
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise h11.RemoteProtocolError("neither a path nor an address")
    host, path = found.groups()
    headers = [(name, value) for name, value in event.headers if name != b"host"]
    return h11.Request(
        method=event.method,
        target=path if path.startswith(b"/") else b"/" + path,
        headers=[(b"host", host), *headers],
        http_version=event.http_version,
    )
