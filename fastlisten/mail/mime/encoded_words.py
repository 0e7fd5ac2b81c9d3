"""Encoded words in header fields (RFC 2047, RFC 2231 5), as text.

Rules of this file: an unfolded value in, text out. Encoded words are decoded wherever they stand,
also within quoted strings and words, because programs write them there. Space between two of them
is not part of the text (RFC 2047 6.2). Octets of neighbours in the same charset are joined before
they are decoded, because programs cut characters in two.
"""

from __future__ import annotations

import binascii
import re

from fastlisten.mail.mime.charsets import decode, find_charset
from fastlisten.mail.mime.transfer_encoding import decode_base64

__all__ = ["decoded"]

_ENCODED = re.compile(rb"=\?([^?*\s]{1,100})(?:\*[^?\s]{0,100})?\?([BbQq])\?([^?]*+)\?=")
_SPACE = re.compile(rb"[ \t]*+\Z")


def decoded(value: bytes) -> str:
    """Return the text of an unfolded value; an encoded word in no known charset stays as it is."""
    if b"=?" not in value:
        return decode(value)
    text: list[str] = []
    octets: list[bytes] = []  # of encoded words in the charset `charset`
    charset = b""
    position = 0
    for match in _ENCODED.finditer(value):
        name = match[1].lower()
        if find_charset(name) is None:
            continue
        between = value[position : match.start()]
        if octets and _SPACE.match(between):
            between = b""
        if octets and (between or name != charset):
            text.append(_text(octets, charset))
            octets = []
        text.append(decode(between))
        charset = name
        octets.append(_word(match[2], match[3]))
        position = match.end()
    if octets:
        text.append(_text(octets, charset))
    text.append(decode(value[position:]))
    return "".join(text)


def _text(octets: list[bytes], charset: bytes) -> str:
    """Return the text of neighbours; each may begin with a mark of the order of octets."""
    return decode(b"".join(octets), charset).replace("\ufeff", "")


def _word(encoding: bytes, content: bytes) -> bytes:
    """Return the octets of an encoded word."""
    if encoding in b"Bb":
        return decode_base64(content)
    return binascii.a2b_qp(content, header=True)
