"""RFC 3501, section 6.3: commands about mailboxes.

Rules of this file: a heading names a section, and a test its rule.
"""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect, new_mailbox
from support.imap_server import MESSAGE, ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY

SYSTEM = "\\Answered \\Flagged \\Deleted \\Seen \\Draft"

# --- 6.3.1 SELECT ---------------------------------------------------------------------------------


def test_6_3_1_select(client: Lines) -> None:
    name = new_mailbox(client, *[MESSAGE] * 3)
    expect(client, f"SELECT {name}",
           f"* FLAGS ({SYSTEM})", f"* OK [PERMANENTFLAGS ({SYSTEM} \\*)] ...",
           "* 3 EXISTS", "* 3 RECENT", "* OK [UNSEEN 1] ...", "* OK [UIDVALIDITY #] ...",
           "* OK [UIDNEXT 4] ...", "* OK [HIGHESTMODSEQ #] ...", "* OK [MAILBOXID (...)] ...",
           "OK [READ-WRITE] ...")  # fmt: skip


def test_6_3_1_no_unseen_if_all_are_seen(client: Lines, box: str) -> None:
    client.ok("STORE 1:3 +FLAGS.SILENT (\\Seen)")
    assert any(b"[UNSEEN 4]" in line for line in client.ok(f"SELECT {box}"))
    client.ok("STORE 4 +FLAGS.SILENT (\\Seen)")
    assert not any(b"[UNSEEN" in line for line in client.ok(f"SELECT {box}"))


def test_6_3_1_recent_for_one_session_only(server: ImapServer, client: Lines) -> None:
    """RFC 3501 2.3.2: the first to be notified."""
    name = new_mailbox(client, *[MESSAGE] * 2)
    client.ok(f"SELECT {name}")
    expect(client, "SEARCH RECENT", "* SEARCH 1 2", "OK ...")
    second = server.lines(name)
    expect(second, "SEARCH RECENT", "* SEARCH", "OK ...")
    expect(second, "FETCH 1 FLAGS", "* 1 FETCH (FLAGS ())", "OK ...")
    expect(client, "FETCH 1 FLAGS", "* 1 FETCH (FLAGS (\\Recent))", "OK ...")
    second.close()


def test_6_3_1_failed_select_leaves_none_selected(client: Lines, box: str) -> None:
    expect(client, "SELECT nowhere", "*...", "NO [NONEXISTENT] ...")
    expect(client, "FETCH 1 FLAGS", "BAD ...")


# --- 6.3.2 EXAMINE --------------------------------------------------------------------------------


def test_6_3_2_examine_changes_nothing(client: Lines) -> None:
    name = new_mailbox(client, *[MESSAGE] * 2)
    for _ in range(2):  # messages stay recent
        assert b"* 2 RECENT" in expect(client, f"EXAMINE {name}", "*...", "OK [READ-ONLY] ...")
    expect(client, "FETCH 1 BODY[TEXT]", "* 1 FETCH (BODY[TEXT] ...)", "OK ...")
    expect(client, "FETCH 1 FLAGS", "* 1 FETCH (FLAGS (\\Recent))", "OK ...")
    for command in ("STORE 1 +FLAGS (\\Seen)", "EXPUNGE", "MOVE 1 INBOX", "UID EXPUNGE 1"):
        expect(client, command, "NO [READ-ONLY] ...")
    client.ok("COPY 1 " + new_mailbox(client))


# --- 6.3.3 CREATE ---------------------------------------------------------------------------------


def test_6_3_3_create(client: Lines, box: str) -> None:
    expect(client, f"CREATE {box}/new", "OK ...")
    expect(client, f"CREATE {box}/new", "NO [ALREADYEXISTS] ...")
    expect(client, "CREATE inbox", "NO [ALREADYEXISTS] ...")


def test_6_3_3_a_separator_at_the_end(client: Lines, box: str) -> None:
    client.ok(f"CREATE {box}/dir/")
    client.ok(f"CREATE {box}/dir/leaf")
    expect(client, f'LIST "" {box}/dir/*', f'* LIST (...) "/" {box}/dir/leaf', "OK ...")


def test_6_3_3_names_above(client: Lines, box: str) -> None:
    client.ok(f"CREATE {box}/a/b/c")
    expect(client, f'LIST "" {box}/a*', f'* LIST (\\Noselect \\HasChildren) "/" {box}/a',
           f'* LIST (\\Noselect \\HasChildren) "/" {box}/a/b',
           f'* LIST (\\HasNoChildren) "/" {box}/a/b/c', "OK ...")  # fmt: skip


