"""RFC 3501, sections 2 to 6.2 and 7.1: syntax, states, and commands about the session itself.

Rules of this file: a heading names a section, and a test its rule. What the engine alone decides is
in tests/imap/test_imap_engine_*.py too.
"""

from __future__ import annotations

import base64
import imaplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import imap_fixtures
from support.imap_expect import expect, fits, new_mailbox
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, ImapServer, Lines, serve_imap

server, client, box, other = imap_fixtures.EVERY


@pytest.fixture
def stranger(server: ImapServer) -> Iterator[Lines]:
    """A session before login."""
    client = server.connect()
    yield client
    client.close()


@pytest.fixture
def starttls(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path, tls="starttls") as served:
        yield served


# --- 2.2 Commands and responses -------------------------------------------------------------------


def test_2_2_1_tags(client: Lines) -> None:
    """Any tag of the syntax comes back as it is."""
    for tag in (b"A", b"1", b"a.b", b"]", b"~x", b"a" * 100, b"A142"):
        client.send(tag + b" NOOP\r\n")
        assert client.response() == tag + b" OK NOOP completed."


@pytest.mark.parametrize("tag", ["+", "*", "a+", "(a", "a%", 'a"', "\\a"])
def test_2_2_1_no_tags(stranger: Lines, tag: str) -> None:
    stranger.send(tag.encode() + b" NOOP\r\n")
    assert fits(stranger.response(), "* BAD ...")


def test_2_2_1_continuation_only_for_a_command_that_goes_on(client: Lines) -> None:
    """A literal's wrong command is answered with BAD instead of a continuation."""
    expect(client, "NONSENSE {5}", "BAD ...")
    client.send(b"a STATUS {5}\r\n")
    assert client.response().startswith(b"+ ")
    client.send(b"INBOX (MESSAGES)\r\n")
    assert fits(client.response(), "* STATUS INBOX (MESSAGES #)")
    assert fits(client.response(), "a OK ...")


def test_2_2_2_each_command_has_one_tagged_response(client: Lines) -> None:
    client.send(b"".join(b"x%d NOOP\r\n" % number for number in range(50)))
    assert [client.response()[:4] for _ in range(9)] == [b"x%d O" % number for number in range(9)]


# --- 2.3 Message attributes -----------------------------------------------------------------------


def test_2_3_1_1_uids_ascend_and_are_not_used_again(client: Lines, box: str) -> None:
    expect(client, "UID SEARCH ALL", "* SEARCH 1 2 3 4", "OK ...")
    client.ok("STORE 4 +FLAGS.SILENT (\\Deleted)")
    client.ok("EXPUNGE")
    expect(client, f"STATUS {box} (UIDNEXT)", f"* STATUS {box} (UIDNEXT 5)", "OK ...")
    client.ok(b"APPEND %b {%d+}\r\n%b" % (box.encode(), len(MESSAGE), MESSAGE))
    expect(client, "UID SEARCH ALL", "* SEARCH 1 2 3 5", "OK ...")


def test_2_3_1_1_uidvalidity_stays_and_that_of_a_new_mailbox_is_greater(client: Lines) -> None:
    def uidvalidity() -> int:
        (answer,) = client.ok(f"STATUS {name} (UIDVALIDITY)")
        return int(answer.rpartition(b" ")[2][:-1])

    name = new_mailbox(client, MESSAGE)
    first = uidvalidity()
    client.ok(f"SELECT {name}")
    client.ok("UNSELECT")
    assert uidvalidity() == first
    client.ok(f"DELETE {name}")
    client.ok(f"CREATE {name}")
    assert uidvalidity() > first


def test_2_3_1_2_message_numbers_are_ranks(client: Lines, box: str) -> None:
    client.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    expect(client, "EXPUNGE", "* 2 EXPUNGE", "OK ...")
    expect(client, "FETCH 1:* UID", "* 1 FETCH (UID 1)", "* 2 FETCH (UID 3)", "* 3 FETCH (UID 4)",
           "OK ...")  # fmt: skip


