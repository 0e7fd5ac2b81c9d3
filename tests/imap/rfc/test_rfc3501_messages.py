"""RFC 3501, sections 6.4 and 7.2 to 7.4: commands about messages, and what is told of changes.

Rules of this file: a heading names a section, and a test its rule. Sections of messages are in
tests/imap/test_imap_session_fetch.py, the keys of SEARCH in test_imap_session_search.py too.
"""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect, fill, new_mailbox
from support.imap_server import MESSAGE, Lines

server, client, box, other = imap_fixtures.EVERY

NESTED = b"""From: Ann <ann@example.com>
To: bob@example.com, "Carl, C." <carl@example.org>
Subject: =?utf-8?q?gr=C3=BCn?=
Date: Mon, 2 Feb 2026 10:00:00 +0100
Message-ID: <n@example.com>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: text/plain; charset=us-ascii

one
--B
Content-Type: message/rfc822

Subject: inner

inner text
--B--
""".replace(b"\n", b"\r\n")

# --- 6.4.1 CHECK, 6.4.2 CLOSE, 6.4.3 EXPUNGE ------------------------------------------------------


def test_6_4_2_close_removes_and_says_nothing(client: Lines, box: str) -> None:
    client.ok("STORE 1:2 +FLAGS.SILENT (\\Deleted)")
    expect(client, "CLOSE", "OK ...")
    expect(client, f"STATUS {box} (MESSAGES)", f"* STATUS {box} (MESSAGES 2)", "OK ...")


def test_6_4_2_close_after_examine_removes_nothing(client: Lines, box: str) -> None:
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client.ok(f"EXAMINE {box}")
    client.ok("CLOSE")
    expect(client, f"STATUS {box} (MESSAGES)", f"* STATUS {box} (MESSAGES 4)", "OK ...")


def test_6_4_2_select_is_not_close(client: Lines, box: str) -> None:
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client.ok("SELECT INBOX")
    expect(client, f"STATUS {box} (MESSAGES)", f"* STATUS {box} (MESSAGES 4)", "OK ...")


def test_6_4_3_expunge(client: Lines, box: str) -> None:
    client.ok("STORE 2:3 +FLAGS.SILENT (\\Deleted)")
    expect(client, "EXPUNGE", "* ...EXPUNGE", "* ...EXPUNGE", "OK ...")
    expect(client, "FETCH 1:* UID", "* 1 FETCH (UID 1)", "* 2 FETCH (UID 4)", "OK ...")
    expect(client, "EXPUNGE", "OK ...")


