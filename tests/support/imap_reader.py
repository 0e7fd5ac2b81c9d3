"""Takes IMAP responses apart, by the grammar of RFC 3501 9 and nothing else.

Rules of this file: strict, so that a response that some client could not read is an error here.
"""

from __future__ import annotations

import re

__all__ = ["NIL", "Atom", "Value", "read_response", "read_responses"]


class Atom(bytes):
    """A word that is no string: a name, a number, a flag."""


Value = bytes | list["Value"] | None

#: A word as FETCH, LIST and the others have them: also flags, and sections with what is in them.
_ATOM = re.compile(
    rb"[A-Za-z0-9.]+\[[^\]\r\n]*\](?:<[0-9]+>)?|\\\*|\\?[!#$&'+,\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~*]+"
)
_QUOTED = re.compile(rb'"((?:[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]|\\["\\])*)"')
_LITERAL = re.compile(rb"\{(0|[1-9][0-9]*)\}\r\n")

NIL = None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def value(self) -> Value:
        data, position = self.data, self.position
        if data.startswith(b"(", position):
            return self.elements()
        for pattern in (_QUOTED, _ATOM):
            match = pattern.match(data, position)
            if match is not None:
                self.position = match.end()
                if pattern is _QUOTED:
                    return re.sub(rb'\\(["\\])', rb"\1", match[1])
                return None if match[0].upper() == b"NIL" else Atom(match[0])
        match = _LITERAL.match(data, position)
        assert match is not None, data[position : position + 50]
        end = match.end() + int(match[1])
        assert end <= len(data)
        self.position = end
        octets = data[match.end() : end]
        assert b"\0" not in octets
        return octets

    def elements(self) -> list[Value]:
        """Return the elements of a list; lists may follow each other without a space."""
        self.position += 1
        found: list[Value] = []
        while not self.data.startswith(b")", self.position):
            if found and not (isinstance(found[-1], list) and self.next_is(b"(")):
                assert self.next_is(b" "), self.data[self.position : self.position + 50]
                self.position += 1
            found.append(self.value())
        self.position += 1
        return found

    def next_is(self, octet: bytes) -> bool:
        return self.data.startswith(octet, self.position)


def read_responses(data: bytes) -> list[list[Value]]:
    """Return the words of untagged responses that follow each other, without the asterisks."""
    reader = _Reader(data)
    found = []
    while reader.position < len(data):
        assert data.startswith(b"* ", reader.position)
        reader.position += 1
        words: list[Value] = []
        while not data.startswith(b"\r\n", reader.position):
            assert reader.next_is(b" "), data[reader.position :]
            reader.position += 1
            words.append(reader.value())
        reader.position += 2
        found.append(words)
    return found


def read_response(data: bytes) -> list[Value]:
    """Return the words of one untagged response."""
    (words,) = read_responses(data)
    return words
