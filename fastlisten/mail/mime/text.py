"""The text of a message, and whether it contains another: what SEARCH and JMAP's filters need.

    key = fold("Grüße")
    field_contains(value, key)                   SUBJECT, FROM, HEADER and so on, of a field's value
    body_contains(read, root, key)               BODY
    text_contains(read, root, key)               TEXT

Rules of this file: transfer encodings, charsets and encoded words are decoded, and text is compared
by i;unicode-casemap (RFC 5051, which RFC 5255 4.6 recommends). Bodies are read and decoded in
pieces, so that memory is bounded. Text is what parts of the types text and message hold; other
parts are not searched. BODY is not found in header fields; TEXT is, also in those of parts
(RFC 9051 6.4.4).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from fastlisten.mail.mime.charsets import decoder
from fastlisten.mail.mime.encoded_words import decoded
from fastlisten.mail.mime.header_fields import fields, unfold
from fastlisten.mail.mime.limits import MAX_HEADER
from fastlisten.mail.mime.sections import PIECE, Read
from fastlisten.mail.mime.structure import Part
from fastlisten.mail.mime.transfer_encoding import decode_pieces

__all__ = ["body_contains", "field_contains", "fold", "part_text", "text_contains"]

#: Characters whose folded form is kept; all of Unicode would take 100 MB.
_KEPT = 20_000


class _Folded(dict[int, str]):
    """For `str.translate`: what each character becomes, found out when it is needed."""

    def __missing__(self, code: int) -> str:
        found = "".join(map(_title, unicodedata.normalize("NFKD", _title(chr(code)))))
        if len(self) < _KEPT:
            self[code] = found
        return found


def _title(character: str) -> str:
    """Return the titlecase of a character where that is one character, as in UnicodeData.txt."""
    title = character.title()
    return title if len(title) == 1 else character


_FOLDED = _Folded()


def fold(text: str) -> str:
    """Return text as it is compared: in titlecase, and characters with accents taken apart."""
    return text.upper() if text.isascii() else text.translate(_FOLDED)


def field_contains(value: bytes, key: str) -> bool:
    """Return whether the value of a field, still folded, contains a key that `fold` has made."""
    return key in fold(decoded(unfold(value)))


def body_contains(read: Read, root: Part, key: str) -> bool:
    """Return whether the body of a message contains a key that `fold` has made.

    Args:
        read: reads the octets that were parsed.
        root: the message.
        key: what is searched for; an empty one is contained in every message.
    """
    return not key or any(
        _contains(part_text(read, part), key) for part in _parts(root) if _is_text(part)
    )


def text_contains(read: Read, root: Part, key: str) -> bool:
    """Return the same of the header and the body of a message, and of the headers in it."""
    return (
        not key
        or any(_header_contains(read, part, key) for part in _parts(root))
        or body_contains(read, root, key)
    )


def _parts(root: Part) -> Iterator[Part]:
    """Yield a message and all parts in it, in their order."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        yield part
        waiting += reversed(part.children)


def _is_text(part: Part) -> bool:
    return part.type in (b"text", b"message") and not part.children


def _header_contains(read: Read, part: Part, key: str) -> bool:
    end = min(part.body, part.header + MAX_HEADER)
    header = b"".join(_pieces(read, part.header, end))
    return any(
        key in fold(decoded(unfold(header[field.start : field.end])))
        for field in fields(header, 0, len(header))
    )


def part_text(read: Read, part: Part) -> Iterator[str]:
    """Yield the text of a part, in pieces.

    Args:
        read: reads the octets that were parsed.
        part: a part of the type text.
    """
    charset = decoder(part.parameter(b"charset"))
    for piece in decode_pieces(_pieces(read, part.body, part.end), part.encoding):
        yield charset.decode(piece)
    yield charset.decode(b"", final=True)


def _contains(pieces: Iterator[str], key: str) -> bool:
    """Return whether pieces of text together contain a key."""
    before = ""
    for piece in pieces:
        text = before + fold(piece)
        if key in text:
            return True
        before = text[-(len(key) - 1) :] if len(key) > 1 else ""
    return False


def _pieces(read: Read, start: int, end: int) -> Iterator[bytes]:
    """Yield the octets of a range; fewer if there are no more."""
    while start < end and (piece := read(start, min(PIECE, end - start))):
        yield piece
        start += len(piece)