# --- 6.4.4 SEARCH ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("1,3", "1 3"), ("ALL", "1 2 3"), ("ANSWERED", "1"), ("BCC x", ""),
        ("BEFORE 1-Jan-2026", ""), ("BEFORE 2-Jan-2026", "1 2 3"), ("ON 1-Jan-2026", "1 2 3"),
        ("SINCE 1-Jan-2026", "1 2 3"), ("SINCE 2-Jan-2026", ""), ("BODY one", "2"),
        ("BODY inner", "2"), ("CC x", ""), ("DELETED", "3"), ("DRAFT", ""), ("FLAGGED", "1"),
        ("FROM ann", "2"), ('FROM "BOB@"', "1 3"), ("HEADER Message-ID n@", "2"),
        ('HEADER Subject ""', "1 2 3"), ('HEADER X-None ""', ""), ("KEYWORD $Key", "1"),
        ("LARGER 200", "2"), ("SMALLER 200", "1 3"), ("NEW", ""), ("NOT SEEN", "2 3"),
        ("OLD", "1 2 3"), ("OR FLAGGED DELETED", "1 3"), ("RECENT", ""), ("SEEN", "1"),
        ("SENTBEFORE 3-Feb-2026", "2"), ("SENTON 3-Feb-2026", "1 3"),
        ("SENTSINCE 3-Feb-2026", "1 3"), ("SUBJECT gr\\FCn", "2"), ("SUBJECT HELLO", "1 3"),
        ("TEXT carl", "2"), ("TO alice", "1 3"), ("UID 2:3", "2 3"), ("UNANSWERED", "2 3"),
        ("UNDELETED", "1 2"), ("UNDRAFT", "1 2 3"), ("UNFLAGGED", "2 3"), ("UNKEYWORD $Key", "2 3"),
        ("UNSEEN", "2 3"), ("UNSEEN FROM bob", "3"), ("(UNSEEN FROM bob)", "3"),
        ("OR (UNSEEN FROM bob) NOT FROM bob", "2 3"), ("*", "3"), ("4:9", ""),
    ],
)  # fmt: skip
def test_6_4_4_search(client: Lines, keys: str, found: str) -> None:
    name = new_mailbox(client, MESSAGE, NESTED, MESSAGE)
    client.ok(f"SELECT {name}")
    client.ok("UNSELECT")
    client.ok(f"SELECT {name}")
    client.ok("STORE 1 +FLAGS.SILENT (\\Seen \\Answered \\Flagged $Key)")
    client.ok("STORE 3 +FLAGS.SILENT (\\Deleted)")
    if "\\FC" in keys:
        keys = keys.replace("gr\\FCn", "{4+}\r\ngr\\FCn")
        words = keys.encode().replace(b"\\FC", b"\xfc")
        assert client.ok(b"SEARCH CHARSET ISO-8859-1 " + words) == [b"* SEARCH 2"]
    else:
        expect(client, f"SEARCH {keys}", f"* SEARCH {found}".rstrip(), "OK ...")


def test_6_4_4_unknown_charset(client: Lines, box: str) -> None:
    expect(client, "SEARCH CHARSET X-NONE TEXT x", "NO [BADCHARSET (US-ASCII UTF-8)] ...")


# --- 6.4.5 FETCH ----------------------------------------------------------------------------------


def test_6_4_5_macros(client: Lines, box: str) -> None:
    fast = f'FLAGS () INTERNALDATE "..." RFC822.SIZE {len(MESSAGE)}'
    expect(client, "FETCH 1 FAST", f"* 1 FETCH ({fast})", "OK ...")
    expect(client, "FETCH 1 ALL", f"* 1 FETCH ({fast} ENVELOPE (...))", "OK ...")
    expect(client, "FETCH 1 FULL", f"* 1 FETCH ({fast} ENVELOPE (...) BODY (...))", "OK ...")
    expect(client, "FETCH 1 (FAST)", "BAD ...")


def test_6_4_5_seen(client: Lines, box: str) -> None:
    for item in ("BODY[]", "RFC822", "RFC822.TEXT", "BODY[TEXT]<0.1>"):
        client.ok("STORE 1 -FLAGS.SILENT (\\Seen)")
        expect(client, f"FETCH 1 {item}", "* 1 FETCH (... FLAGS (\\Seen))", "OK ...")
    client.ok("STORE 1 -FLAGS.SILENT (\\Seen)")
    for item in ("BODY.PEEK[]", "RFC822.HEADER", "ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE"):
        client.ok(f"FETCH 1 {item}")
    expect(client, "FETCH 1 FLAGS", "* 1 FETCH (FLAGS ())", "OK ...")


