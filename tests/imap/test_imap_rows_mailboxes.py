"""imap.max-folders, max-name-depth and max-keywords: what clients may make, and what is never lost.

Rules of this file: limits are small. Several sessions of an account are bounded together.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.imap_server import MESSAGE, Lines, serve_imap

LITERAL = b"{%d+}\r\n%b" % (len(MESSAGE), MESSAGE)
NO_FOLDERS = {f"folders.{use}": None for use in ("drafts", "sent", "junk", "trash", "archive")}

TOO_MANY = b"NO [LIMIT] Too many mailboxes; at most 3 are allowed"
SUBSCRIPTIONS = b"NO [LIMIT] Too many subscriptions; at most 3 are allowed"
TOO_DEEP = b"NO [LIMIT] Mailbox name is too deep; at most 2 levels are allowed"
KEYWORDS = b"NO [LIMIT] Too many keywords; a mailbox may have 2"


def served(tmp_path: Path, **options: Any) -> Any:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return serve_imap(tmp_path, options={**NO_FOLDERS, **named})


def mailboxes(client: Lines) -> set[bytes]:
    return {line.rpartition(b" ")[2] for line in client.ok('LIST "" *')}


def test_max_folders(tmp_path: Path) -> None:
    with served(tmp_path, max_folders=3) as server:
        client = server.lines()
        client.ok("CREATE a")
        client.ok("CREATE b")
        assert client.say("CREATE c") == [TOO_MANY]
        # One that is there is no other one.
        assert client.say("CREATE b")[-1].startswith(b"NO [ALREADYEXISTS] ")
        client.ok("RENAME b c")
        assert client.say("RENAME INBOX d")[-1] == TOO_MANY
        client.ok("DELETE a")
        client.ok("CREATE d")
        assert mailboxes(client) == {b"INBOX", b"c", b"d"}


def test_subscriptions_are_bounded_too(tmp_path: Path) -> None:
    """They need no mailbox."""
    with served(tmp_path, max_folders=3) as server:
        client = server.lines()
        client.ok("SUBSCRIBE x")
        client.ok("SUBSCRIBE y")
        client.ok("CREATE a")
        assert client.say("SUBSCRIBE z") == [SUBSCRIPTIONS]
        client.ok("SUBSCRIBE y")  # one that is there is no other one
        for name in ("b", "c"):
            client.ok(f"CREATE {name}")
            client.ok(f"DELETE {name}")
        client.ok("RENAME a d")
        assert client.ok('LSUB "" *') == [b'* LSUB () "/" %c' % c for c in b"axy"]
        client.ok("UNSUBSCRIBE x")
        client.ok("SUBSCRIBE z")


def test_sessions_that_make_folders_at_once(tmp_path: Path) -> None:
    with served(tmp_path, max_folders=3) as server, ThreadPoolExecutor(8) as pool:
        clients = [server.lines() for _ in range(8)]
        found = list(pool.map(lambda it: it[1].say(f"CREATE f{it[0]}")[-1], enumerate(clients)))
        assert sorted(one == TOO_MANY for one in found) == [False] * 2 + [True] * 6


def test_a_mailbox_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    """RFC 5819 2: the other ones, and their STATUS, are too."""
    with served(tmp_path) as server:
        client = server.lines()
        client.ok("CREATE bad")
        client.ok("CREATE good")
        (server.root / ".bad" / "new").rmdir()
        (server.root / ".bad" / "new").write_text("")
        said = client.ok('LIST "" "*d" RETURN (STATUS (MESSAGES))')
        assert [line.split()[1:] for line in said] == [
            [b"LIST", rb"(\HasNoChildren)", b'"/"', b"bad"],
            [b"LIST", rb"(\HasNoChildren)", b'"/"', b"good"],
            [b"STATUS", b"good", b"(MESSAGES", b"0)"],
        ]


def test_max_name_depth(tmp_path: Path) -> None:
    with served(tmp_path, max_name_depth=2) as server:
        client = server.lines()
        client.ok("CREATE a/b")
        assert client.say("CREATE a/b/c") == [TOO_DEEP]
        client.ok("CREATE x")
        assert client.say("RENAME x a/b/x") == [TOO_DEEP]
        # Those below come along.
        assert client.say("RENAME a x/a") == [TOO_DEEP]
        client.ok("RENAME x a/x")
        assert mailboxes(client) >= {b"a/b", b"a/x"}


def test_folders_of_other_programs_are_listed(tmp_path: Path) -> None:
    for name in ("cur", "new", "tmp"):
        (tmp_path / "mail" / "alice@example.org" / ".a.b.c" / name).mkdir(parents=True)
    with served(tmp_path, max_folders=1, max_name_depth=1) as server:
        client = server.lines()
        assert b"a/b/c" in mailboxes(client)
        client.ok("SELECT a/b/c")


@pytest.mark.parametrize(
    "third",
    [
        b"STORE 1 +FLAGS (three)",
        b"STORE 1 FLAGS (one three)",
        b"UID STORE 1 +FLAGS.SILENT (three)",
        b"APPEND INBOX (three) " + LITERAL,
        b"APPEND INBOX (one) " + LITERAL + b" (three) " + LITERAL,
    ],
)
def test_max_keywords(tmp_path: Path, third: bytes) -> None:
    with served(tmp_path, max_keywords=2) as server:
        server.deliver()
        client = server.lines("INBOX")
        client.ok("STORE 1 +FLAGS (one)")
        client.ok(b"APPEND INBOX (Two) " + LITERAL)
        assert client.say(third)[-1] == KEYWORDS
        # Nothing has been stored, and those that are there can be used.
        assert client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 2)"]
        client.ok("STORE 1 +FLAGS (ONE two)")
        client.ok("STORE 1 -FLAGS (three)")
        assert list((server.root / "tmp").iterdir()) == []


def test_keywords_of_copies(tmp_path: Path) -> None:
    with served(tmp_path, max_keywords=2) as server:
        server.deliver()
        client = server.lines("INBOX")
        client.ok("STORE 1 +FLAGS (one two)")
        client.ok("CREATE other")
        client.ok(b"APPEND other (three) " + LITERAL)
        assert client.say("COPY 1 other")[-1] == KEYWORDS
        # Moved messages keep theirs.
        client.ok("MOVE 1 other")
        client.ok("SELECT other")
        flags = b" ".join(client.ok("FETCH 1:* FLAGS"))
        assert all(name in flags for name in (b"one", b"two", b"three"))


def test_no_limits(tmp_path: Path) -> None:
    with served(tmp_path, max_folders=None, max_name_depth=None, max_keywords=None) as server:
        server.deliver()
        client = server.lines("INBOX")
        client.ok("CREATE " + "/".join("a" * 50))
        client.ok(f"STORE 1 +FLAGS ({' '.join(f'k{number}' for number in range(200))})")


@pytest.mark.parametrize("keywords", [2, None])
def test_long_keywords(tmp_path: Path, keywords: int | None) -> None:
    """Each message holds its own, so that the index would grow whatever the quota."""
    longest, longer = "k" * 100, "k" * 101
    refused = b"NO [LIMIT] Keyword is too long; it may have 100 characters"
    with served(tmp_path, max_keywords=keywords) as server:
        server.deliver()
        client = server.lines("INBOX")
        client.ok(f"STORE 1 +FLAGS ({longest})")
        assert client.say(f"STORE 1 +FLAGS ({longer})")[-1] == refused
        assert client.say(f"APPEND INBOX ({longer}) ".encode() + LITERAL)[-1] == refused
        (said,) = client.ok("FETCH 1:* FLAGS")
        assert f"({longest} " in said.decode()
        assert longer not in said.decode()
        # That nobody has it is no reason to refuse that it goes.
        client.ok(f"STORE 1 -FLAGS ({longer})")
