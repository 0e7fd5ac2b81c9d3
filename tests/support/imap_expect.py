"""Dialogues with the imap server: a command, and the responses that must come, in their order.

Rules of this file: a response is compared whole. In what is expected, ``#`` stands for a number
and ``...`` for any octets.
"""

from __future__ import annotations

import itertools
import re

from support.imap_server import Lines

__all__ = ["expect", "fill", "fits", "new_mailbox"]

_numbers = itertools.count(1)


def fits(response: bytes, pattern: str) -> bool:
    """Return whether a response is what is expected."""
    text = re.escape(pattern.encode("latin-1"))
    text = text.replace(rb"\#", rb"[0-9]+").replace(rb"\.\.\.", rb".*")
    return re.fullmatch(text, response, re.DOTALL) is not None


def expect(client: Lines, command: str | bytes, *patterns: str) -> list[bytes]:
    """Send a command; return its responses, which must be those that are expected.

    Args:
        client: sends it.
        command: without tag and CRLF.
        patterns: the responses, the tagged one last and without its tag. ``"*..."`` stands for any
            number of untagged responses.
    """
    responses = client.say(command)
    left = list(responses)
    for index, pattern in enumerate(patterns):
        if pattern == "*...":
            while len(left) > len(patterns) - index - 1:
                left.pop(0)
            continue
        assert left, (command, responses, pattern)
        assert fits(left[0], pattern), (command, responses, pattern)
        left.pop(0)
    assert not left, (command, responses)
    return responses


def new_mailbox(client: Lines, *messages: bytes) -> str:
    """Make a mailbox with messages; return its name, which no other has."""
    name = f"box{next(_numbers)}"
    client.ok(f"CREATE {name}")
    fill(client, name, *messages)
    return name


def fill(client: Lines, name: str, *messages: bytes) -> None:
    """Put messages into a mailbox, dated 1 January 2026."""
    for one in messages:
        date = b'"01-Jan-2026 12:00:00 +0000"'
        client.ok(b"APPEND %b %b {%d+}\r\n%b" % (name.encode(), date, len(one), one))