def test_2_3_2_flags(client: Lines, box: str) -> None:
    flags = "\\Answered \\Flagged \\Deleted \\Seen \\Draft"
    expect(client, f"STORE 1 FLAGS ({flags} $Forwarded word)",
           f"* FLAGS ({flags} $Forwarded word)",
           f"* OK [PERMANENTFLAGS ({flags} $Forwarded word \\*)] ...",
           f"* 1 FETCH (FLAGS ({flags} $Forwarded word...))", "OK ...")  # fmt: skip
    expect(client, "STORE 1 FLAGS (\\Recent)", "BAD ...")
    expect(client, "STORE 1 FLAGS (\\Unknown)", "BAD ...")


def test_2_3_3_to_2_3_6_other_attributes(client: Lines, box: str) -> None:
    expect(client, "FETCH 1 (INTERNALDATE RFC822.SIZE)",
           f'* 1 FETCH (INTERNALDATE " 1-Jan-2026 12:00:00 +0000" RFC822.SIZE {len(MESSAGE)})',
           "OK ...")  # fmt: skip


# --- 3 State --------------------------------------------------------------------------------------

ANY = ("CAPABILITY", "NOOP")
AFTER_LOGIN = (
    "SELECT INBOX", "EXAMINE INBOX", "CREATE x", "DELETE x", "RENAME x y", "SUBSCRIBE x",
    "UNSUBSCRIBE x", 'LIST "" ""', 'LSUB "" ""', "STATUS INBOX (MESSAGES)", "NAMESPACE",
    "ENABLE CONDSTORE", "IDLE",
)  # fmt: skip
SELECTED = (
    "CHECK", "CLOSE", "UNSELECT", "EXPUNGE", "SEARCH ALL", "FETCH 1 FLAGS", "STORE 1 FLAGS ()",
    "COPY 1 x", "MOVE 1 x", "UID FETCH 1 FLAGS", "UID STORE 1 FLAGS ()", "UID COPY 1 x",
    "UID MOVE 1 x", "UID SEARCH ALL", "UID EXPUNGE 1",
)  # fmt: skip


def test_3_1_not_authenticated(server: ImapServer) -> None:
    for command in AFTER_LOGIN + SELECTED:
        client = server.connect()
        expect(client, command, "BAD ...")
        for allowed in ANY:
            client.ok(allowed)
        client.close()


def test_3_2_authenticated(client: Lines) -> None:
    for command in SELECTED:
        expect(client, command, "BAD ...")
        client.ok("NOOP")
    for command in (f"LOGIN {ADDRESS} {PASSWORD}", "AUTHENTICATE PLAIN", "STARTTLS"):
        expect(client, command, "BAD ...")


def test_3_3_selected(client: Lines, box: str) -> None:
    for command in ("CHECK", "SEARCH ALL", 'LIST "" ""', f"STATUS {box} (MESSAGES)", "NOOP"):
        client.ok(command)


def test_3_4_logout_in_any_state(server: ImapServer) -> None:
    for client in (server.connect(), server.lines(), server.lines("INBOX")):
        expect(client, "LOGOUT", "* BYE ...", "OK ...")
        assert client.stream.read() == b""
        client.close()


# --- 4 Data formats -------------------------------------------------------------------------------


def test_4_3_strings(client: Lines) -> None:
    """Atom, quoted string and literal are the same argument."""
    name = new_mailbox(client)
    for form in (name, f'"{name}"', f"{{{len(name)}+}}\r\n{name}"):
        expect(client, f"STATUS {form} (MESSAGES)", f"* STATUS {name} (MESSAGES 0)", "OK ...")
    expect(client, 'STATUS "a\\"b\\\\c" (MESSAGES)', "NO [NONEXISTENT] ...")
    expect(client, 'STATUS "a\\x" (MESSAGES)', "BAD ...")


