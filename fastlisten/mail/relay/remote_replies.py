"""Replies of a remote SMTP server: octets in, replies out.

Rules of this file: no I/O. It is strict where two parsers could see different replies: all lines of
a reply have the same code (RFC 5321 4.2.1), three digits of which the first is 2 to 5, followed by
a hyphen, a space, or the end of the line. A bare LF ends a line too. The result does not depend on
how the input is split.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "LONGEST_REPLY",
    "MalformedReplyError",
    "RemoteReplies",
    "RemoteReply",
    "extensions_of",
    "is_yes",
]

#: Octets of a line. RFC 5321 4.5.3.1.5 has 512; servers with long texts exist.
LONGEST_LINE = 8192

#: Octets of a reply, all its lines together. The longest is that to EHLO, with 1 or 2 KiB.
LONGEST_REPLY = 32 * 1024

#: Lines of a reply.
MOST_LINES = 256

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)

# Sendmail's spelling from before RFC 2554, which some servers still offer to old clients.
_OLD_AUTH = re.compile(r"AUTH=", re.IGNORECASE)

#: Codes that begin with a 2 and do not accept a command or a message: replies to HELP and STAT, the
#: greeting, and replies to QUIT and AUTH.
_OF_OTHERS = frozenset((211, 214, 220, 221, 235))


class MalformedReplyError(Exception):
    """The server's input is not a valid reply, or too long for one."""


@dataclass(frozen=True, slots=True)
class RemoteReply:
    """A reply.

    Attributes:
        code: 200 to 599.
        lines: the text of each line; octets that are not UTF-8 are kept as surrogates.
        early: some of it came before the server had everything that was sent to it.
    """

    code: int
    lines: tuple[str, ...]
    early: bool = False

    @property
    def text(self) -> str:
        """The text, its lines separated by LF."""
        return "\n".join(self.lines)


class RemoteReplies:
    """Input from a server that has not been returned as replies yet."""

    __slots__ = ("_buffer", "_early")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._early = False

    def __bool__(self) -> bool:
        """Whether there is any input, even a part of a reply."""
        return bool(self._buffer)

    @property
    def overfull(self) -> bool:
        """Whether there is more input than a reply may have."""
        return len(self._buffer) > LONGEST_REPLY

    @property
    def beginning(self) -> str:
        """The beginning of the input, for a log."""
        return self._buffer[:100].decode("ascii", "backslashreplace").strip()

    def add(self, data: bytes, early: bool) -> None:
        """Add input.

        Args:
            data: the input.
            early: the server did not yet have everything that was sent to it.
        """
        self._buffer += data
        self._early = self._early or early

    def take(self) -> RemoteReply | None:
        """Return the first reply, or None if it is incomplete.

        Raises:
            MalformedReplyError: it is malformed.
        """
        buffer, start, code = self._buffer, 0, b""
        lines: list[str] = []
        while True:
            end = buffer.find(b"\n", start)
            length = (len(buffer) if end < 0 else end) - start
            if length > LONGEST_LINE or start + length > LONGEST_REPLY or len(lines) == MOST_LINES:
                raise MalformedReplyError("the reply is too long")
            if end < 0:
                return None
            line = bytes(buffer[start:end]).removesuffix(b"\r")
            match = _LINE.fullmatch(line)
            if match is None:
                raise MalformedReplyError(f"malformed reply: {line[:100]!r}")
            if lines and match[1] != code:
                raise MalformedReplyError(
                    f"malformed reply: it has two codes, {code.decode()} and {match[1].decode()}"
                )
            code = match[1]
            lines.append((match[3] or b"").decode("utf-8", "surrogateescape"))
            start = end + 1
            if match[2] != b"-":
                break
        reply = RemoteReply(int(code), tuple(lines), self._early)
        del buffer[:start]
        # The rest of the input came with the end of this reply, or after it.
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
            # A reply may have both spellings, with different mechanisms.
            parameters = f"{found.get('AUTH', '')} {parameters}".strip()
        found[keyword] = parameters
    return found


def is_yes(code: int) -> bool:
    """Whether a reply accepts a command or a message."""
    return 200 <= code <= 299 and code not in _OF_OTHERS
