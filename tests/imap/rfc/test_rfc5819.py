"""RFC 5819: LIST-STATUS, the STATUS of each mailbox that is listed."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY

# --- 2 STATUS return option -----------------------------------------------------------------------


def test_2_status_follows_list(client: Lines, box: str) -> None:
    assert b" LIST-STATUS" in client.ok("CAPABILITY")[0]
    client.ok(f"CREATE {box}/b")
    expect(client, f'LIST "" {box}* RETURN (STATUS (MESSAGES UNSEEN))',
           f'* LIST (...) "/" {box}', f"* STATUS {box} (MESSAGES 4 UNSEEN 4)",
           f'* LIST (...) "/" {box}/b', f"* STATUS {box}/b (MESSAGES 0 UNSEEN 0)",
           "OK ...")  # fmt: skip


def test_2_none_for_what_cannot_be_selected(client: Lines, box: str) -> None:
    client.ok(f"CREATE {box}/a/b")
    expect(client, f'LIST "" {box}/a RETURN (STATUS (MESSAGES))',
           f'* LIST (\\NonExistent \\HasChildren) "/" {box}/a', "OK ...")  # fmt: skip
    client.ok(f"SUBSCRIBE {box}/gone")
    expect(client, f'LIST (SUBSCRIBED) "" {box}/gone RETURN (STATUS (MESSAGES))',
           f'* LIST (\\NonExistent \\Subscribed ...) "/" {box}/gone', "OK ...")  # fmt: skip


def test_2_with_other_options(client: Lines, box: str) -> None:
    client.ok(f"SUBSCRIBE {box}")
    expect(client, f'LIST (SUBSCRIBED) "" {box} RETURN (CHILDREN STATUS (UIDNEXT))',
           f'* LIST (\\Subscribed \\HasNoChildren) "/" {box}', f"* STATUS {box} (UIDNEXT 5)",
           "OK ...")  # fmt: skip


def test_2_syntax(client: Lines, box: str) -> None:
    for wrong in ("STATUS", "STATUS ()", "STATUS (NOTHING)", "STATUS MESSAGES"):
        expect(client, f'LIST "" {box} RETURN ({wrong})', "BAD ...")
