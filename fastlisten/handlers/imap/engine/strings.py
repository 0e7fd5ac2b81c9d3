"""Writes strings, names and flags in the way that every client can read (RFC 3501 4.3, 9).

Rules of this file: whatever a value holds, it is one token; it cannot end a line, a string or a
list, nor be taken for NIL. A short printable string is quoted, any other is a literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastlisten.handlers.imap.engine.mailbox_names import encode_mailbox

__all__ = [
    "write_astring",
    "write_flags",
    "write_literal",
    "write_mailbox",
    "write_nstring",
    "write_string",
]

#: Atoms that no client takes for anything else: not NIL, no brackets, no wildcards.
_SAFE_ATOM = re.compile(rb"(?!NIL\Z)[A-Za-z0-9$&'+,\-./:;<=>?@^_`|~#!]{1,200}+\Z", re.IGNORECASE)

#: What is quoted as it is, and what is quoted with escapes. Longer ones are literals: clients read
#: lines into buffers.
_QUOTED_AS_IT_IS = re.compile(rb"[ !#-\[\]-~]{0,1000}+\Z")
_QUOTED = re.compile(rb"[ -~]{0,1000}+\Z")
_ESCAPED = re.compile(rb'(["\\])')

_FLAG = re.compile(r"\\?[A-Za-z0-9!#$&'+,\-./:;<=>?@\[^_`|}~]+", re.ASCII)


def write_literal(octets: bytes) -> bytes:
    """Return a literal.

    A literal must hold no NUL (RFC 3501 9: CHAR8), so each becomes the octet 0x80, as in Dovecot.
    """
    if b"\0" in octets:
        octets = octets.replace(b"\0", b"\x80")
    return b"{%d}\r\n%b" % (len(octets), octets)


def write_string(octets: bytes) -> bytes:
    """Return a quoted string or a literal."""
    if _QUOTED_AS_IT_IS.match(octets) is not None:
        return b'"%b"' % octets
    if _QUOTED.match(octets) is not None:
        return b'"%b"' % _ESCAPED.sub(rb"\\\1", octets)
    return write_literal(octets)


def write_nstring(octets: bytes | None) -> bytes:
    """Return a string, or NIL for None."""
    return b"NIL" if octets is None else write_string(octets)


def write_astring(octets: bytes) -> bytes:
    """Return an atom if it is one for every client, else a string."""
    return octets if _SAFE_ATOM.match(octets) is not None else write_string(octets)


def write_mailbox(name: str) -> bytes:
    """Return the name of a mailbox."""
    return write_astring(encode_mailbox(name))


def write_flags(flags: Iterable[str]) -> bytes:
    """Return flags with spaces between them, without parentheses.

    Keywords that cannot be written, which other programs may have stored, are left out.
    """
    return " ".join([flag for flag in flags if _FLAG.fullmatch(flag)]).encode("ascii")
