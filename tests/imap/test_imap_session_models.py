"""Several clients change one mailbox at once; what each has been told is right at every moment.

Rules of this file: each client keeps what RFC 3501 lets it know: how many messages there are, and
which UID each number has. A response that contradicts that fails the test, and in the end all know
the same as the server.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, Lines, serve_imap

CLIENTS = 3
ROUNDS = 60


class Model:
    """A client, and what it knows of the mailbox."""

    def __init__(self, server: ImapServer, number: int) -> None:
        self.client: Lines = server.lines(enable="QRESYNC" if number == 2 else "")
        self.uids: list[int | None] = []
        self.flags: dict[int, frozenset[bytes]] = {}
        self.may_expunge = True
        self.take(self.client.ok("SELECT INBOX"))
        self.take(self.client.ok("FETCH 1:* (UID FLAGS)"))

    def take(self, answers: list[bytes]) -> None:
        """Note what the server says; fail if it cannot be."""
        for answer in answers:
            if match := re.fullmatch(rb"\* (\d+) EXISTS", answer):
                assert int(match[1]) >= len(self.uids)
                self.uids += [None] * (int(match[1]) - len(self.uids))
            elif match := re.fullmatch(rb"\* (\d+) EXPUNGE", answer):
                assert self.may_expunge
                uid = self.uids.pop(int(match[1]) - 1)
                self.flags.pop(uid or 0, None)
            elif match := re.fullmatch(rb"\* VANISHED ([0-9:,]+)", answer):
                assert self.may_expunge
                for item in match[1].split(b","):
                    first, _, last = item.partition(b":")
                    for uid in range(int(first), int(last or first) + 1):
                        self.vanished(uid)
            elif match := re.match(rb"\* (\d+) FETCH \((.*)\)\Z", answer, re.DOTALL):
                self.fetched(int(match[1]), match[2])

    def vanished(self, uid: int) -> None:
        self.flags.pop(uid, None)
        if uid in self.uids:
            self.uids.remove(uid)
            return
        # It is one whose UID is not known; UIDs are ascending.
        place = sum(1 for one in self.uids if one is not None and one < uid)
        while self.uids[place] is not None or any(
            one is not None and one < uid for one in self.uids[place:]
        ):
            place += 1
        del self.uids[place]

    def fetched(self, number: int, items: bytes) -> None:
        assert number <= len(self.uids)
        known = self.uids[number - 1]
        if match := re.search(rb"UID (\d+)", items):
            assert known in (None, int(match[1]))
            self.uids[number - 1] = known = int(match[1])
        if (match := re.search(rb"FLAGS \(([^)]*)\)", items)) and known is not None:
            self.flags[known] = frozenset(match[1].split()) - {b"\\Recent"}

    def command(self, rng: random.Random) -> str:
        """Return something to do, and note whether messages may be said to be gone meanwhile."""
        number = rng.randint(1, max(1, len(self.uids)))
        commands = [
            "NOOP", "NOOP", "CHECK", "EXPUNGE", f"FETCH {number}:* (UID FLAGS)",
            "UID FETCH 1:* FLAGS", f"FETCH {number} (UID BODY[TEXT])", "SEARCH ALL",
            "UID SEARCH UNSEEN", f"STORE {number} +FLAGS (\\Deleted)",
            f"STORE {number} -FLAGS (\\Seen)", f"UID STORE {number} +FLAGS ($Key)",
            f"COPY {number} INBOX", f"MOVE {number} INBOX",
        ]  # fmt: skip
        chosen = rng.choice(commands if self.uids else ["NOOP"])
        self.may_expunge = not chosen.startswith(("FETCH", "STORE", "SEARCH"))
        return chosen


@pytest.mark.parametrize("seed", range(4))
def test_models(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with serve_imap(tmp_path) as server:
        server.deliver(*[MESSAGE] * 12)
        models = [Model(server, number) for number in range(CLIENTS)]
        for count in range(ROUNDS):
            tags = []
            for one in models:
                tags.append(b"m%d" % count)
                one.client.send(b"%b %b\r\n" % (tags[-1], one.command(rng).encode()))
            if rng.random() < 0.3:
                server.deliver()
            for one, tag in zip(models, tags, strict=True):
                *untagged, tagged = one.client.answers(tag)
                assert tagged.startswith((b"OK ", b"NO [EXPUNGEISSUED]")), tagged
                one.take(untagged)
        for one in models:
            one.may_expunge = True
            one.take(one.client.ok("NOOP"))
        for one in models:
            one.take(one.client.ok("NOOP"))
            told = {uid: flags for uid, flags in one.flags.items() if uid in one.uids}
            one.take(one.client.ok("FETCH 1:* (UID FLAGS)"))
            assert None not in one.uids
            assert told.items() <= one.flags.items()
        assert models[0].uids == models[1].uids == models[2].uids
        assert models[0].flags == models[1].flags == models[2].flags
