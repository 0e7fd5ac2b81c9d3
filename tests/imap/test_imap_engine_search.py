"""The keys and charsets of SEARCH in RFC 3501 6.4.4.

Rules of this file: keys of extensions are in test_imap_engine_extensions.py.
"""

from __future__ import annotations

import datetime as dt

import pytest
from support.imap_driver import command, refused

from fastlisten.handlers.imap.engine.commands import Search
from fastlisten.handlers.imap.engine.search_keys import (
    And,
    Dated,
    FieldText,
    Flagged,
    Not,
    Numbered,
    Or,
    Recent,
    SearchKey,
    Sized,
    Text,
)
from fastlisten.handlers.imap.engine.sequence_sets import STAR, SequenceSet

SEEN = Flagged("\\Seen")


def numbers(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


ONE = numbers((1, 1))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"ALL", And(())),
        (b"ANSWERED", Flagged("\\Answered")),
        (b"BCC x", FieldText("Bcc", "x")),
        (b'BEFORE "1-Feb-1994"', Dated(False, "BEFORE", dt.date(1994, 2, 1))),
        (b'BODY "two words"', Text(False, "two words")),
        (b"CC {3+}\r\na\r\n", FieldText("Cc", "a\r\n")),
        (b"DELETED", Flagged("\\Deleted")),
        (b"DRAFT", Flagged("\\Draft")),
        (b"FLAGGED", Flagged("\\Flagged")),
        (b'from "Smith"', FieldText("From", "Smith")),
        (b'HEADER X-Spam ""', FieldText("X-Spam", "")),
        (b"KEYWORD $Junk", Flagged("$Junk")),
        (b"LARGER 1000", Sized(True, 1000)),
        (b"NEW", And((Recent(), Not(SEEN)))),
        (b"NOT SEEN", Not(SEEN)),
        (b"OLD", Not(Recent())),
        (b"ON 01-jan-2024", Dated(False, "ON", dt.date(2024, 1, 1))),
        (b"OR SEEN (DRAFT FLAGGED)", Or(SEEN, And((Flagged("\\Draft"), Flagged("\\Flagged"))))),
        (b"RECENT", Recent()),
        (b"SEEN", SEEN),
        (b"SENTBEFORE 1-Feb-1994", Dated(True, "BEFORE", dt.date(1994, 2, 1))),
        (b"SENTON 1-Feb-1994", Dated(True, "ON", dt.date(1994, 2, 1))),
        (b"SENTSINCE 1-Feb-1994", Dated(True, "SINCE", dt.date(1994, 2, 1))),
        (b"SINCE 29-Feb-2024", Dated(False, "SINCE", dt.date(2024, 2, 29))),
        (b"SMALLER 0", Sized(False, 0)),
        (b"SUBJECT x", FieldText("Subject", "x")),
        (b'TEXT "string not in mailbox"', Text(True, "string not in mailbox")),
        (b"TO x]", FieldText("To", "x]")),
        (b"UID 1:3,7", Numbered(True, numbers((1, 3), (7, 7)))),
        (b"UNANSWERED", Not(Flagged("\\Answered"))),
        (b"UNDELETED", Not(Flagged("\\Deleted"))),
        (b"UNDRAFT", Not(Flagged("\\Draft"))),
        (b"UNFLAGGED", Not(Flagged("\\Flagged"))),
        (b"UNKEYWORD foo", Not(Flagged("foo"))),
        (b"UNSEEN", Not(SEEN)),
        (b"2:* (SEEN) 1", And((Numbered(False, numbers((2, STAR))), SEEN, Numbered(False, ONE)))),
        (b"( SEEN  NOT ( DRAFT ) )", And((SEEN, Not(Flagged("\\Draft"))))),
        (b"CHARSET UTF-8 TEXT {6+}\r\n\xd0\x9c\xd0\xb8\xd1\x80", Text(True, "Мир")),
        (b"CHARSET KOI8-R TEXT {3+}\r\n\xed\xc9\xd2", Text(True, "Мир")),
        (b"CHARSET iso-2022-jp BODY {8+}\r\n\x1b$BF|\x1b(B", Text(False, "日")),
        (b"CHARSET US-ASCII SUBJECT x", FieldText("Subject", "x")),
        (b'SUBJECT "\xc3\xa4"', FieldText("Subject", "ä")),
    ],
)
def test_search_keys(text: bytes, key: SearchKey) -> None:
    assert command(b"SEARCH " + text) == Search(False, key)
    assert command(b"UID SEARCH " + text) == Search(True, key)


@pytest.mark.parametrize(
    "text",
    [b"", b"()", b"(SEEN", b"SEEN)", b"FOO", b"NOT", b"OR SEEN", b"OR SEEN  ", b"FROM", b'"SEEN"',
     b"BEFORE 1-Foo-1994", b"BEFORE 31-Feb-1994", b"BEFORE 1-Feb-94", b'BEFORE "1-Feb-1994',
     b"BEFORE 0-Jan-2000", b"BEFORE 1-Jan-0000", b"LARGER -1", b"LARGER x", b"KEYWORD \\Seen",
     b"LARGER 99999999999999999999", b"UID", b"UID x", b"CHARSET", b"CHARSET UTF-8", b"0",
     b"CHARSET UTF-8 TEXT {1+}\r\n\xff", b"CHARSET US-ASCII TEXT {1+}\r\n\xff", b"SEEN SEEN)",
     b"TEXT {2+}\r\na\0", b"HEADER x", b"HEADER {1+}\r\n\xff x", b"SEENDRAFT", b"1 2 0"],
)  # fmt: skip
def test_what_is_no_search(text: bytes) -> None:
    assert refused(b"SEARCH " + text)


@pytest.mark.parametrize("name", [b"x-unknown", b"base64", b"rot13", b"idna", b"../x", b"\xff"])
def test_charset_that_is_none_is_refused(name: bytes) -> None:
    assert refused(b'SEARCH CHARSET "' + name + b'" ALL') == "Unknown charset"


@pytest.mark.parametrize("name", [b"utf8", b"ISO_8859-1", b"Latin1", b"windows-1252", b"GB18030"])
def test_charsets_by_their_other_names(name: bytes) -> None:
    assert command(b"SEARCH CHARSET %b SUBJECT x" % name) == Search(
        False, FieldText("Subject", "x")
    )