# --- 6.3.4 DELETE ---------------------------------------------------------------------------------


def test_6_3_4_delete(client: Lines) -> None:
    name = new_mailbox(client, MESSAGE)
    client.ok(f"DELETE {name}")
    expect(client, f"SELECT {name}", "NO [NONEXISTENT] ...")
    expect(client, f"DELETE {name}", "NO [NONEXISTENT] ...")
    expect(client, "DELETE INBOX", "NO ...")


def test_6_3_4_mailboxes_below_stay(client: Lines, box: str) -> None:
    client.ok(f"CREATE {box}/below")
    client.ok("UNSELECT")
    client.ok(f"DELETE {box}")
    expect(client, f'LIST "" {box}*', f'* LIST (\\Noselect \\HasChildren) "/" {box}',
           f'* LIST (\\HasNoChildren) "/" {box}/below', "OK ...")  # fmt: skip
    expect(client, f"SELECT {box}", "NO [NONEXISTENT] ...")
    expect(client, f"DELETE {box}", "NO ...")  # RFC 3501: one that has children and is \Noselect
    client.ok(f"CREATE {box}")
    client.ok(f"SELECT {box}")


# --- 6.3.5 RENAME ---------------------------------------------------------------------------------


def test_6_3_5_rename(client: Lines, box: str) -> None:
    client.ok(f"CREATE {box}/below/deep")
    client.ok("UNSELECT")
    client.ok(f"RENAME {box} {box}-new")
    expect(client, f"STATUS {box}-new (MESSAGES UIDNEXT)",
           f"* STATUS {box}-new (MESSAGES 4 UIDNEXT 5)", "OK ...")  # fmt: skip
    expect(client, f'LIST "" {box}*', f'* LIST (...) "/" {box}-new',
           f'* LIST (...) "/" {box}-new/below', f'* LIST (...) "/" {box}-new/below/deep',
           "OK ...")  # fmt: skip


def test_6_3_5_rename_that_fails(client: Lines, box: str) -> None:
    second = new_mailbox(client)
    expect(client, f"RENAME {box} {second}", "NO [ALREADYEXISTS] ...")
    expect(client, "RENAME nowhere there", "NO [NONEXISTENT] ...")
    expect(client, f"RENAME {box} INBOX", "NO ...")
    expect(client, f"RENAME {box} {box}/below", "NO ...")


def test_6_3_5_rename_creates_what_is_above(client: Lines, box: str) -> None:
    second = new_mailbox(client, MESSAGE)
    client.ok(f"RENAME {second} {box}/x/y")
    expect(client, f'LIST "" {box}/*', f'* LIST (\\Noselect \\HasChildren) "/" {box}/x',
           f'* LIST (\\HasNoChildren) "/" {box}/x/y', "OK ...")  # fmt: skip


def test_6_3_5_uids_of_a_name_that_is_used_again(client: Lines, box: str) -> None:
    """A mailbox that gets the old name must not be taken for the old mailbox."""
    client.ok("UNSELECT")
    (before,) = client.ok(f"STATUS {box} (UIDVALIDITY)")
    client.ok(f"RENAME {box} {box}-old")
    client.ok(f"CREATE {box}")
    (after,) = client.ok(f"STATUS {box} (UIDVALIDITY)")
    assert before != after


