"""The replies of a server whose client we are: octets in, replies out.

Rules of this file: no I/O, and no judgement of what a reply means. It is strict where two readers
could see different replies: a reply has one code on all its lines (RFC 5321 4.2.1), three digits of
which the first is 2 to 5, and then a hyphen, a blank, or the line's end. A bare LF ends a line too;
nothing depends on how the stream is cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MalformedReplyError", "RemoteReplies", "RemoteReply", "extensions_of"]

#: Octets of a line. RFC 5321 4.5.3.1.5 has 512; servers with long texts exist.
LONGEST_LINE = 8192

#: Octets of a reply, all its lines together. EHLO's, which is the longest, has 1 or 2 KiB.
LONGEST_REPLY = 32 * 1024

#: Lines of a reply.
MOST_LINES = 256

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)

# Sendmail's way of before RFC 2554, which some servers still have for their oldest clients.
_OLD_AUTH = re.compile(r"AUTH=", re.IGNORECASE)


class MalformedReplyError(Exception):
    """What the server says is no reply: a malformed or endless one."""


@dataclass(frozen=True, slots=True)
class RemoteReply:
    """A reply.

    Attributes:
        code: 200 to 599.
        lines: the text of each line, other octets than UTF-8 kept as surrogates.
        early: some of it came before the server had all that was sent to it.
    """

    code: int
    lines: tuple[str, ...]
    early: bool = False

    @property
    def text(self) -> str:
        """The text, its lines separated by LF."""
        return "\n".join(self.lines)


class RemoteReplies:
    """What has come from a server and has not been taken yet."""

    __slots__ = ("_buffer", "_early")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._early = False

    def __bool__(self) -> bool:
        """Whether anything has come, be it a part of a reply."""
        return bool(self._buffer)

    @property
    def overfull(self) -> bool:
        """Whether more has come than a reply may have."""
        return len(self._buffer) > LONGEST_REPLY

    @property
    def beginning(self) -> str:
        """What has come, as far as a log wants it."""
        return self._buffer[:100].decode("ascii", "backslashreplace").strip()

    def add(self, data: bytes, early: bool) -> None:
        """Take octets.

        Args:
            data: what came.
            early: the server had not all that was sent to it by then.
        """
        self._buffer += data
        self._early = self._early or early

    def take(self) -> RemoteReply | None:
        """Return the first reply, None if it is not whole yet.

        Raises:
            MalformedReplyError: it is none.
        """
        buffer, start, code = self._buffer, 0, b""
        lines: list[str] = []
        while True:
            end = buffer.find(b"\n", start)
            length = (len(buffer) if end < 0 else end) - start
            if length > LONGEST_LINE or start + length > LONGEST_REPLY or len(lines) == MOST_LINES:
                raise MalformedReplyError("a reply that is too long")
            if end < 0:
                return None
            line = bytes(buffer[start:end]).removesuffix(b"\r")
            match = _LINE.fullmatch(line)
            if match is None:
                raise MalformedReplyError(f"no reply: {line[:100]!r}")
            if lines and match[1] != code:
                raise MalformedReplyError(
                    f"a reply with two codes, {code.decode()} and {match[1].decode()}"
                )
            code = match[1]
            lines.append((match[3] or b"").decode("utf-8", "surrogateescape"))
            start = end + 1
            if match[2] != b"-":
                break
        reply = RemoteReply(int(code), tuple(lines), self._early)
        del buffer[:start]
        # What is left came with the rest of this reply, or after it.
        self._early = self._early and bool(buffer)
        return reply


def extensions_of(reply: RemoteReply) -> dict[str, str]:
    """Return what a reply to EHLO offers: parameters by keyword in upper case (RFC 5321 4.1.1.1).

    Args:
        reply: of 250; its first line is a greeting.
    """
    found: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = _OLD_AUTH.sub("AUTH ", line.strip(), count=1).partition(" ")
        keyword = keyword.upper()
        if keyword == "AUTH":
            # Both spellings stand in one reply, and may name different mechanisms.
            parameters = f"{found.get('AUTH', '')} {parameters}".strip()
        found[keyword] = parameters
    return found
