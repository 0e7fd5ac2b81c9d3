"""Content-Transfer-Encoding: the octets that a body stands for (RFC 2045 6).

Rules of this file: pieces of a body in, decoded pieces out. An encoding that is not known leaves
octets as they are. What is not of the alphabet of base64 is skipped, and padding ends it, as
Python's email has it.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator

__all__ = ["decode_base64", "decode_pieces"]

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OTHERS = bytes(sorted({*range(256)} - {*_ALPHABET} - {*b"="}))

#: The longest piece of a line of quoted-printable that waits for its end.
_LONGEST = 64 * 1024


def decode_pieces(pieces: Iterable[bytes], encoding: bytes) -> Iterator[bytes]:
    """Decode a body.

    Args:
        pieces: the body, cut anywhere.
        encoding: the name of the encoding, in lower case.
    """
    if encoding == b"base64":
        return _base64(pieces)
    if encoding == b"quoted-printable":
        return _quoted_printable(pieces)
    return iter(pieces)


def decode_base64(octets: bytes) -> bytes:
    """Decode base64 that may lack padding."""
    return b"".join(_base64([octets]))


def _base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece.translate(None, _OTHERS)
        padding = held.find(b"=")
        if padding >= 0:
            held = held[:padding]
            break
        whole = len(held) & ~3
        yield binascii.a2b_base64(held[:whole])
        held = held[whole:]
    # One character alone holds no octet.
    whole = len(held) & ~3
    rest = len(held) - whole
    yield binascii.a2b_base64(held + b"=" * (4 - rest) if rest > 1 else held[:whole])


def _quoted_printable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece
        cut = held.rfind(b"\n") + 1
        if not cut and len(held) > _LONGEST:
            cut = _cut(held)
        if cut:
            yield binascii.a2b_qp(held[:cut])
            held = held[cut:]
    yield binascii.a2b_qp(held)


def _cut(line: bytes) -> int:
    """Return where to cut a long line so that an encoded octet and a soft line break stay whole."""
    end = len(line) - 3
    for cut in range(end, max(end - 100, 2), -1):
        if b"=" not in line[cut - 2 : cut]:
            return cut
    return 0 if len(line) < 200 else end
