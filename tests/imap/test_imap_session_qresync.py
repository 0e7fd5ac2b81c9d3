"""QRESYNC: a client that comes back is told what it has missed (RFC 7162 3.2).

Rules of this file: the client's side is a cache of UIDs and flags, as real ones have; what it knows
in the end must be what is there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, Lines, serve_imap

from fastlisten.mail.store import changes as store_changes


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE] * 6)
        yield served


def numbers(text: bytes) -> set[int]:
    """Return what a set of numbers names."""
    found: set[int] = set()
    for item in text.split(b","):
        first, _, last = item.partition(b":")
        found |= set(range(int(first), int(last or first) + 1))
    return found


class Cache:
    """What a client keeps of a mailbox."""

    def __init__(self) -> None:
        self.uidvalidity = self.modseq = 0
        self.flags: dict[int, bytes] = {}

    def select(self, client: Lines, known: str = "") -> list[bytes]:
        """Select the mailbox, and bring the cache up to date."""
        if self.uidvalidity:
            answers = client.ok(f"SELECT INBOX (QRESYNC ({self.uidvalidity} {self.modseq}{known}))")
        else:
            answers = client.ok("SELECT INBOX") + client.ok("FETCH 1:* (UID FLAGS)")
        self.take(answers)
        return answers

    def take(self, answers: list[bytes]) -> None:
        for answer in answers:
            if match := re.match(rb"\* VANISHED (?:\(EARLIER\) )?([0-9:,]+)\Z", answer):
                for uid in numbers(match[1]):
                    self.flags.pop(uid, None)
            elif match := re.match(rb"\* \d+ FETCH \(UID (\d+) FLAGS \((.*?)\)", answer):
                flags = b" ".join(sorted(set(match[2].split()) - {b"\\Recent"}))
                self.flags[int(match[1])] = flags
            elif match := re.match(rb"\* OK \[UIDVALIDITY (\d+)\]", answer):
                self.uidvalidity = int(match[1])
            elif match := re.match(rb"\* OK \[HIGHESTMODSEQ (\d+)\]", answer):
                self.modseq = int(match[1])


def truth(client: Lines) -> dict[int, bytes]:
    cache = Cache()
    cache.take(client.ok("UID FETCH 1:* FLAGS"))
    return cache.flags


def test_needs_enable(server: ImapServer) -> None:
    client = server.lines()
    assert client.say("SELECT INBOX (QRESYNC (1 1))")[-1].startswith(b"BAD ")
    assert client.ok("ENABLE QRESYNC") == [b"* ENABLED QRESYNC"]
    client.ok("SELECT INBOX (QRESYNC (1 1))")


def test_vanished_instead_of_expunge(server: ImapServer) -> None:
    client, plain = server.lines("INBOX", enable="QRESYNC"), server.lines("INBOX")
    client.ok("STORE 2:3,5 +FLAGS.SILENT (\\Deleted)")
    *untagged, tagged = client.say("EXPUNGE")
    assert untagged == [b"* VANISHED 2:3,5", b"* 3 RECENT"]
    assert tagged.startswith(b"OK [HIGHESTMODSEQ ")
    assert plain.ok("NOOP") == [b"* 2 EXPUNGE", b"* 2 EXPUNGE", b"* 3 EXPUNGE"]
    plain.ok("STORE 1 +FLAGS (\\Seen)")
    (answer,) = client.ok("NOOP")
    assert answer.startswith(b"* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent) MODSEQ (")


def test_resynchronisation(server: ImapServer) -> None:
    client, other = server.lines(enable="QRESYNC"), server.lines("INBOX")
    cache = Cache()
    cache.select(client)
    client.ok("UNSELECT")
    other.ok("STORE 1,3 +FLAGS.SILENT (\\Seen)")
    other.ok("STORE 2,4 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    server.deliver()
    answers = cache.select(client)
    assert b"* VANISHED (EARLIER) 2,4" in answers
    fetched = [answer for answer in answers if b" FETCH " in answer]
    assert [answer[:15] for answer in fetched] == [
        b"* 1 FETCH (UID ", b"* 2 FETCH (UID ", b"* 5 FETCH (UID "
    ]  # fmt: skip
    assert all(b" MODSEQ (" in answer for answer in fetched)
    assert cache.flags == truth(client)
    # Nothing has happened since.
    assert not any(b" FETCH " in a or b"VANISHED" in a for a in cache.select(client))


def test_message_that_came_and_went(server: ImapServer) -> None:
    """A client may have seen it, and not noted the modification sequence of that."""
    client, other = server.lines(enable="QRESYNC"), server.lines("INBOX")
    cache = Cache()
    cache.select(client)
    client.ok("UNSELECT")
    server.deliver(MESSAGE, MESSAGE)
    other.ok("NOOP")
    other.ok("STORE 7 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    assert b"* VANISHED (EARLIER) 7" in cache.select(client)


def test_known_uids(server: ImapServer) -> None:
    client, other = server.lines(enable="QRESYNC"), server.lines("INBOX")
    cache = Cache()
    cache.select(client)
    client.ok("UNSELECT")
    other.ok("STORE 1:3 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    other.ok("STORE 1:3 +FLAGS.SILENT (\\Seen)")
    answers = cache.select(client, " 2:4")
    assert b"* VANISHED (EARLIER) 2:3" in answers
    assert [answer[:13] for answer in answers if b" FETCH " in answer] == [b"* 1 FETCH (UI"]


def test_other_uidvalidity(server: ImapServer) -> None:
    client = server.lines(enable="QRESYNC")
    answers = client.ok("SELECT INBOX (QRESYNC (12345 1))")
    assert not any(b" FETCH " in answer or b"VANISHED" in answer for answer in answers)


def test_fetch_vanished(server: ImapServer) -> None:
    client, other = server.lines("INBOX", enable="QRESYNC"), server.lines("INBOX")
    (status,) = client.ok("STATUS INBOX (HIGHESTMODSEQ)")
    since = int(re.findall(rb"HIGHESTMODSEQ (\d+)", status)[0])
    other.ok("STORE 2,4:5 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    client.ok("NOOP")
    other.ok("STORE 1 +FLAGS.SILENT (\\Seen)")
    client.ok("NOOP")
    answers = client.ok(f"UID FETCH 1:4 (FLAGS) (CHANGEDSINCE {since} VANISHED)")
    assert answers[0] == b"* VANISHED (EARLIER) 2,4"
    assert [answer[:15] for answer in answers[1:]] == [b"* 1 FETCH (UID "]
    # Not before a session has been told.
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    answers = client.ok(f"UID FETCH 1:4 (FLAGS) (CHANGEDSINCE {since} VANISHED)")
    assert answers[0] == b"* VANISHED (EARLIER) 2,4"
    assert answers[-3:-1] == [b"* VANISHED 1", b"* 2 RECENT"]
    assert answers[-1].startswith(b"* OK [HIGHESTMODSEQ ")


def test_too_long_ago(server: ImapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone is no longer known: everything that is not there has vanished."""
    client, other = server.lines(enable="QRESYNC"), server.lines("INBOX")
    cache = Cache()
    cache.select(client)
    client.ok("UNSELECT")
    other.ok("STORE 2,4:5 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    real = store_changes.changes

    def forgetful(index: object, folder: int, since: int) -> object:
        found = real(index, folder, since)  # type: ignore[arg-type]
        return type(found)(
            found.cursor, found.uidnext, found.arrived, found.changed, (), complete=False
        )

    monkeypatch.setattr("fastlisten.mail.store.maildir_folder.changes", forgetful)
    answers = client.ok(f"SELECT INBOX (QRESYNC ({cache.uidvalidity} {cache.modseq}))")
    assert b"* VANISHED (EARLIER) 2,4:5" in answers
    client.ok("UNSELECT")
    answers = client.ok(f"SELECT INBOX (QRESYNC ({cache.uidvalidity} {cache.modseq} 3:4))")
    assert b"* VANISHED (EARLIER) 4" in answers


@pytest.mark.parametrize("seed", range(3))
def test_any_changes(server: ImapServer, seed: int) -> None:
    rng = random.Random(seed)
    client, other = server.lines(enable="QRESYNC"), server.lines("INBOX")
    cache = Cache()
    for _ in range(8):
        cache.select(client)
        assert cache.flags == truth(client)
        for _ in range(rng.randrange(3)):
            cache.take(client.ok("NOOP"))
        client.ok("UNSELECT")
        for _ in range(rng.randrange(6)):
            kind = rng.randrange(4)
            count = len(other.ok("UID FETCH 1:* UID"))
            if kind == 0 or not count:
                server.deliver(*[MESSAGE] * rng.randrange(1, 4))
                other.ok("NOOP")
            elif kind == 1:
                other.ok(f"STORE {rng.randint(1, count)} +FLAGS.SILENT (\\Deleted)")
                other.ok("EXPUNGE")
            else:
                sign, flag = rng.choice("+-"), rng.choice(["\\Seen", "\\Flagged", "$Key"])
                other.ok(f"STORE {rng.randint(1, count)} {sign}FLAGS.SILENT ({flag})")


def test_what_came_while_a_client_was_here_is_not_told_again(server: ImapServer) -> None:
    """It is told HIGHESTMODSEQ, as Dovecot does: interimap would merge old flags with new ones."""
    client, cache = server.lines(enable="QRESYNC"), Cache()
    cache.select(client)
    *_, said = client.ok(b"APPEND INBOX (\\Seen) {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
    assert said.startswith(b"* OK [HIGHESTMODSEQ ")
    cache.take([said])
    # What the client was told with a MODSEQ is not followed by the same number.
    assert len(client.ok("UID STORE 7 +FLAGS (\\Flagged)")) == 1
    assert client.ok("NOOP") == []
    again = server.lines(enable="QRESYNC")
    told = [one for one in cache.select(again) if b" FETCH " in one]
    assert [one.split()[1:5] for one in told] == [[b"7", b"FETCH", b"(UID", b"7"]]
