"""QUOTA (RFC 9208): what the commands say, and what does not fit.

Rules of this file: section numbers are those of the RFC. The server's quota is changed while
sessions are open, as a reload does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, ImapServer, Lines, serve_imap
from support.mail_store import deliver
from support.waiting import until

from fastlisten.mail.accounts.quota import Quota

FULL = b"NO [OVERQUOTA] Quota exceeded (mailbox for user is full)"

SIZE = len(MESSAGE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImapServer]:
    with serve_imap(tmp_path_factory.mktemp("quota")) as server:
        yield server


@pytest.fixture
def client(shared: ImapServer) -> Iterator[Lines]:
    """A client whose account has two messages."""
    limit(shared)
    client = shared.lines("INBOX")
    client.ok("UID STORE 1:* +FLAGS.SILENT (\\Deleted)")
    client.ok("EXPUNGE")
    if client.ok('LIST "" Work'):
        client.ok("DELETE Work")
    client.ok("CREATE Work")
    client.ok(b"APPEND INBOX " + literal())
    client.ok(b"APPEND INBOX " + literal())
    yield client
    client.close()


def limit(server: ImapServer, size: int | None = None, messages: int | None = None) -> None:
    """Change the quota of all accounts."""
    assert server.handler is not None
    server.handler.office.quota = Quota(size, messages)


def literal(data: bytes = MESSAGE) -> bytes:
    return b"{%d+}\r\n%b" % (len(data), data)


def test_capabilities(shared: ImapServer) -> None:  # 3
    client = shared.connect()
    (before,) = client.ok("CAPABILITY")
    assert b"QUOTA" not in before
    client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
    (after,) = client.ok("CAPABILITY")
    names = after.split()
    assert {b"QUOTA", b"QUOTA=RES-STORAGE", b"QUOTA=RES-MESSAGE"} <= set(names)
    assert b"QUOTASET" not in names


def test_get_quota(shared: ImapServer, client: Lines) -> None:  # 4.1.1, 4.2.1, 5.1, 5.2
    limit(shared, 10_000, 7)
    used = -(-2 * SIZE // 1024)
    answer = b'* QUOTA "User quota" (STORAGE %d 10 MESSAGE 2 7)' % used
    assert client.ok('GETQUOTA "User quota"') == [answer]
    client.ok(b"APPEND Work " + literal(b"x" * 5000))
    used = -(-(2 * SIZE + 5000) // 1024)
    answer = b'* QUOTA "User quota" (STORAGE %d 10 MESSAGE 3 7)' % used
    assert client.ok('GETQUOTA "User quota"') == [answer]
    limit(shared, None, 7)
    assert client.ok('GETQUOTA "User quota"') == [b'* QUOTA "User quota" (MESSAGE 3 7)']
    assert client.say('GETQUOTA "other"')[-1].startswith(b"NO [NONEXISTENT] ")
    limit(shared)
    assert client.say('GETQUOTA "User quota"')[-1].startswith(b"NO [NONEXISTENT] ")


def test_get_quota_root(shared: ImapServer, client: Lines) -> None:  # 4.1.2, 4.2.2
    assert client.ok("GETQUOTAROOT INBOX") == [b"* QUOTAROOT INBOX"]
    limit(shared, None, 7)
    for name in (b"INBOX", b"Work"):
        assert client.ok(b"GETQUOTAROOT " + name) == [
            b'* QUOTAROOT %b "User quota"' % name,
            b'* QUOTA "User quota" (MESSAGE 2 7)',
        ]
    assert client.say("GETQUOTAROOT nowhere")[-1].startswith(b"NO [NONEXISTENT] ")


def test_set_quota_is_refused(client: Lines) -> None:  # 4.1.3
    answer = client.say('SETQUOTA "User quota" (STORAGE 512)')[-1]
    assert answer.startswith(b"NO [NOPERM] ")


def test_deleted_storage(shared: ImapServer, client: Lines) -> None:  # 4.1.4
    command = "STATUS INBOX (MESSAGES DELETED DELETED-STORAGE)"
    zero = b"* STATUS INBOX (MESSAGES 2 DELETED 0 DELETED-STORAGE 0)"
    assert client.ok(command) == [zero]
    client.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    one = b"* STATUS INBOX (MESSAGES 2 DELETED 1 DELETED-STORAGE %d)" % SIZE
    assert client.ok(command) == [one]


def test_append_over_quota(shared: ImapServer, client: Lines) -> None:  # 4.3
    limit(shared, 3 * SIZE)
    two = b"APPEND Work " + literal() + b" " + literal()
    assert client.say(two)[-1] == FULL
    assert client.ok("STATUS Work (MESSAGES)") == [b"* STATUS Work (MESSAGES 0)"]
    assert client.say(b"APPEND Work " + literal(MESSAGE + b"x"))[-1] == FULL
    client.ok(b"APPEND Work " + literal())
    assert client.say(b"APPEND INBOX " + literal(b"x"))[-1] == FULL
    assert not list((shared.root / "tmp").iterdir())
    limit(shared, None, 3)
    assert client.say(b"APPEND Work " + literal(b"x"))[-1] == FULL
    limit(shared, None, 4)
    client.ok(b"APPEND Work " + literal(b"x"))


def test_copy_over_quota_and_move_for_free(shared: ImapServer, client: Lines) -> None:  # 4.3
    limit(shared, 3 * SIZE)
    assert client.say("COPY 1:2 Work")[-1] == FULL
    assert client.ok("STATUS Work (MESSAGES)") == [b"* STATUS Work (MESSAGES 0)"]
    client.ok("COPY 1 Work")
    assert client.say("COPY 1 Work")[-1] == FULL
    client.ok("MOVE 1:2 Work")
    assert client.ok("STATUS Work (MESSAGES)") == [b"* STATUS Work (MESSAGES 3)"]
    limit(shared, 1, 1)  # lowered below what there is: moving frees and takes nothing
    other = shared.lines("Work")
    other.ok("MOVE 1 INBOX")
    other.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    limit(shared, 2 * SIZE)
    client.ok(b"APPEND INBOX " + literal())


def test_what_others_put_in_counts(shared: ImapServer, client: Lines) -> None:
    limit(shared, None, 4)
    deliver(str(shared.root / ".Work"))
    foreign = Path(shared.root, ".Work", "cur", "1.foreign:2,S")
    foreign.write_bytes(MESSAGE)
    assert client.ok('GETQUOTA "User quota"') == [b'* QUOTA "User quota" (MESSAGE 4 4)']
    assert client.say(b"APPEND INBOX " + literal())[-1] == FULL


def test_own_quota_in_the_accounts_file(tmp_path: Path) -> None:
    with serve_imap(tmp_path, quota='{ messages = 1, bytes = "1KiB" }') as server:
        limit(server, 5000, 5)
        client = server.lines()
        assert client.ok('GETQUOTA "User quota"') == [
            b'* QUOTA "User quota" (STORAGE 0 1 MESSAGE 0 1)'
        ]
        client.ok(b"APPEND INBOX " + literal())
        assert client.say(b"APPEND INBOX " + literal())[-1] == FULL


def test_messages_on_their_way_do_not_exceed_the_quota(tmp_path: Path) -> None:
    """Until APPEND ends none of its messages is visible, but they are on the disk."""
    message = b"Subject: x\r\n\r\n" + b"x" * 30_000
    with serve_imap(tmp_path, quota='{ bytes = "100kB" }') as server:
        client = server.lines()
        client.send(b"t APPEND INBOX {%d}\r\n" % len(message))
        accepted = 0
        while (said := client.response()).startswith(b"+"):
            accepted += 1
            assert accepted < 10
            client.send(message + b" {%d}\r\n" % len(message))
        assert said == b"t NO [OVERQUOTA] Quota exceeded (mailbox for user is full)"
        assert accepted > 3
        until(lambda: not os.listdir(server.root / "tmp"), "the end of what was staged")
        # A single one, of which only the end is too much.
        longer = b"Subject: x\r\n\r\n" + b"x" * 200_000
        assert client.say(b"APPEND INBOX {%d+}\r\n%b" % (len(longer), longer))[-1] == said[2:]
        client.ok(b"APPEND INBOX {%d+}\r\n%b" % (len(message), message))


def test_number_of_messages_on_their_way(tmp_path: Path) -> None:
    with serve_imap(tmp_path, quota="{ messages = 3 }") as server:
        client = server.lines()
        four = b" {3+}\r\nabc" * 4
        assert client.say(b"APPEND INBOX" + four)[-1].startswith(b"NO [OVERQUOTA] ")
        client.ok(b"APPEND INBOX" + four[: len(four) // 4 * 3])
