"""RFC 8474: OBJECTID, ids of mailboxes, messages and threads."""

from __future__ import annotations

import re

from support import imap_fixtures
from support.imap_expect import expect, fill, fits, new_mailbox
from support.imap_server import MESSAGE, Lines

server, client, box, other = imap_fixtures.EVERY


def mailbox_id(client: Lines, name: str) -> bytes:
    (answer,) = client.ok(f"STATUS {name} (MAILBOXID)")
    match = re.fullmatch(rb"\* STATUS \S+ \(MAILBOXID \(([A-Za-z0-9_-]{1,255})\)\)", answer)
    assert match is not None, answer
    return match[1]


def email_ids(client: Lines) -> list[bytes]:
    found = re.findall(
        rb"EMAILID \(([A-Za-z0-9_-]{1,255})\)", b"".join(client.ok("FETCH 1:* EMAILID"))
    )
    return list(found)


# --- 4 MAILBOXID ----------------------------------------------------------------------------------


def test_4_1_create_says_it(client: Lines, box: str) -> None:
    assert b" OBJECTID" in client.ok("CAPABILITY")[0]
    tagged = client.say(f"CREATE {box}/new")[-1]
    assert fits(tagged, f"OK [MAILBOXID ({mailbox_id(client, f'{box}/new').decode()})] ...")


def test_4_2_select_says_it(client: Lines, box: str) -> None:
    code = b"[MAILBOXID (%b)]" % mailbox_id(client, box)
    for command in ("SELECT", "EXAMINE"):
        assert any(code in one for one in client.ok(f"{command} {box}"))


def test_4_it_survives_rename(client: Lines, box: str) -> None:
    before = mailbox_id(client, box)
    client.ok(f"RENAME {box} {box}-new")
    assert mailbox_id(client, f"{box}-new") == before
    client.ok(f"CREATE {box}")
    assert mailbox_id(client, box) != before


def test_4_a_new_one_for_the_same_name(client: Lines) -> None:
    name = new_mailbox(client)
    before = mailbox_id(client, name)
    client.ok(f"DELETE {name}")
    client.ok(f"CREATE {name}")
    assert mailbox_id(client, name) != before


# --- 5 EMAILID, THREADID --------------------------------------------------------------------------


def test_5_1_each_message_has_its_own(client: Lines, box: str) -> None:
    ids = email_ids(client)
    assert len(set(ids)) == 4
    client.ok(f"SELECT {box}")
    assert email_ids(client) == ids


def test_5_1_copies_have_the_same(client: Lines, box: str) -> None:
    target, ids = new_mailbox(client), email_ids(client)
    client.ok(f"COPY 1:2 {target}")
    client.ok(f"MOVE 3 {target}")
    client.ok(f"SELECT {target}")
    assert email_ids(client) == ids[:3]


def test_5_1_appended_anew_it_is_another(client: Lines, box: str) -> None:
    ids = email_ids(client)
    fill(client, box, MESSAGE)
    client.ok("NOOP")
    assert email_ids(client)[4] not in ids


def test_5_2_threads_are_not_known(client: Lines, box: str) -> None:
    expect(client, "FETCH 1 THREADID", "* 1 FETCH (THREADID NIL)", "OK ...")
    expect(client, "UID FETCH 1 (EMAILID THREADID)",
           "* 1 FETCH (UID 1 EMAILID (...) THREADID NIL)", "OK ...")  # fmt: skip


# --- 6 New filters on SEARCH ----------------------------------------------------------------------


def test_6_search(client: Lines, box: str) -> None:
    ids = email_ids(client)
    expect(client, f"SEARCH EMAILID {ids[2].decode()}", "* SEARCH 3", "OK ...")
    expect(client, f"SEARCH NOT EMAILID {ids[2].decode()}", "* SEARCH 1 2 4", "OK ...")
    expect(client, "SEARCH EMAILID nothing", "* SEARCH", "OK ...")
    expect(client, "SEARCH THREADID nothing", "* SEARCH", "OK ...")