def test_4_3_1_eight_bit_octets_come_in_literals(client: Lines) -> None:
    body = MESSAGE + "grün\r\n".encode("latin-1")
    name = new_mailbox(client, body)
    client.ok(f"SELECT {name}")
    expect(client, "FETCH 1 BODY.PEEK[]",
           f"* 1 FETCH (BODY[] {{{len(body)}}}\r\n...)", "OK ...")  # fmt: skip


def test_4_5_nil_is_not_the_string(client: Lines) -> None:
    name = new_mailbox(client, b"Subject: NIL\r\n\r\n")
    client.ok(f"SELECT {name}")
    envelope = '(NIL "NIL" NIL NIL NIL NIL NIL NIL NIL NIL)'
    expect(client, "FETCH 1 ENVELOPE", f"* 1 FETCH (ENVELOPE {envelope})", "OK ...")


# --- 5 Operational considerations -----------------------------------------------------------------


def test_5_1_inbox_in_any_case(client: Lines) -> None:
    for name in ("INBOX", "inbox", "InBoX"):
        expect(client, f"STATUS {name} (MESSAGES)", "* STATUS INBOX (MESSAGES #)", "OK ...")


def test_5_1_3_international_names(client: Lines) -> None:
    client.ok("CREATE &ZeVnLIqe-/&U,BTFw-")
    expect(client, 'LIST "" "&ZeVnLIqe-/*"', '* LIST (...) "/" &ZeVnLIqe-/&U,BTFw-', "OK ...")
    for wrong in ("a&b", "&Jjo!", "&ZeVnLIqe", "&AGE-"):
        expect(client, f"CREATE {wrong}", "NO [CANNOT] ...")


def test_5_2_changes_are_told_with_any_command(client: Lines, box: str, other: Lines) -> None:
    other.ok("STORE 1 +FLAGS.SILENT (\\Answered)")
    other.ok(b"APPEND %b {%d+}\r\n%b" % (box.encode(), len(MESSAGE), MESSAGE))
    expect(client, f"STATUS {box} (UIDNEXT)", "*...", "OK ...")
    expect(client, "CHECK", "* 5 EXISTS", "*...", "* 1 FETCH (FLAGS (\\Answered...))", "OK ...")


def test_5_5_commands_in_progress(client: Lines, box: str) -> None:
    """Commands that follow each other are carried out in their order."""
    client.send(
        b"a STORE 1 +FLAGS.SILENT (\\Deleted)\r\nb SEARCH DELETED\r\nc EXPUNGE\r\n"
        b"d FETCH 1 UID\r\ne NOOP\r\n"
    )
    answers = [client.response() for _ in range(8)]
    assert [one[:4] for one in answers if one[:1] != b"*"] == [b"%c OK" % c for c in b"abcde"]
    assert [one for one in answers if one[:1] == b"*"] == [
        b"* SEARCH 1", b"* 1 EXPUNGE", b"* 1 FETCH (UID 2)",
    ]  # fmt: skip


# --- 6.1 Any state --------------------------------------------------------------------------------


def test_6_1_1_capability(server: ImapServer, stranger: Lines, client: Lines) -> None:
    expect(stranger, "CAPABILITY", "* CAPABILITY IMAP4rev1 ...AUTH=PLAIN...", "OK ...")
    expect(client, "CAPABILITY", "* CAPABILITY IMAP4rev1 ...", "OK ...")
    assert b" IMAP4rev1 " in stranger.greeting
    expect(client, "CAPABILITY x", "BAD ...")


def test_6_1_2_noop(client: Lines) -> None:
    expect(client, "noop", "OK ...")
    expect(client, "NOOP x", "BAD ...")


# --- 6.2 Not authenticated ------------------------------------------------------------------------


