"""What the IMAP engine makes of the commands of RFC 3501, section by section.

Rules of this file: one table of lines that are taken, one of lines that are refused, each with the
section that says so.
"""

from __future__ import annotations

import pytest
from support.imap_driver import command, refused

from fastlisten.handlers.imap.engine.commands import (
    Authenticate,
    Capability,
    Check,
    Close,
    Copy,
    Create,
    Delete,
    Event,
    Expunge,
    Fetch,
    List,
    Login,
    Logout,
    Lsub,
    Noop,
    Rename,
    Select,
    StartTls,
    Status,
    Store,
    Subscribe,
)
from fastlisten.handlers.imap.engine.fetch_items import FetchItem, Section
from fastlisten.handlers.imap.engine.sequence_sets import STAR, SequenceSet
from fastlisten.handlers.imap.engine.session_states import State

BEFORE = State.NOT_AUTHENTICATED
LOGGED_IN = State.AUTHENTICATED

FAST: tuple[FetchItem, ...] = ("FLAGS", "INTERNALDATE", "RFC822.SIZE")


def numbers(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


ONE = numbers((1, 1))


@pytest.mark.parametrize(
    ("line", "event"),
    [
        # 6.1
        (b"CAPABILITY", Capability()),
        (b"NOOP", Noop()),
        (b"noop", Noop()),
        (b"NoOp  ", Noop()),
        (b"LOGOUT", Logout()),
        # 6.2
        (b"STARTTLS", StartTls()),
        (b"AUTHENTICATE plain", Authenticate("PLAIN", None)),
        (b"LOGIN SMITH SESAME", Login(b"SMITH", b"SESAME")),
        (b'LOGIN "a b" "p\\"\\\\w"', Login(b"a b", b'p"\\w')),
        (b'LOGIN a ""', Login(b"a", b"")),
        (b"LOGIN {5+}\r\nalice {6+}\r\n\r\n(\xff]x", Login(b"alice", b"\r\n(\xff]x")),
        (b"LOGIN a] b]", Login(b"a]", b"b]")),
        (b'LOGIN "\xc3\xa4" x', Login("ä".encode(), b"x")),
    ],
)
def test_commands_before_login(line: bytes, event: Event) -> None:
    assert command(line, BEFORE) == event


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"SELECT inbox", Select("INBOX")),
        (b'SELECT "InBox"', Select("INBOX")),
        (b"EXAMINE blurdybloop", Select("blurdybloop", read_only=True)),
        (b"CREATE owatagusiam/", Create("owatagusiam/")),
        (b"CREATE owatagusiam/blurdybloop", Create("owatagusiam/blurdybloop")),
        (b"DELETE foo/bar", Delete("foo/bar")),
        (b"RENAME INBOX old-mail", Rename("INBOX", "old-mail")),
        (b'RENAME "a b" {3+}\r\nc d', Rename("a b", "c d")),
        (b"SUBSCRIBE #news.comp.mail.mime", Subscribe("#news.comp.mail.mime")),
        (b"UNSUBSCRIBE #news.comp.mail.mime", Subscribe("#news.comp.mail.mime", False)),
        # 5.1.3
        (b"SELECT ~peter/mail/&U,BTFw-/&ZeVnLIqe-", Select("~peter/mail/台北/日本語")),
        (b'SELECT "Entw&APw-rfe & Co"', None),
        (b"SELECT &-", Select("&")),
        # 6.3.8
        (b'LIST "" ""', List("", ("",))),
        (b'LIST #news.comp.mail.misc ""', List("#news.comp.mail.misc", ("",))),
        (b"LIST ~/Mail/ %", List("~/Mail/", ("%",))),
        (b'LIST "" *', List("", ("*",))),
        (b'LIST "" "a b*"', List("", ("a b*",))),
        (b'LSUB "#news." "comp.mail.*"', Lsub("#news.", "comp.mail.*")),
        (b'LSUB "" inbox', Lsub("", "INBOX")),
        (
            b"STATUS blurdybloop (UIDNEXT messages UIDNEXT)",
            Status("blurdybloop", ("UIDNEXT", "MESSAGES")),
        ),
        (
            b"STATUS inbox ( RECENT UIDVALIDITY UNSEEN )",
            Status("INBOX", ("RECENT", "UIDVALIDITY", "UNSEEN")),
        ),
    ],
)
def test_commands_after_login(line: bytes, event: Event | None) -> None:
    if event is None:
        assert refused(line, LOGGED_IN) == "Mailbox name is not valid mUTF-7"
    else:
        assert command(line, LOGGED_IN) == event


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"CHECK", Check()),
        (b"CLOSE", Close()),
        (b"EXPUNGE", Expunge()),
        (b"COPY 2:4 MEETING", Copy(False, numbers((2, 4)), "MEETING")),
        (b"UID COPY 2:4 MEETING", Copy(True, numbers((2, 4)), "MEETING")),
        # 6.4.6
        (
            b"STORE 2:4 +FLAGS (\\Deleted)",
            Store(False, numbers((2, 4)), "+", ("\\Deleted",)),
        ),
        (b"STORE 1 FLAGS ()", Store(False, ONE, "=", ())),
        (b"STORE 1 FLAGS.SILENT \\seen", Store(False, ONE, "=", ("\\Seen",), silent=True)),
        (
            b"UID store 1 -Flags.Silent ( \\DRAFT $Forwarded  \\Draft )",
            Store(True, ONE, "-", ("\\Draft", "$Forwarded"), silent=True),
        ),
        (
            b"STORE 1 +FLAGS \\Answered \\Flagged",
            Store(False, ONE, "+", ("\\Answered", "\\Flagged")),
        ),
    ],
)
def test_commands_with_a_mailbox(line: bytes, event: Event) -> None:
    assert command(line) == event


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        (b"1", ((1, 1),)),
        (b"*", ((STAR, STAR),)),
        (b"1:*", ((1, STAR),)),
        (b"*:4,5:7", ((STAR, 4), (5, 7))),
        (b"2,4:7,9,12:*", ((2, 2), (4, 7), (9, 9), (12, STAR))),
        (b"4294967295", ((4294967295, 4294967295),)),
        (b"15:4294967295", ((15, 4294967295),)),
    ],
)
def test_message_sets(text: bytes, ranges: tuple[tuple[int, int], ...]) -> None:
    assert command(b"COPY " + text + b" x") == Copy(False, SequenceSet(ranges), "x")


