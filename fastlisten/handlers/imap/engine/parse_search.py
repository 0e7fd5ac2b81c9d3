"""Parses SEARCH: its return options, its charset and its keys.

Rules of this file: from a command's words to the tree of search_keys. Keys in keys are bounded, so
that no client decides how deep the server's stack is.
"""

from __future__ import annotations

from collections.abc import Callable

from fastlisten.handlers.imap.engine.charsets import decode_text, find_charset
from fastlisten.handlers.imap.engine.commands import Search
from fastlisten.handlers.imap.engine.dates import parse_date
from fastlisten.handlers.imap.engine.flags import parse_flag
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner
from fastlisten.handlers.imap.engine.search_keys import (
    And,
    Dated,
    FieldText,
    Flagged,
    Identified,
    ModSeq,
    Not,
    Numbered,
    Or,
    Recent,
    SearchKey,
    Sized,
    Text,
    Within,
)
from fastlisten.handlers.imap.engine.sequence_sets import parse_set

__all__ = ["parse_search"]

#: NOT, OR and parentheses within each other. No client's own search has ten.
MOST_NESTED = 64

_RETURNS = frozenset({"MIN", "MAX", "ALL", "COUNT", "SAVE"})
_LARGEST_MODSEQ = (1 << 63) - 1
_NUMBERS = b"0123456789*$"


class _Keys:
    """The keys of one command.

    Attributes:
        scanner: where they are read from.
        charset: of their texts.
        modseq: MODSEQ is among them.
    """

    __slots__ = ("charset", "depth", "modseq", "scanner")

    def __init__(self, scanner: Scanner, charset: str) -> None:
        self.scanner = scanner
        self.charset = charset
        self.depth = 0
        self.modseq = False

    def all_to_end(self) -> SearchKey:
        """Read the command's keys."""
        keys = [self.key()]
        while not self.scanner.at_end():
            self.scanner.space()
            keys.append(self.key())
        return keys[0] if len(keys) == 1 else And(tuple(keys))

    def key(self) -> SearchKey:
        """Read one key."""
        self.depth += 1
        if self.depth > MOST_NESTED:
            raise Refused("Search keys nested too deeply")
        key = self._key()
        self.depth -= 1
        return key

    def _key(self) -> SearchKey:
        scanner = self.scanner
        if scanner.opens():
            if scanner.skip(b")"):
                raise Refused("Empty list of search keys")
            keys = [self.key()]
            while not scanner.closes():
                keys.append(self.key())
            return keys[0] if len(keys) == 1 else And(tuple(keys))
        if scanner.data[scanner.position : scanner.position + 1] in _DIGITS:
            return Numbered(False, parse_set(scanner))
        name = scanner.word()
        plain = _PLAIN.get(name)
        if plain is not None:
            return plain
        parse = _PARSERS.get(name)
        if parse is None:
            raise Refused(f"Unknown argument {name.decode('ascii')}")
        scanner.space()
        return parse(self, name)

    def text(self) -> str:
        """Read a text."""
        return decode_text(self.scanner.astring(), self.charset)

    def field(self, name: bytes) -> SearchKey:
        """BCC, CC, FROM, SUBJECT, TO."""
        return FieldText(name.decode("ascii").capitalize(), self.text())

    def header(self, name: bytes) -> SearchKey:
        """HEADER."""
        field = self.scanner.astring()
        self.scanner.space()
        return FieldText(decode_text(field, "ascii"), self.text())

    def anywhere(self, name: bytes) -> SearchKey:
        """BODY, TEXT."""
        return Text(name == b"TEXT", self.text())

    def dated(self, name: bytes) -> SearchKey:
        """BEFORE and the like."""
        sent = name.startswith(b"SENT")
        how = name[4:] if sent else name
        day = parse_date(self.scanner)
        if how == b"ON":
            return Dated(sent, "ON", day)
        return Dated(sent, "BEFORE" if how == b"BEFORE" else "SINCE", day)

    def within(self, name: bytes) -> SearchKey:
        """OLDER, YOUNGER."""
        seconds = self.scanner.number()
        if not seconds:
            raise Refused("Invalid search interval parameter")
        return Within(name == b"YOUNGER", seconds)

    def sized(self, name: bytes) -> SearchKey:
        """LARGER, SMALLER."""
        return Sized(name == b"LARGER", self.scanner.number(_LARGEST_MODSEQ))

    def keyword(self, name: bytes) -> SearchKey:
        """KEYWORD, UNKEYWORD."""
        if self.scanner.next_is(b"\\"):
            raise Refused("Invalid keyword")
        flagged = Flagged(parse_flag(self.scanner))
        return flagged if name == b"KEYWORD" else Not(flagged)

    def uid(self, name: bytes) -> SearchKey:
        """UID."""
        return Numbered(True, parse_set(self.scanner))

    def negated(self, name: bytes) -> SearchKey:
        """NOT."""
        return Not(self.key())

    def either(self, name: bytes) -> SearchKey:
        """OR."""
        first = self.key()
        self.scanner.space()
        return Or(first, self.key())

    def mod_seq(self, name: bytes) -> SearchKey:
        """MODSEQ, perhaps of one flag (RFC 7162 3.1.5)."""
        scanner = self.scanner
        flag = ""
        if scanner.next_is(b'"'):
            entry = scanner.string()
            if not entry.lower().startswith(b"/flags/"):
                raise Refused("Invalid entry name")
            inner = Scanner(entry, len(b"/flags/"))
            flag = parse_flag(inner)
            inner.end()
            scanner.space()
            if scanner.word() not in (b"PRIV", b"SHARED", b"ALL"):
                raise Refused("Invalid entry type")
            scanner.space()
        self.modseq = True
        return ModSeq(scanner.number(_LARGEST_MODSEQ), flag)

    def identified(self, name: bytes) -> SearchKey:
        """EMAILID, THREADID."""
        return Identified(name == b"THREADID", self.scanner.atom().decode("ascii"))


