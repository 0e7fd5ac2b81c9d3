"""The charsets of SEARCH (RFC 3501 6.4.4): every one that Python can decode text from."""

from __future__ import annotations

from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.mail.mime.charsets import codec_of

__all__ = ["decode_text", "find_charset"]


def find_charset(name: bytes) -> str:
    """Return what Python calls a charset.

    Raises:
        Refused: it is not known.
    """
    found = codec_of(name)
    if found is None:
        raise Refused("Unknown charset", "NO", "BADCHARSET (US-ASCII UTF-8)")
    return found


def decode_text(octets: bytes, charset: str) -> str:
    """Return the text of a search key.

    Raises:
        Refused: the octets are no text in that charset.
    """
    try:
        return octets.decode(charset)
    except ValueError:
        raise Refused("Invalid search text for the charset") from None