@pytest.mark.parametrize(
    "text",
    [b"0", b"01", b"1:", b":1", b"1,", b",1", b"1,,2", b"1:2:3", b"-1", b"+1", b"1:0", b"a", b"**",
     b"4294967296", b"1:4294967296", b"99999999999999999999", b"*:*:*", b"1;2", b"(1)", b'"1"'],
)  # fmt: skip
def test_invalid_message_sets(text: bytes) -> None:
    assert refused(b"COPY " + text + b" x") == "Invalid messageset"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b"ALL", (*FAST, "ENVELOPE")),
        (b"fast", FAST),
        (b"FULL", (*FAST, "ENVELOPE", "BODY")),
        (b"FLAGS", ("FLAGS",)),
        (b"(FLAGS flags UID)", ("FLAGS", "UID")),
        (b"(BODY BODYSTRUCTURE)", ("BODY", "BODYSTRUCTURE")),
        (b"RFC822", (Section(b"RFC822"),)),
        (b"RFC822.HEADER", (Section(b"RFC822.HEADER", text="HEADER", peek=True),)),
        (b"rfc822.text", (Section(b"RFC822.TEXT", text="TEXT"),)),
        (b"BODY[]", (Section(b"BODY[]"),)),
        (b"body.peek[]", (Section(b"BODY[]", peek=True),)),
        (b"BODY[]<0.2048>", (Section(b"BODY[]<0>", partial=(0, 2048)),)),
        (
            b"BODY.PEEK[TEXT]<5.1>",
            (Section(b"BODY[TEXT]<5>", text="TEXT", partial=(5, 1), peek=True),),
        ),
        (b"BODY[1]", (Section(b"BODY[1]", (1,)),)),
        (b"BODY[4.2.2.1]", (Section(b"BODY[4.2.2.1]", (4, 2, 2, 1)),)),
        (b"BODY[3.header]", (Section(b"BODY[3.HEADER]", (3,), "HEADER"),)),
        (b"BODY[4.1.MIME]", (Section(b"BODY[4.1.MIME]", (4, 1), "MIME"),)),
        (
            b"(FLAGS BODY[HEADER.FIELDS (DATE From)])",
            (
                "FLAGS",
                Section(
                    b"BODY[HEADER.FIELDS (DATE From)]",
                    text="HEADER.FIELDS",
                    fields=(b"DATE", b"From"),
                ),
            ),
        ),
        (
            b'BODY[2.HEADER.FIELDS.NOT ("X-A" {3+}\r\nX-B "a b")]',
            (
                Section(
                    b'BODY[2.HEADER.FIELDS.NOT (X-A X-B "a b")]',
                    (2,),
                    "HEADER.FIELDS.NOT",
                    (b"X-A", b"X-B", b"a b"),
                ),
            ),
        ),
    ],
)
def test_what_fetch_asks_for(text: bytes, items: tuple[FetchItem, ...]) -> None:
    assert command(b"FETCH 1 " + text) == Fetch(False, ONE, items)
    if "UID" not in items:
        assert command(b"UID FETCH 1 " + text) == Fetch(True, ONE, ("UID", *items))