_DIGITS = frozenset(bytes([octet]) for octet in _NUMBERS)

_SEEN = Flagged("\\Seen")

_PLAIN: dict[bytes, SearchKey] = {
    b"ALL": And(()),
    b"ANSWERED": Flagged("\\Answered"),
    b"DELETED": Flagged("\\Deleted"),
    b"DRAFT": Flagged("\\Draft"),
    b"FLAGGED": Flagged("\\Flagged"),
    b"NEW": And((Recent(), Not(_SEEN))),
    b"OLD": Not(Recent()),
    b"RECENT": Recent(),
    b"SEEN": _SEEN,
    b"UNANSWERED": Not(Flagged("\\Answered")),
    b"UNDELETED": Not(Flagged("\\Deleted")),
    b"UNDRAFT": Not(Flagged("\\Draft")),
    b"UNFLAGGED": Not(Flagged("\\Flagged")),
    b"UNSEEN": Not(_SEEN),
}

_PARSERS: dict[bytes, Callable[[_Keys, bytes], SearchKey]] = {
    **dict.fromkeys((b"BCC", b"CC", b"FROM", b"SUBJECT", b"TO"), _Keys.field),
    **dict.fromkeys((b"BODY", b"TEXT"), _Keys.anywhere),
    **dict.fromkeys((b"BEFORE", b"ON", b"SINCE"), _Keys.dated),
    **dict.fromkeys((b"SENTBEFORE", b"SENTON", b"SENTSINCE"), _Keys.dated),
    **dict.fromkeys((b"OLDER", b"YOUNGER"), _Keys.within),
    **dict.fromkeys((b"LARGER", b"SMALLER"), _Keys.sized),
    **dict.fromkeys((b"KEYWORD", b"UNKEYWORD"), _Keys.keyword),
    **dict.fromkeys((b"EMAILID", b"THREADID"), _Keys.identified),
    b"HEADER": _Keys.header,
    b"MODSEQ": _Keys.mod_seq,
    b"NOT": _Keys.negated,
    b"OR": _Keys.either,
    b"UID": _Keys.uid,
}


def parse_search(scanner: Scanner, uid: bool) -> Search:
    """Read SEARCH from its first argument on.

    Raises:
        Refused: something is wrong, or the charset is not known.
    """
    returns = _returns(scanner)
    charset = "utf-8"
    if scanner.data[scanner.position : scanner.position + 8].upper() == b"CHARSET ":
        scanner.word()
        scanner.space()
        try:
            charset = find_charset(scanner.astring())
        except Refused as error:
            error.unsaved = error.status == "NO" and returns is not None and "SAVE" in returns
            raise
        scanner.space()
    keys = _Keys(scanner, charset)
    key = keys.all_to_end()
    return Search(uid, key, returns, keys.modseq)


def _returns(scanner: Scanner) -> frozenset[str] | None:
    if scanner.data[scanner.position : scanner.position + 7].upper() != b"RETURN ":
        return None
    scanner.word()
    scanner.space()
    found: set[str] = set()
    if scanner.open_list():
        while True:
            option = scanner.word().decode("ascii")
            if option not in _RETURNS:
                raise Refused(f"Unknown return option {option}")
            found.add(option)
            if scanner.closes():
                break
    scanner.space()
    return frozenset(found or {"ALL"})
