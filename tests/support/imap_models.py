"""Models of clients that change one mailbox at once: what each is told is right at every moment.

Rules of this file: a client keeps what the RFCs let it know: how many messages there are, which UID
each number has, flags, and with CONDSTORE modification sequences. A response that contradicts that
fails the test. Clients go away without a word and come back with what they remember.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from support.imap_server import Lines

__all__ = ["KINDS", "Model", "agree", "play"]

#: What clients use: nothing, CONDSTORE, QRESYNC.
KINDS = ("plain", "CONDSTORE", "QRESYNC")


class Model:
    """A client, and what it knows of the mailbox.

    Args:
        connect: returns a session that has logged in.
        kind: one of `KINDS`.

    Attributes:
        uids: of the messages by number; None where it is not known.
        flags: what they have, by UID.
        modseqs: the same with CONDSTORE.
        modseq: up to where the client knows everything (RFC 7162 3.2.5).
        returned: how often it has come back.
    """

    def __init__(self, connect: Callable[[], Lines], kind: str) -> None:
        self.connect = connect
        self.kind = kind
        self.items = "FLAGS" if kind == "plain" else "FLAGS MODSEQ"
        self.flags: dict[int, frozenset[bytes]] = {}
        self.modseqs: dict[int, int] = {}
        self.uidvalidity = self.modseq = 0
        self.returned = 0
        self.command = ""
        self.begin()
        self.take(self.client.ok("SELECT INBOX"))
        self.learn()

    def begin(self) -> None:
        """Connect; nothing is known of numbers."""
        self.client = self.connect()
        self.uids: list[int | None] = []
        self.may_expunge = True
        self.seen = 0  # the highest MODSEQ of a response
        if self.kind != "plain":
            self.client.ok(f"ENABLE {self.kind}")

    def learn(self) -> None:
        """Ask for everything; of an empty mailbox there is none (RFC 3501 9, seq-number)."""
        if self.uids:
            self.command = f"FETCH 1:* (UID {self.items})"
            self.take(self.client.ok(self.command))
        self.done()

    # --- what is told -------------------------------------------------------------------------

    def take(self, answers: Sequence[bytes]) -> None:
        """Note what the server says; fail if it cannot be."""
        for answer in answers:
            if match := re.fullmatch(rb"\* (\d+) EXISTS", answer):
                assert int(match[1]) >= len(self.uids)
                self.uids += [None] * (int(match[1]) - len(self.uids))
            elif match := re.fullmatch(rb"\* (\d+) EXPUNGE", answer):
                assert self.may_expunge
                assert self.kind != "QRESYNC"
                self.forget(self.uids.pop(int(match[1]) - 1))
            elif match := re.fullmatch(rb"\* VANISHED (\(EARLIER\) )?([0-9:,]+)", answer):
                assert self.kind == "QRESYNC"
                assert self.may_expunge or match[1]
                for uid in numbers(match[2]):
                    self.vanished(uid, earlier=bool(match[1]))
            elif match := re.match(rb"\* (\d+) FETCH \((.*)\)\Z", answer, re.DOTALL):
                self.fetched(int(match[1]), match[2])
            elif match := re.search(rb"\[UIDVALIDITY (\d+)\]", answer):
                self.uidvalidity = int(match[1])
            if (match := re.search(rb"\[HIGHESTMODSEQ (\d+)\]", answer)) and answer[:1] == b"*":
                self.seen = max(self.seen, int(match[1]))

    def done(self) -> None:
        """Note that a command is done: if messages may be gone, all has been told up to here.

        A client has to ask for what has come, before it knows that.
        """
        if self.may_expunge and all(uid in self.flags for uid in self.uids):
            self.modseq = max(self.modseq, self.seen)

    def forget(self, uid: int | None) -> None:
        self.flags.pop(uid or 0, None)
        self.modseqs.pop(uid or 0, None)

    def vanished(self, uid: int, *, earlier: bool) -> None:
        self.forget(uid)
        if earlier:
            assert uid not in self.uids
        elif uid in self.uids:
            self.uids.remove(uid)
        else:
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
        uid = re.search(rb"UID (\d+)", items)
        modseq = re.search(rb"MODSEQ \((\d+)\)", items)
        flags = re.search(rb"FLAGS \(([^)]*)\)", items)
        if "FETCH" not in self.command:  # RFC 7162 3.1 and 3.2.4
            assert modseq or self.kind == "plain", items
            assert uid or self.kind != "QRESYNC", items
        if uid:
            assert known in (None, int(uid[1]))
            assert int(uid[1]) not in self.uids[: number - 1] + self.uids[number:]
            self.uids[number - 1] = known = int(uid[1])
        if known is None:
            return
        if modseq:
            assert int(modseq[1]) >= self.modseqs.get(known, 0)
            self.modseqs[known] = int(modseq[1])
            self.seen = max(self.seen, int(modseq[1]))
        if flags:
            self.flags[known] = frozenset(flags[1].split()) - {b"\\Recent"}

    # --- what is done -------------------------------------------------------------------------

    def choose(self, rng: random.Random) -> bytes:
        """Return something to do, and note whether messages may be said to be gone meanwhile."""
        number = rng.randint(1, max(1, len(self.uids)))
        since = self.modseq
        commands = [
            "NOOP", "NOOP", "CHECK", "EXPUNGE", f"FETCH {number}:* (UID {self.items})",
            f"UID FETCH 1:* ({self.items})", f"FETCH {number} (UID BODY[TEXT])", "SEARCH ALL",
            "UID SEARCH UNSEEN", f"STORE {number} +FLAGS (\\Deleted)",
            f"STORE {number} -FLAGS (\\Seen)", f"UID STORE {number} +FLAGS ($Key)",
            f"STORE {number}:* -FLAGS (\\Deleted)", f"UID EXPUNGE {number}:*",
            f"COPY {number} INBOX", f"MOVE {number} INBOX", f"UID MOVE {number} INBOX",
        ]  # fmt: skip
        if self.kind != "plain":
            commands += [
                f"FETCH 1:* (UID FLAGS) (CHANGEDSINCE {since})", f"SEARCH MODSEQ {since}",
                f"STORE {number} (UNCHANGEDSINCE {since}) +FLAGS (\\Answered)",
            ]  # fmt: skip
        if self.kind == "QRESYNC":
            commands.append(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since} VANISHED)")
        self.command = rng.choice(commands if self.uids else ["NOOP"])
        self.may_expunge = not self.command.startswith(("FETCH", "STORE", "SEARCH"))
        return self.command.encode()

    def come_back(self) -> None:
        """Lose the connection; connect again, and catch up as a client does that has a cache."""
        self.client.close()
        self.begin()
        self.returned += 1
        self.command = "SELECT"
        if self.kind == "plain":
            self.flags.clear()
            self.take(self.client.ok("SELECT INBOX"))
            return self.learn()
        if self.kind == "QRESYNC":
            known = f"(QRESYNC ({self.uidvalidity} {self.modseq}))"
            self.command = "FETCH"
            self.take(self.client.ok(f"SELECT INBOX {known}"))
        else:
            self.take(self.client.ok("SELECT INBOX"))
            (there,) = self.client.ok("UID SEARCH ALL")
            uids = [int(one) for one in there.split()[2:]]
            for gone in self.flags.keys() - set(uids):
                self.forget(gone)
            self.command = "FETCH"
            changed = f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {self.modseq})"
            self.take(self.client.ok(changed))
        self.done()
        flags, modseqs = self.flags.copy(), self.modseqs.copy()
        self.learn()
        differ = flags.items() ^ self.flags.items()
        assert not differ, (differ, self.kind, self.modseq, modseqs)
        assert modseqs.items() <= self.modseqs.items()
        return None


def numbers(text: bytes) -> list[int]:
    """Return the UIDs of a set."""
    found: list[int] = []
    for item in text.split(b","):
        first, _, last = item.partition(b":")
        found += range(int(first), int(last or first) + 1)
    return found


def play(
    models: Sequence[Model], rounds: int, rng: random.Random, deliver: Callable[[], object]
) -> None:
    """Let all clients do something at once, again and again."""
    for count in range(rounds):
        tag = b"m%d" % count
        for one in models:
            one.client.send(b"%b %b\r\n" % (tag, one.choose(rng)))
        if rng.random() < 0.3:
            deliver()
        for one in models:
            *untagged, tagged = one.client.answers(tag)
            assert tagged.startswith((b"OK ", b"NO [EXPUNGEISSUED]")), (one.command, tagged)
            one.take(untagged)
            one.done()
        if rng.random() < 0.1:
            rng.choice(models).come_back()


def agree(models: Sequence[Model]) -> None:
    """Fail if a client knows something else than the others, or than the server."""
    for _ in range(2):  # what one has been told of, another may have done by being told
        for one in models:
            one.may_expunge, one.command = True, "NOOP"
            one.take(one.client.ok("NOOP"))
            one.done()
    for one in models:
        flags = {uid: flags for uid, flags in one.flags.items() if uid in one.uids}
        modseqs = {uid: modseq for uid, modseq in one.modseqs.items() if uid in one.uids}
        one.learn()
        assert None not in one.uids
        assert flags.items() <= one.flags.items()
        assert modseqs.items() <= one.modseqs.items()
    for one in models[1:]:
        assert one.uids == models[0].uids
        assert one.flags == models[0].flags
    for one in models:
        one.come_back()