def test_6_3_5_rename_of_inbox_moves_its_messages(client: Lines) -> None:
    client.ok(b"APPEND INBOX {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
    client.ok("CREATE INBOX/below")
    client.ok("RENAME INBOX old-mail")
    expect(client, "STATUS INBOX (MESSAGES)", "* STATUS INBOX (MESSAGES 0)", "OK ...")
    expect(client, "STATUS old-mail (MESSAGES)", "* STATUS old-mail (MESSAGES 1)", "OK ...")
    expect(client, "STATUS INBOX/below (MESSAGES)", "*...", "OK ...")


# --- 6.3.6 SUBSCRIBE, 6.3.7 UNSUBSCRIBE, 6.3.9 LSUB -----------------------------------------------


def test_6_3_6_subscriptions(client: Lines, box: str) -> None:
    client.ok(f"SUBSCRIBE {box}")
    expect(client, f'LSUB "" {box}*', f'* LSUB () "/" {box}', "OK ...")
    client.ok(f"UNSUBSCRIBE {box}")
    expect(client, f'LSUB "" {box}*', "OK ...")


def test_6_3_6_they_outlive_the_mailbox(client: Lines, box: str) -> None:
    client.ok(f"CREATE {box}/gone")
    client.ok(f"SUBSCRIBE {box}/gone")
    client.ok(f"DELETE {box}/gone")
    expect(client, f'LSUB "" {box}/*', f'* LSUB (...) "/" {box}/gone', "OK ...")


def test_6_3_9_percent_shows_what_is_above_subscribed_names(client: Lines, box: str) -> None:
    client.ok(f"UNSUBSCRIBE {box}")
    client.ok(f"SUBSCRIBE {box}/a/b")
    expect(client, f'LSUB "" {box}/%', f'* LSUB (\\Noselect) "/" {box}/a', "OK ...")
    expect(client, f'LSUB "" {box}/*', f'* LSUB (...) "/" {box}/a/b', "OK ...")


# --- 6.3.8 LIST -----------------------------------------------------------------------------------


def test_6_3_8_delimiter(client: Lines) -> None:
    expect(client, 'LIST "" ""', '* LIST (\\Noselect) "/" ""', "OK ...")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["", "/a", "/a/b", "/a/b/c", "/d"]),
        ("/%", ["/a", "/d"]),
        ("/%/%", ["/a/b"]),
        ("/*c", ["/a/b/c"]),
        ("/a%", ["/a"]),
        ("/a/*", ["/a/b", "/a/b/c"]),
        ("%", [""]),
        ("/A", []),
    ],
)
def test_6_3_8_patterns(client: Lines, box: str, pattern: str, found: list[str]) -> None:
    client.ok(f"CREATE {box}/a/b/c")
    client.ok(f"CREATE {box}/a")
    client.ok(f"CREATE {box}/d")
    lines = [f'* LIST (...) "/" {box}{name}' for name in found]
    expect(client, f'LIST "" "{box}{pattern}"', *lines, "OK ...")
    if pattern.startswith("/"):
        expect(client, f'LIST "{box}" "{pattern}"', *lines, "OK ...")


# --- 6.3.10 STATUS --------------------------------------------------------------------------------


def test_6_3_10_status(client: Lines, box: str) -> None:
    client.ok("STORE 2:3 +FLAGS.SILENT (\\Seen)")
    expect(client, f"STATUS {box} (UNSEEN RECENT MESSAGES UIDNEXT UIDVALIDITY)",
           f"* STATUS {box} (UNSEEN 2 RECENT 0 MESSAGES 4 UIDNEXT 5 UIDVALIDITY #)",
           "OK ...")  # fmt: skip
    expect(client, f"STATUS {box} (NOTHING)", "BAD ...")
    expect(client, f"STATUS {box} ()", "BAD ...")
    expect(client, "STATUS nowhere (MESSAGES)", "NO [NONEXISTENT] ...")


# --- 6.3.11 APPEND --------------------------------------------------------------------------------


def test_6_3_11_append(client: Lines, box: str) -> None:
    client.send(
        b'a APPEND %b (\\Seen $Mine) " 7-Feb-1994 21:52:25 -0800" {%d}\r\n'
        % (box.encode(), len(MESSAGE))
    )
    assert client.response().startswith(b"+ ")
    client.send(MESSAGE + b"\r\n")
    answers = client.answers(b"a")
    assert answers[-1].startswith(b"OK [APPENDUID ")
    assert b"* 5 EXISTS" in answers
    client.ok("NOOP")
    expect(client, "FETCH 5 (FLAGS INTERNALDATE)", "*...",
           '* 5 FETCH (FLAGS (...\\Seen $Mine...) INTERNALDATE " 8-Feb-1994 05:52:25 +0000")',
           "OK ...")  # fmt: skip


def test_6_3_11_no_such_mailbox(client: Lines, box: str) -> None:
    expect(client, f"APPEND {box}/new {{2+}}\r\nab", "NO [TRYCREATE] ...")
    expect(client, f'LIST "" {box}/*', "OK ...")


def test_6_3_11_without_flags_and_date(client: Lines, box: str) -> None:
    client.ok(f"APPEND {box} {{12+}}\r\nSubject: x\r\n")
    expect(client, "FETCH 5 FLAGS", "* 5 FETCH (FLAGS (\\Recent))", "OK ...")
