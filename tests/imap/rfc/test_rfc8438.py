"""RFC 8438: STATUS=SIZE, the octets of all messages of a mailbox."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect, fill, new_mailbox
from support.imap_server import MESSAGE, ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY


def size(client: Lines, name: str) -> int:
    (answer,) = client.ok(f"STATUS {name} (SIZE)")
    return int(answer.rpartition(b" ")[2][:-1])


# --- 2 STATUS=SIZE --------------------------------------------------------------------------------


def test_2_sum_of_the_sizes_that_fetch_says(client: Lines, box: str) -> None:
    assert b" STATUS=SIZE" in client.ok("CAPABILITY")[0]
    fill(client, box, b"Subject: x\n\nbare\nends\n", b"a:")
    client.ok("NOOP")
    answers = client.ok("FETCH 1:* RFC822.SIZE")
    sizes = [int(one.rpartition(b" ")[2][:-1]) for one in answers if b" FETCH " in one]
    assert len(sizes) == 6
    assert size(client, box) == sum(sizes)


def test_2_after_every_change(server: ImapServer, client: Lines, box: str) -> None:
    target, one = new_mailbox(client), len(MESSAGE)
    assert size(client, target) == 0
    client.ok(f"COPY 1:2 {target}")
    client.ok(f"MOVE 3 {target}")
    assert (size(client, box), size(client, target)) == (3 * one, 3 * one)
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client.ok("EXPUNGE")
    assert size(client, box) == 2 * one


def test_2_in_list(client: Lines, box: str) -> None:
    expect(client, f'LIST "" {box} RETURN (STATUS (SIZE))', "* LIST ...",
           f"* STATUS {box} (SIZE {4 * len(MESSAGE)})", "OK ...")  # fmt: skip