@pytest.mark.parametrize(
    "text",
    [b"", b"()", b"(FLAGS", b"FLAGS)", b"FLAGS UID", b"FOO", b"(ALL)", b"BODY[", b"BODY[]]",
     b"BODY[MIME]", b"BODY[0]", b"BODY[1.]", b"BODY[.1]", b"BODY[1..2]", b"BODY[4294967296]",
     b"BODY[1.FOO]", b"BODY[HEADER.FIELDS]", b"BODY[HEADER.FIELDS ()]", b"BODY[TEXT.1]",
     b"BODY[HEADER.FIELDS (a", b'BODY[HEADER.FIELDS ("a:b")]', b'BODY[HEADER.FIELDS ("")]',
     b'BODY[HEADER.FIELDS ("\xe4")]', b"BODY[HEADER.FIELDS ({2+}\r\n\r\n)]",
     b"BODY[]<0>", b"BODY[]<0.0>", b"BODY[]<1.2", b"BODY[]<-1.2>", b"BODY[]<0.9999999999999999999>",
     b"BODY.PEEK", b"FLAGS[]", b"(FLAGS)(UID)", b"(FLAGS) ()"],
)  # fmt: skip
def test_what_fetch_cannot_ask_for(text: bytes) -> None:
    assert refused(b"FETCH 1 " + text)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "Invalid command name"),
        (b"NOOP x", "Too many arguments"),
        (b"NOOP\tx", "Invalid command name"),
        (b"FOO", "Unknown command"),
        (b"UID NOOP", "Unknown command"),
        (b"UID", "Unknown command"),
        (b"(", "Invalid command name"),
        (b"SELECT", "Missing arguments"),
        (b"SELECT a b", "Expected '('"),
        (b"SELECT (a)", "Expected a string"),
        (b'SELECT "a', "Invalid quoted string"),
        (b'SELECT "a\\b"', "Invalid quoted string"),
        (b'SELECT "a\rb"', "Invalid quoted string"),
        (b"SELECT a\rb", "Invalid arguments"),
        (b"SELECT a\0b", "Invalid arguments"),
        (b"SELECT \xff", "Expected a string"),
        (b"SELECT {x}", "Invalid literal"),
        (b"SELECT {}", "Invalid literal"),
        (b"SELECT {-1}", "Invalid literal"),
        (b"SELECT {4+}\r\na\0bc", "NUL in literal"),
        (b"SELECT &foo", "Mailbox name is not valid mUTF-7"),
        (b"SELECT &AGE-", "Mailbox name is not valid mUTF-7"),
        (b"SELECT &AOQ", "Mailbox name is not valid mUTF-7"),
        (b"SELECT &2D0-", "Mailbox name is not valid mUTF-7"),
        (b"RENAME a", "Missing arguments"),
        (b"STATUS a", "Missing arguments"),
        (b"STATUS a ()", "Empty status list"),
        (b"STATUS a MESSAGES", "Expected '('"),
        (b"STATUS a (FOO)", "Invalid status item FOO"),
        (b"LIST a", "Missing arguments"),
        (b"STORE 1 FOO (\\Seen)", "Invalid item FOO"),
        (b"STORE 1 FLAGS (\\Recent)", "Invalid system flag \\Recent"),
        (b"STORE 1 FLAGS (\\Foo)", "Invalid system flag \\Foo"),
        (b"STORE 1 FLAGS (a b", "Missing ')'"),
        (b'STORE 1 FLAGS ("a")', "Invalid flag"),
        (b"STORE 1 +FLAGS", "Missing arguments"),
        (b"STORE 1 FLAGS (\\)", "Invalid flag"),
        (b"UID EXPUNGE", "Invalid messageset"),
        (b"EXPUNGE 1", "Too many arguments"),
        (b"APPEND INBOX", "Missing message literal"),
    ],
)
def test_what_is_refused(line: bytes, text: str) -> None:
    assert refused(line) == text
