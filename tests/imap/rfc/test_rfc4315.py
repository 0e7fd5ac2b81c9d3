"""RFC 4315: UIDPLUS."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect, fits, new_mailbox
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY


def uidvalidity(client: Lines, name: str) -> int:
    (answer,) = client.ok(f"STATUS {name} (UIDVALIDITY)")
    return int(answer.rpartition(b" ")[2][:-1])


# --- 2.1 UID EXPUNGE ------------------------------------------------------------------------------


def test_2_1_only_those_that_are_named_and_deleted(client: Lines, box: str) -> None:
    assert b" UIDPLUS" in client.ok("CAPABILITY")[0]
    client.ok("STORE 1:3 +FLAGS.SILENT (\\Deleted)")
    expect(client, "UID EXPUNGE 2:9", "* ...EXPUNGE", "* ...EXPUNGE", "OK ...")
    expect(client, "UID SEARCH ALL", "* SEARCH 1 4", "OK ...")
    expect(client, "UID EXPUNGE 4", "OK ...")
    expect(client, "UID EXPUNGE", "BAD ...")


# --- 3 Response codes -----------------------------------------------------------------------------


def test_3_appenduid(client: Lines, box: str) -> None:
    valid = uidvalidity(client, box)
    expect(client, f"APPEND {box} {{2+}}\r\na:", "*...", f"OK [APPENDUID {valid} 5] ...")
    target = new_mailbox(client)
    valid = uidvalidity(client, target)
    expect(client, f"APPEND {target} {{2+}}\r\na:", f"OK [APPENDUID {valid} 1] ...")


def test_3_copyuid(client: Lines, box: str) -> None:
    target = new_mailbox(client, b"a:")
    valid = uidvalidity(client, target)
    expect(client, f"COPY 1,3:4 {target}", f"OK [COPYUID {valid} 1,3:4 2:4] ...")
    expect(client, f"UID COPY 4,1 {target}", f"OK [COPYUID {valid} 1,4 5:6] ...")


def test_3_no_code_if_nothing_is_copied(client: Lines, box: str) -> None:
    expect(client, "UID COPY 9 INBOX", "OK Copy completed.")
    expect(client, "COPY 1 nowhere", "NO [TRYCREATE] ...")


def test_3_which_message_became_which(client: Lines, box: str) -> None:
    target = new_mailbox(client)
    client.ok("STORE 3 +FLAGS.SILENT (\\Flagged)")
    assert fits(client.say(f"COPY 2:3 {target}")[-1], "OK [COPYUID # 2:3 1:2] ...")
    client.ok(f"SELECT {target}")
    expect(client, "UID SEARCH FLAGGED", "* SEARCH 2", "OK ...")
