"""What header fields are made of: comments, quoted strings, words (RFC 5322 3.2, RFC 2045 5.1).

Rules of this file: octets in, octets out, of unfolded values. Each function looks at an octet a
fixed number of times: regular expressions are possessive, and a comment or quoted string that
never ends goes to the end of the value, so that nobody looks for its end twice.
"""

from __future__ import annotations

import re

__all__ = ["QUOTED", "comment_end", "unquoted", "without_comments"]

#: A quoted string, or what begins as one and never ends; its content is the only group.
QUOTED = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"|\\?\Z)'

_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_IN_COMMENT = re.compile(rb"\\.|[()]", re.DOTALL)
_NOTABLE = re.compile(rb"\((?P<comment>)|" + QUOTED + rb"|\\.", re.DOTALL)


def unquoted(content: bytes) -> bytes:
    """Return the content of a quoted string or comment without its backslashes."""
    return _PAIR.sub(rb"\1", content) if b"\\" in content else content


def comment_end(value: bytes, start: int) -> tuple[int, int]:
    """Return where the comment that begins at `start` ends, without and with its parenthesis.

    Comments may be nested.
    """
    depth = 0
    for match in _IN_COMMENT.finditer(value, start):
        found = value[match.start()]
        if found == 0x28:  # (
            depth += 1
        elif found == 0x29:  # )
            depth -= 1
            if depth == 0:
                return match.start(), match.end()
    return len(value), len(value)


def without_comments(value: bytes) -> bytes:
    """Return a value with a space for each of its comments; quoted strings stay as they are."""
    if b"(" not in value:
        return value
    pieces = []
    done = position = 0
    while match := _NOTABLE.search(value, position):
        position = match.end()
        if match["comment"] is not None:
            pieces.append(value[done : match.start()])
            done = position = comment_end(value, match.start())[1]
    pieces.append(value[done:])
    return b" ".join(pieces)