@pytest.mark.parametrize(
    ("section", "octets"),
    [
        ("[1]", b"one"),
        ("[1.MIME]", b"Content-Type: text/plain; charset=us-ascii\r\n\r\n"),
        ("[2.HEADER]", b"Subject: inner\r\n\r\n"),
        ("[2.TEXT]", b"inner text"),
        ("[2.1]", b"inner text"),
        ("[2]<0.10>", b"Subject: i"),
        ("[HEADER.FIELDS (message-id)]", b"Message-ID: <n@example.com>\r\n\r\n"),
        ("[TEXT]<0.3>", b"--B"),
        ("[]<99999.5>", b""),
        ("[9]", None),
    ],
)
def test_6_4_5_sections(client: Lines, section: str, octets: bytes | None) -> None:
    client.ok("SELECT " + new_mailbox(client, NESTED))
    (answer,) = client.ok(f"FETCH 1 BODY.PEEK{section}")
    value = b"NIL" if octets is None else b"{%d}\r\n%b" % (len(octets), octets)
    label = section.replace(".3>", ">").replace(".5>", ">").replace(".10>", ">").upper()
    plain = answer.replace(b' ""', b" {0}\r\n").replace(b"message-id", b"MESSAGE-ID")
    assert plain == b"* 1 FETCH (BODY%b %b)" % (label.encode(), value)


def test_6_4_5_structure(client: Lines) -> None:
    client.ok("SELECT " + new_mailbox(client, NESTED))
    expect(client, "FETCH 1 BODY",
           '* 1 FETCH (BODY (("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'
           '("message" "rfc822" NIL NIL NIL "7bit" 28 (...) ("text" "plain" ("charset" "us-ascii")'
           ' NIL NIL "7bit" 10 0) 2) "mixed"))', "OK ...")  # fmt: skip
    expect(client, "FETCH 1 ENVELOPE",
           '* 1 FETCH (ENVELOPE ("Mon, 2 Feb 2026 10:00:00 +0100" "=?utf-8?q?gr=C3=BCn?="'
           ' (("Ann" NIL "ann" "example.com")) (("Ann" NIL "ann" "example.com"))'
           ' (("Ann" NIL "ann" "example.com")) ((NIL NIL "bob" "example.com")'
           '("Carl, C." NIL "carl" "example.org")) NIL NIL NIL "<n@example.com>"))',
           "OK ...")  # fmt: skip


def test_6_4_5_numbers_that_are_not_there(client: Lines, box: str) -> None:
    expect(client, "FETCH 5 FLAGS", "BAD ...")
    expect(client, "FETCH 0 FLAGS", "BAD ...")
    expect(client, "FETCH 4:9 FLAGS", "BAD ...")
    expect(client, "FETCH *:3 UID", "* 3 FETCH (UID 3)", "* 4 FETCH (UID 4)", "OK ...")


# --- 6.4.6 STORE ----------------------------------------------------------------------------------


def test_6_4_6_store(client: Lines, box: str) -> None:
    expect(client, "STORE 1 FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Seen))", "OK ...")
    expect(client, "STORE 1 +FLAGS \\Draft", "* 1 FETCH (FLAGS (\\Seen \\Draft))", "OK ...")
    expect(client, "STORE 1 -FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Draft))", "OK ...")
    expect(client, "STORE 1 FLAGS ()", "* 1 FETCH (FLAGS ())", "OK ...")
    expect(client, "STORE 1:2 +FLAGS.SILENT (\\Seen)", "OK ...")


def test_6_4_6_silent_says_what_others_have_changed(client: Lines, box: str, other: Lines) -> None:
    """The client would not know the flags otherwise."""
    for silent in ("STORE 1 +FLAGS.SILENT (word)", "UID STORE 1 -FLAGS.SILENT (\\Flagged)"):
        other.ok("STORE 1 FLAGS.SILENT (\\Flagged \\Seen)")
        assert any(b"\\Seen" in one for one in client.ok(silent))
        other.ok("NOOP")
        expect(client, "NOOP", "OK ...")
        client.ok("STORE 1 FLAGS.SILENT ()")
        other.ok("NOOP")
    client.ok("STORE 1 +FLAGS.SILENT (\\Draft)")
    expect(client, "STORE 1 +FLAGS.SILENT (\\Answered Word)", "OK ...")


# --- 6.4.7 COPY -----------------------------------------------------------------------------------


