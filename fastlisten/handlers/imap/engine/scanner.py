"""Takes one complete command apart: atoms, strings, numbers, parentheses (RFC 3501 9).

Rules of this file: tokens only, each by one regular expression that cannot backtrack; what they
mean is decided elsewhere. A command is complete here, its literals between its lines as they came.
Literals are skipped by their sizes, so that nothing in them is taken for syntax.

More than one space is taken for one, and spaces are allowed at the end of a command and inside
parentheses: clients send them, and Dovecot takes them.
"""

from __future__ import annotations

import re

from fastlisten.handlers.imap.engine.refusal import Refused

__all__ = ["ASTRING_ATOM", "Incomplete", "Literal", "Scanner", "announces", "literal_at_end"]

#: ATOM-CHAR: printable ASCII but ( ) { SP % * " \ ]
_ATOM_CHARS = r"!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~"

_ATOM = re.compile(rf"[{_ATOM_CHARS}]++".encode())
ASTRING_ATOM = re.compile(rf"[{_ATOM_CHARS}\]]++".encode())
_LIST_ATOM = re.compile(rf"[{_ATOM_CHARS}\]%*]++".encode())
_FLAG = re.compile(rf"\\?[{_ATOM_CHARS}]++".encode())
#: Octets above 127 are allowed: passwords and search texts have them, and RFC 9051 allows UTF-8.
_QUOTED = re.compile(rb'"((?:[^"\\\r\n\0]++|\\["\\])*+)"')
_ESCAPE = re.compile(rb'\\(["\\])')
_LITERAL = re.compile(rb"(~?)\{([0-9]{1,19})\+?\}\r\n")
_NUMBER = re.compile(rb"[0-9]{1,20}+")
_LITERAL_AT_END = re.compile(rb"(~?)\{([0-9]++)(\+?)\}\Z")

_QUOTE = 34
_BRACE = 123
_TILDE = 126


class Incomplete(Refused):
    """A literal is announced whose octets are not there yet."""


class Literal:
    """A literal that a line announces at its end.

    Attributes:
        size: octets; 2^63 stands for everything that is larger.
        waits: the client sends it only after a go-ahead: there is no + (RFC 7888).
        binary: it is a literal8 (RFC 3516).
    """

    __slots__ = ("binary", "size", "waits")

    def __init__(self, size: int, waits: bool, binary: bool) -> None:
        self.size = size
        self.waits = waits
        self.binary = binary


def literal_at_end(line: bytes) -> Literal | None:
    """Return the literal that a line, without its CRLF, announces; None if it announces none."""
    if not line.endswith(b"}"):
        return None
    match = _LITERAL_AT_END.search(line, max(line.rfind(b"{") - 1, 0))
    if match is None:
        return None
    digits = match[2].lstrip(b"0") or b"0"
    size = int(digits) if len(digits) < 20 else 1 << 63
    return Literal(min(size, 1 << 63), not match[3], bool(match[1]))


def announces(data: bytes, position: int) -> bool:
    """Return whether a literal is announced here, and nothing follows."""
    match = _LITERAL.match(data, position)
    return match is not None and match.end() == len(data)


