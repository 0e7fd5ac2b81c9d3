"""Address lists as IMAP's ENVELOPE wants them: RFC 5322 3.4, with the obsolete forms of 4.4.

Rules of this file: an unfolded value in, addresses out; nothing is decoded or checked. What no RFC
allows still gives addresses, because clients show them: text after a complete address is skipped
up to the next comma. Common forms are recognised by one regular expression; all others are read
word by word.
"""

from __future__ import annotations

import re

from fastlisten.mail.mime.lexical import QUOTED, comment_end, unquoted
from fastlisten.mail.mime.limits import MAX_ADDRESSES
from fastlisten.mail.mime.structure import Address

__all__ = ["MISSING_DOMAIN", "MISSING_MAILBOX", "parse_addresses"]

#: What stands for a domain that an address lacks: NIL would make it the beginning of a group.
MISSING_DOMAIN = b"MISSING_DOMAIN"

#: What stands for a local part that an address lacks.
MISSING_MAILBOX = b"MISSING_MAILBOX"

_GROUP_END = Address(None, None, None, None)

_ATEXT = rb"A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-"
_DOTS = rb"[" + _ATEXT + rb"]++(?:\.[" + _ATEXT + rb"]++)*+"
_SIMPLE = re.compile(
    rb'[ \t]*+(?:(?:"([^"\\]*+)"[ \t]*+|([' + _ATEXT + rb"][" + _ATEXT + rb". \t]*+))?"
    rb"<(" + _DOTS + rb")@(" + _DOTS + rb")>|"
    rb"(" + _DOTS + rb")@(" + _DOTS + rb"))[ \t]*+(?:,|\Z)"
)

#: One token: a quoted string, a domain literal, a special character, a word, or one octet of junk.
_TOKEN = re.compile(
    QUOTED + rb"|(\[(?:[^\[\]\\]|\\.)*+\]?)|([<>@,:;.(])|([^\x00-\x20\x7f()<>@,:;.\"\[\]\\]++)|.",
    re.DOTALL,
)
_SPACE = re.compile(rb"[\x00-\x20\x7f]++")

#: Kinds of tokens that are not special characters.
_WORD = b"word"
_JUNK = b"junk"
_END = b"end"


def parse_addresses(value: bytes) -> list[Address]:
    """Return the addresses of an unfolded field value, with the marks of its groups."""
    result: list[Address] = []
    reader = _Reader(value)
    group = False
    while reader.position < len(value) and len(result) < MAX_ADDRESSES:
        match = _SIMPLE.match(value, reader.position)
        if match is None:
            group = _element(reader, result, group)
            continue
        reader.position = match.end()
        quoted, phrase, mailbox, host, bare, bare_host = match.groups()
        if bare is not None:
            result.append(Address(None, None, bare, bare_host))
        else:
            name = quoted if phrase is None else b" ".join(phrase.split())
            result.append(Address(name or None, None, mailbox, host))
    if group:
        result.append(_GROUP_END)
    return result


