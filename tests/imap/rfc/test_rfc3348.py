"""RFC 3348: CHILDREN, attributes of LIST that say whether there are mailboxes below one."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY

# --- 3 Requirements -------------------------------------------------------------------------------


def test_3_list_says_one_of_both(client: Lines, box: str) -> None:
    assert b" CHILDREN" in client.ok("CAPABILITY")[0]
    expect(client, f'LIST "" {box}', f'* LIST (\\HasNoChildren) "/" {box}', "OK ...")
    client.ok(f"CREATE {box}/below")
    expect(client, f'LIST "" {box}*', f'* LIST (\\HasChildren) "/" {box}',
           f'* LIST (\\HasNoChildren) "/" {box}/below', "OK ...")  # fmt: skip
    client.ok(f"DELETE {box}/below")
    expect(client, f'LIST "" {box}', f'* LIST (\\HasNoChildren) "/" {box}', "OK ...")


def test_3_a_name_that_only_begins_alike_is_no_child(client: Lines, box: str) -> None:
    client.ok(f"CREATE {box}x")
    client.ok(f"CREATE {box}-y/z")
    expect(client, f'LIST "" {box}', f'* LIST (\\HasNoChildren) "/" {box}', "OK ...")