class Scanner:
    """A position in a command.

    Attributes:
        data: the command without its last CRLF.
        position: of the next token.
    """

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    # --- what separates tokens ----------------------------------------------------------------

    def at_end(self) -> bool:
        """Return whether nothing follows but spaces."""
        data, position = self.data, self.position
        while data.startswith(b" ", position):
            position += 1
        return position == len(data)

    def end(self) -> None:
        """Expect the end of the command."""
        if not self.at_end():
            raise Refused("Too many arguments")

    def space(self) -> None:
        """Expect a space."""
        position = self.position
        if not self.data.startswith(b" ", position):
            missing = position >= len(self.data)
            raise Refused("Missing arguments" if missing else "Invalid arguments")
        position += 1
        while self.data.startswith(b" ", position):
            position += 1
        self.position = position

    def skip(self, octet: bytes) -> bool:
        """Skip an octet if it is the next one; return whether it was."""
        if self.data.startswith(octet, self.position):
            self.position += 1
            return True
        return False

    def next_is(self, octet: bytes) -> bool:
        """Return whether an octet is the next one."""
        return self.data.startswith(octet, self.position)

    def opens(self) -> bool:
        """Skip an opening parenthesis and spaces after it; return whether there was one."""
        data, position = self.data, self.position
        if not data.startswith(b"(", position):
            return False
        position += 1
        while data.startswith(b" ", position):
            position += 1
        self.position = position
        return True

    def closes(self) -> bool:
        """Skip a closing parenthesis, or else the space before the list's next element.

        Returns:
            Whether the list has ended.

        Raises:
            Refused: there is neither.
        """
        data, start = self.data, self.position
        position = start
        while data.startswith(b" ", position):
            position += 1
        if data.startswith(b")", position):
            self.position = position + 1
            return True
        if position == start:
            raise Refused("Missing ')'" if start >= len(data) else "Invalid arguments")
        self.position = position
        return False

    def open_list(self) -> bool:
        """Expect an opening parenthesis; return whether the list has elements."""
        if not self.opens():
            raise Refused("Expected '('")
        return not self.skip(b")")

    # --- tokens -------------------------------------------------------------------------------

    def atom(self) -> bytes:
        """Return an atom."""
        return self._match(_ATOM, "Expected an atom")

    def word(self) -> bytes:
        """Return an atom in upper case: names of items, options and keys."""
        return self._match(_ATOM, "Expected an atom").upper()

    def flag(self) -> bytes:
        r"""Return a flag: an atom, perhaps with \ before it."""
        return self._match(_FLAG, "Invalid flag")

    def number(self, most: int = 0xFFFFFFFF) -> int:
        """Return a number that is at most `most`."""
        match = _NUMBER.match(self.data, self.position)
        if match is None:
            raise Refused("Expected a number")
        number = int(match[0])
        if number > most:
            raise Refused("Number too large")
        self.position = match.end()
        return number

    def _match(self, pattern: re.Pattern[bytes], otherwise: str) -> bytes:
        match = pattern.match(self.data, self.position)
        if match is None:
            missing = self.position >= len(self.data)
            raise Refused("Missing arguments" if missing else otherwise)
        self.position = match.end()
        return match[0]

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Return what a pattern finds here, after going past it; None if it finds nothing."""
        match = pattern.match(self.data, self.position)
        if match is not None:
            self.position = match.end()
        return match

    # --- strings ------------------------------------------------------------------------------

    def string(self) -> bytes:
        """Return a quoted string or a literal."""
        data, position = self.data, self.position
        if position >= len(data):
            raise Refused("Missing arguments")
        first = data[position]
        if first == _QUOTE:
            match = _QUOTED.match(data, position)
            if match is None:
                raise Refused("Invalid quoted string")
            self.position = match.end()
            text = match[1]
            return _ESCAPE.sub(rb"\1", text) if b"\\" in text else text
        if first in (_BRACE, _TILDE):
            return self._literal()
        raise Refused("Expected a string")

    def astring(self) -> bytes:
        """Return an atom, which may hold ], or a string."""
        match = ASTRING_ATOM.match(self.data, self.position)
        if match is not None:
            self.position = match.end()
            return match[0]
        return self.string()

    def list_mailbox(self) -> bytes:
        """Return a pattern of LIST: an atom, which may hold wildcards, or a string."""
        match = _LIST_ATOM.match(self.data, self.position)
        if match is not None:
            self.position = match.end()
            return match[0]
        return self.string()

    def nstring(self) -> bytes | None:
        """Return a string, or None for NIL."""
        if self.data[self.position : self.position + 3].upper() == b"NIL":
            self.position += 3
            return None
        return self.string()

    def _literal(self) -> bytes:
        data = self.data
        match = _LITERAL.match(data, self.position)
        if match is None:
            raise Refused("Invalid literal")
        start = match.end()
        end = start + int(match[2])
        if end > len(data):
            raise Incomplete("Invalid literal")
        if match[1]:
            raise Refused("BINARY literals are not supported")
        literal = data[start:end]
        if b"\0" in literal:
            raise Refused("NUL in literal")
        self.position = end
        return literal