def test_6_4_7_copy(client: Lines, box: str) -> None:
    target = new_mailbox(client)
    client.ok("STORE 2 +FLAGS.SILENT (\\Flagged word)")
    client.ok(f"COPY 2:3 {target}")
    client.ok(f"EXAMINE {target}")
    expect(client, "FETCH 1:* (FLAGS INTERNALDATE)",
           '* 1 FETCH (FLAGS (\\Flagged word \\Recent) INTERNALDATE " 1-Jan-2026 12:00:00 +0000")',
           '* 2 FETCH (FLAGS (\\Recent) INTERNALDATE " 1-Jan-2026 12:00:00 +0000")',
           "OK ...")  # fmt: skip


def test_6_4_7_no_such_mailbox(client: Lines, box: str) -> None:
    expect(client, f"COPY 1 {box}/new", "NO [TRYCREATE] ...")


# --- 6.4.8 UID ------------------------------------------------------------------------------------


def test_6_4_8_uid(client: Lines, box: str) -> None:
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client.ok("EXPUNGE")
    expect(client, "UID FETCH 2 FLAGS", "* 1 FETCH (UID 2 FLAGS ())", "OK ...")
    expect(client, "UID STORE 3 +FLAGS (\\Seen)", "* 2 FETCH (UID 3 FLAGS (\\Seen))", "OK ...")
    expect(client, "UID SEARCH 2:3", "* SEARCH 3 4", "OK ...")
    expect(client, "UID SEARCH UID 2:3", "* SEARCH 2 3", "OK ...")


def test_6_4_8_uids_that_are_not_there(client: Lines, box: str) -> None:
    expect(client, "UID FETCH 9 FLAGS", "OK ...")
    expect(client, "UID STORE 9 +FLAGS (\\Seen)", "OK ...")
    expect(client, "UID COPY 9 INBOX", "OK ...")
    expect(client, "UID FETCH 9:* UID", "* 4 FETCH (UID 4)", "OK ...")
    expect(client, "UID FETCH 4294967295:* UID", "* 4 FETCH (UID 4)", "OK ...")


# --- 6.5 Experimental, 7.2 to 7.4 Responses -------------------------------------------------------


def test_6_5_1_unknown_commands(client: Lines) -> None:
    expect(client, "XPIG-LATIN", "BAD ...")


def test_7_2_6_flags_are_said_before_they_are_used(client: Lines, box: str, other: Lines) -> None:
    other.ok("STORE 1 +FLAGS.SILENT (NewWord)")
    expect(client, "NOOP", "* FLAGS (... NewWord)", "* OK [PERMANENTFLAGS (... NewWord \\*)] ...",
           "* 1 FETCH (FLAGS (NewWord))", "OK ...")  # fmt: skip


def test_7_3_1_exists_only_grows_by_it(client: Lines, box: str, other: Lines) -> None:
    fill(other, box, MESSAGE, MESSAGE)
    other.ok("STORE 1:2 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    responses = client.ok("NOOP")
    assert responses[:3] == [b"* 1 EXPUNGE", b"* 1 EXPUNGE", b"* 4 EXISTS"]


@pytest.mark.parametrize("command", ["FETCH 2:4 FLAGS", "STORE 2 +FLAGS (\\Seen)", "SEARCH ALL"])
def test_7_4_1_no_expunge_while_numbers_are_used(
    client: Lines, box: str, other: Lines, command: str
) -> None:
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    assert not any(b"EXPUNGE" in one for one in client.ok(command))
    assert not any(b"EXPUNGE" in one for one in client.ok(command))
    expect(client, "NOOP", "* 1 EXPUNGE", "OK ...")


def test_7_4_1_nothing_is_told_while_no_command_is_in_progress(
    client: Lines, box: str, other: Lines
) -> None:
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    fill(other, box, MESSAGE)
    client.send(b"z NOOP\r\n")  # what is read first belongs to it
    assert client.response() == b"* 1 EXPUNGE"
    assert client.response() == b"* 4 EXISTS"
    client.answers(b"z")