def test_6_2_1_starttls(starttls: ImapServer) -> None:
    client = starttls.connect()
    expect(client, "CAPABILITY", "* CAPABILITY ...STARTTLS LOGINDISABLED", "OK ...")
    expect(client, "STARTTLS", "OK ...")
    secured = client.connection = starttls.encrypt(client.connection)
    client.stream = secured.makefile("rb")
    (capability,) = client.ok("CAPABILITY")
    assert b"STARTTLS" not in capability
    assert b"LOGINDISABLED" not in capability
    expect(client, "STARTTLS", "BAD ...")
    client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
    client.close()


@pytest.mark.parametrize("rest", [b"b LOGIN alice wonder\r\n", b"b NOOP\r\n", b"\r\n", b"x"])
def test_6_2_1_plain_text_after_starttls_is_not_carried_out(
    starttls: ImapServer, rest: bytes
) -> None:
    """Neither before the handshake nor after it (CVE-2011-0411 and its kin)."""
    client = starttls.connect()
    client.send(b"a STARTTLS\r\n" + rest)
    answers = client.stream.read()
    assert answers.startswith(b"a BAD "), answers
    assert b"b " not in answers
    client.close()


def test_6_2_1_plain_text_after_the_go_ahead(starttls: ImapServer) -> None:
    """It is read as part of the handshake, which fails."""
    client = starttls.connect()
    client.ok("STARTTLS")
    client.send(b"b NOOP\r\n")
    assert b"b OK" not in client.stream.read()
    client.close()


def test_6_2_2_authenticate(server: ImapServer) -> None:
    initial = base64.b64encode(f"\0{ADDRESS}\0{PASSWORD}".encode())
    client = server.connect()
    client.send(b"a AUTHENTICATE PLAIN\r\n")
    assert client.response() == b"+ "
    client.send(initial + b"\r\n")
    assert fits(client.response(), "a OK [CAPABILITY ...] ...")
    client.close()


def test_6_2_2_authenticate_that_fails(stranger: Lines) -> None:
    expect(stranger, "AUTHENTICATE X-NONE", "NO ...")
    stranger.send(b"a AUTHENTICATE PLAIN\r\n")
    assert stranger.response() == b"+ "
    stranger.send(b"*\r\n")
    assert fits(stranger.response(), "a BAD ...")
    stranger.ok("NOOP")


def test_6_2_3_login(stranger: Lines) -> None:
    expect(stranger, f"LOGIN {ADDRESS} wrong", "NO [AUTHENTICATIONFAILED] ...")
    expect(stranger, f'login "{ADDRESS}" {{6+}}\r\n{PASSWORD}', "OK [CAPABILITY ...] ...")


def test_6_2_3_login_needs_tls(starttls: ImapServer) -> None:
    client = starttls.connect()
    expect(client, f"LOGIN {ADDRESS} {PASSWORD}", "NO [PRIVACYREQUIRED] ...")
    expect(client, "AUTHENTICATE PLAIN", "NO [PRIVACYREQUIRED] ...")
    client.close()


# --- 7.1 Status responses -------------------------------------------------------------------------


def test_7_1_greeting_and_bye(server: ImapServer, stranger: Lines) -> None:
    assert fits(stranger.greeting, "* OK [CAPABILITY ...] ...")
    for _ in range(3):
        stranger.send(b"a NONSENSE\r\n")
    answers = stranger.stream.read().splitlines()
    assert [one[:5] for one in answers] == [b"a BAD", b"a BAD", b"a BAD", b"* BYE"]


def test_7_1_3_bad_without_a_tag(client: Lines) -> None:
    client.send(b"\r\n")
    assert fits(client.response(), "* BAD ...")
    client.ok("NOOP")


def test_imaplib_sees_the_states(server: ImapServer) -> None:
    assert server.context is not None
    context: ssl.SSLContext = server.context
    with imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=context, timeout=60) as client:
        assert client.state == "NONAUTH"
        client.login(ADDRESS, PASSWORD)
        assert client.state == "AUTH"
        client.select()
        assert client.state == "SELECTED"