class _Reader:
    """The tokens of a value.

    Attributes:
        position: of the next octet to read.
        text: of the last token, without quotes.
        spaced: whether space or a comment stood before it.
        comment: where the last comment's content begins and ends.
    """

    __slots__ = ("comment", "position", "spaced", "text", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.position = 0
        self.text = b""
        self.spaced = False
        self.comment = (0, 0)

    def last_comment(self) -> bytes:
        """Return the content of the last comment, or nothing."""
        begin, end = self.comment
        return b" ".join(unquoted(self.value[begin:end]).split())

    def next(self) -> bytes:
        """Read a token; return its kind: a special character, or `_WORD`, `_JUNK`, `_END`."""
        self.spaced = False
        while True:
            if space := _SPACE.match(self.value, self.position):
                self.spaced = True
                self.position = space.end()
            match = _TOKEN.match(self.value, self.position)
            if match is None:
                return _END
            quoted, literal, special, word = match.groups()
            if special != b"(":
                break
            begin = self.position + 1
            end, self.position = comment_end(self.value, self.position)
            self.comment = (begin, end)
            self.spaced = True
        self.position = match.end()
        if special is not None:
            self.text = special
            return bytes(special)
        if word is not None:
            self.text = word
        elif quoted is not None:
            self.text = unquoted(quoted)
        elif literal is not None:
            self.text = literal
        else:
            return _JUNK
        return _WORD

    def skip(self) -> bytes:
        """Skip what is left of an address; return what ends it: a comma, a semicolon or `_END`."""
        while (kind := self.next()) not in (b",", b";", _END):
            pass
        return kind


#: A word or dot, and whether space stood before it.
_Words = list[tuple[bytes, bool]]


def _element(reader: _Reader, result: list[Address], group: bool) -> bool:
    """Read one address, or the beginning or the end of a group.

    Returns:
        Whether a group is open after it.
    """
    words: _Words = []
    reader.comment = (0, 0)
    while True:
        kind = reader.next()
        if kind in (_WORD, b"."):
            words.append((reader.text, reader.spaced))
            continue
        if kind == b"<":
            result.append(_in_angles(reader, _phrase(words)))
            kind = reader.skip()
        elif kind == b"@":
            first = _local_part(words)
            host, kind = _domain(reader)
            if kind not in (b",", b";", _END):
                kind = reader.skip()
            name = _phrase(words[:first]) or reader.last_comment()
            mailbox = b"".join(text for text, _ in words[first:])
            result.append(_address(name, None, mailbox, host))
        elif kind == b":" and words and not group:
            result.append(Address(None, None, _phrase(words), None))
            return True
        elif kind in (b",", b";", _END) and words:
            result.append(_without_domain(words, reader.last_comment()))
        if kind in (b",", _END):
            return group
        if kind == b";":
            if group:
                result.append(_GROUP_END)
            return False


def _in_angles(reader: _Reader, name: bytes) -> Address:
    """Read the rest of ``<route:local@domain>``."""
    words: _Words = []
    route: list[bytes] = []
    host = b""
    while True:
        kind = reader.next()
        while kind == b"@":
            host, kind = _domain(reader)
            if not words and kind in (b",", b":"):
                route.append(b"@" + host)
                host = b""
        if kind in (_WORD, b"."):
            words.append((reader.text, reader.spaced))
        elif kind == b">":
            break
        elif kind in (b"<", b";", _END) or (kind == b"," and words):
            # The angle bracket is never closed; the end of the list must not get lost.
            if kind != _END:
                reader.position -= 1
            break
    mailbox = b"".join(text for text, _ in words[_local_part(words) :])
    return _address(name, b",".join(route) or None, mailbox, host)


def _domain(reader: _Reader) -> tuple[bytes, bytes]:
    """Read a domain; return it and the kind of the token after it."""
    host: list[bytes] = []
    dotted = True
    while True:
        kind = reader.next()
        if kind == b".":
            dotted = True
        elif kind == _WORD and dotted:
            dotted = False
        else:
            return b"".join(host), kind
        host.append(reader.text)


def _address(name: bytes, route: bytes | None, mailbox: bytes, host: bytes) -> Address:
    return Address(name or None, route, mailbox or MISSING_MAILBOX, host or MISSING_DOMAIN)


def _without_domain(words: _Words, comment: bytes) -> Address:
    """Return what stands for words that are not an address: a mailbox, or only a name."""
    if _local_part(words) == 0:
        return _address(comment, None, b"".join(text for text, _ in words), b"")
    return _address(_phrase(words), None, b"", b"")


def _local_part(words: _Words) -> int:
    """Return the index of the first of those words at the end that dots connect."""
    first = max(len(words) - 1, 0)
    while first > 0 and b"." in (words[first][0], words[first - 1][0]):
        first -= 1
    return first


def _phrase(words: _Words) -> bytes:
    """Return words as a display name: with one space where there was any."""
    pieces: list[bytes] = []
    for text, spaced in words:
        if pieces and text and (spaced or b"." not in (text, pieces[-1])):
            pieces.append(b" ")
        pieces.append(text)
    return b"".join(pieces)
