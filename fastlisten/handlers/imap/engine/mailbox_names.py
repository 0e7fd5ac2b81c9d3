"""Names of mailboxes in modified UTF-7 (RFC 3501 5.1.3).

Rules of this file: octets to text and back. Each name has exactly one form; others are refused, so
that two forms cannot mean one mailbox.
"""

from __future__ import annotations

import binascii
import re

from fastlisten.handlers.imap.engine.refusal import Refused

__all__ = ["decode_mailbox", "encode_mailbox"]

_SHIFTED = re.compile(rb"&([A-Za-z0-9+,]*)-")
_OTHERS = re.compile("&|[^ -~]+")
_PLAIN = re.compile(rb"[ -%'-~]*+")
_INVALID = "Mailbox name is not valid mUTF-7"


def encode_mailbox(name: str) -> bytes:
    """Return a name as it is written, without quotes.

    Raises:
        UnicodeEncodeError: the name has half of a surrogate pair.
    """
    if name.isascii() and "&" not in name and name.isprintable():
        return name.encode("ascii")
    return _OTHERS.sub(_shift, name).encode("ascii")


def _shift(match: re.Match[str]) -> str:
    text = match[0]
    if text == "&":
        return "&-"
    encoded = binascii.b2a_base64(text.encode("utf-16-be"), newline=False).rstrip(b"=")
    return "&" + encoded.replace(b"/", b",").decode("ascii") + "-"


def decode_mailbox(octets: bytes) -> str:
    """Return the name that a client has written; INBOX in upper case.

    Raises:
        Refused: it is not valid modified UTF-7.
    """
    if _PLAIN.fullmatch(octets) is not None:
        name = octets.decode("ascii")
        return "INBOX" if len(name) == 5 and name.upper() == "INBOX" else name
    try:
        name = _SHIFTED.sub(_unshift, octets).decode("utf-8")
        if encode_mailbox(name) == octets:
            return name
    except ValueError:
        pass
    raise Refused(_INVALID, "NO", "CANNOT")


def _unshift(match: re.Match[bytes]) -> bytes:
    encoded = match[1].replace(b",", b"/")
    if not encoded:
        return b"&"
    padded = encoded + b"=" * (-len(encoded) % 4)
    return binascii.a2b_base64(padded).decode("utf-16-be").encode("utf-8")
