"""The same dialogues with Dovecot and with us, on copies of one Maildir: the answers are the same.

Rules of this file: two sessions of each server, so that what they tell each other is compared too.
Numbers that servers choose, texts for people and the order of what the RFCs leave unordered are
normalised (`normal`). Commands that are answered otherwise on purpose are left out here and tested
elsewhere:

    SENTBEFORE           a message without Date was not sent on any day; Dovecot takes 1970
    BODY[9] and the like sections that are not there are NIL (RFC 3501 6.4.5); empty in Dovecot
    STORE after EXAMINE  NO (RFC 3501 6.3.2: no changes); OK, but nothing is done, in Dovecot
    CREATE               subscribes, so that clients show it
    SEARCH KEYWORD       of an unknown keyword makes it known in Dovecot
    numbers of messages  that others have expunged: what can be answered of them is up to a server
                         (RFC 2180 4)
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.dovecot_imap import DOVECOT_IMAP
from support.environment import own_environment
from support.imap_server import ADDRESS, Lines, serve_imap
from support.marks import external
from support.other_user import NOBODY, user_directory

MULTIPART = (
    b"From: Foo Bar <a@b>\r\nSubject: outer\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=out\r\n\r\npreamble\r\n"
    b"--out\r\nContent-Type: text/plain\r\n\r\nfirst part\r\n"
    b"--out\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner\r\n\r\n--out--\r\n"
)
MESSAGES = (
    b"From: a@b\r\nSubject: x\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\r\nbody\r\n",
    MULTIPART,
    b"From: a@b\nSubject: lf\nDate: Mon, 5 Jan 2026 10:00:00 +0100\n\nbody\n.\n",
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Tue, 3 Feb 2026 23:30:00 -0500\r\n"
    b"Message-ID: <x@y>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nm\xc3\xa4rchen\r\n",
    b"\r\n",
    b"Subject: nul\r\n\r\na\0b\r\n",
    b"Subject: long\r\n\r\n" + b"0123456789abcdef\r\n" * 10_000,
    b"Subject: last\r\n\r\n",
)

DIALOGUES: dict[str, Sequence[tuple[int, str | bytes]]] = {
    "fetch": [
        (0, f"FETCH 1:* {items}")
        for items in (
            "(FLAGS UID)", "(RFC822.SIZE INTERNALDATE)", "ENVELOPE", "BODY", "BODYSTRUCTURE",
            "ALL", "FAST", "FULL", "BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]",
            "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]", "BODY.PEEK[HEADER.FIELDS.NOT (SUBJECT)]",
            "BODY.PEEK[1]", "RFC822.HEADER", "BODY.PEEK[]<3.10>", "BODY.PEEK[TEXT]<5000000.10>",
        )
    ] + [
        (0, f"FETCH 2 BODY.PEEK[{section}]")
        for section in (
            "1", "2", "1.MIME", "2.MIME", "2.HEADER", "2.TEXT", "2.1", "2.HEADER.FIELDS (SUBJECT)",
        )
    ] + [
        (0, "FETCH 99 FLAGS"), (0, "FETCH 1:99 FLAGS"), (0, "UID FETCH 99 FLAGS"),
        (0, "UID FETCH 99:* FLAGS"), (0, "FETCH * UID"), (0, "FETCH 0 UID"), (0, "FETCH 1 NONE"),
    ],
    "flags": [
        (0, "FETCH 2 BODY[TEXT]"), (1, "NOOP"), (0, "FETCH 3 (FLAGS RFC822)"), (1, "NOOP"),
        (0, "STORE 1 +FLAGS (\\Seen $Foo)"), (1, "NOOP"), (0, "STORE 1 FLAGS.SILENT (\\Draft)"),
        (1, "NOOP"), (0, "UID STORE 1 -FLAGS (\\Draft)"), (1, "NOOP"),
        (0, "STORE 99 +FLAGS (\\Seen)"), (0, "UID STORE 99 +FLAGS (\\Seen)"), (0, "SEARCH SEEN"),
        (0, "STORE 1 +FLAGS (\\Recent)"), (0, "STORE 1 +FLAGS (\\Nonsense)"),
    ],
    "search": [
        (0, f"SEARCH {keys}")
        for keys in (
            "ALL", "UNSEEN", "SUBJECT x", "FROM a@b", "FROM foo", "BODY body", "TEXT from",
            "NOT 1:3", "99", "3:99", "UID 99", "UID 99:*", "SENTSINCE 1-Jan-2026",
            "SENTON 3-Feb-2026", "SINCE 20-Nov-2023", "BEFORE 20-Nov-2023", "ON 16-Nov-2023",
            'HEADER Message-ID ""', 'HEADER Subject ""', "LARGER 100", "SMALLER 50", "OLD",
            "RECENT", "NEW", "OR SEEN SUBJECT x", "NOT (SUBJECT x OR 1 2)", "BODY inner",
            "TEXT inner", "CHARSET UTF-8 SUBJECT gr", "CHARSET NONE SUBJECT x", "NONSENSE",
            "RETURN (MIN MAX COUNT ALL) UNSEEN", "RETURN () ALL", "RETURN (SAVE) 2:4", "$",
            "RETURN (COUNT) SUBJECT nononono",
        )
    ] + [(0, b"SEARCH CHARSET UTF-8 BODY {8+}\r\nm\xc3\xa4rchen"), (0, "UID SEARCH RETURN () 2:3")],
    "mailboxes": [
        (0, "CREATE Work"), (0, "CREATE Work"), (0, "CREATE a/b/c"), (0, 'LIST "" *'),
        (0, 'LIST "" %'), (0, 'LIST "" ""'), (0, 'LIST a/ %'), (0, 'LIST "" a/%'),
        (0, "SUBSCRIBE Work"), (0, "SUBSCRIBE a/b/c"), (0, 'LSUB "" *'), (0, 'LSUB "" %'),
        (0, 'LIST "" * RETURN (SUBSCRIBED CHILDREN)'),
        (0, "STATUS Work (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)"),
        (0, "STATUS nowhere (MESSAGES)"), (0, "RENAME Work Play"), (0, 'LIST "" P*'),
        (0, "RENAME nowhere x"), (0, "DELETE nowhere"), (0, "DELETE INBOX"), (0, "DELETE a/b/c"),
        (0, 'LIST "" *'), (0, "SELECT nowhere"), (0, "FETCH 1 FLAGS"), (0, "NAMESPACE"),
    ],
    "moving": [
        (0, "CREATE Work"), (0, "COPY 1:3 Work"), (0, "COPY 1 nowhere"), (0, "UID COPY 99 Work"),
        (0, "MOVE 5 Work"), (1, "NOOP"), (0, "UID MOVE 99 Work"),
        (0, "STATUS Work (MESSAGES UNSEEN)"), (0, "STORE 2,4 +FLAGS (\\Deleted)"), (1, "NOOP"),
        (0, "UID EXPUNGE 2"), (1, "UID FETCH 1 UID"), (0, "EXPUNGE"), (1, "NOOP"), (0, "EXPUNGE"),
        (0, b'APPEND INBOX (\\Seen) "01-Feb-2026 10:00:00 +0100" {14+}\r\nSubject: x\r\n\r\n'),
        (0, "UID FETCH 9 (FLAGS INTERNALDATE)"), (0, b"APPEND nowhere {3+}\r\nabc"),
        (0, "CLOSE"), (0, "CLOSE"), (0, "EXAMINE Work"), (0, "UNSELECT"),
    ],
    "condstore": [
        (0, "ENABLE CONDSTORE"), (0, "FETCH 1:3 (FLAGS MODSEQ)"),
        (0, "STORE 1 +FLAGS (\\Flagged)"), (0, "STORE 1 +FLAGS.SILENT (\\Seen)"),
        (0, "STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Draft)"), (0, "FETCH 1 (FLAGS MODSEQ)"),
        (0, "UID STORE 2 +FLAGS.SILENT (\\Seen)"), (0, "SEARCH MODSEQ 1"), (1, "NOOP"),
    ],
    "qresync": [
        (0, "ENABLE QRESYNC"), (0, "SELECT INBOX"), (0, "STORE 2:3 +FLAGS.SILENT (\\Deleted)"),
        (0, "EXPUNGE"), (0, "UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)"),
        (1, "NOOP"), (1, "STORE 1 +FLAGS (\\Deleted)"), (0, "NOOP"),
        (0, "SELECT INBOX (QRESYNC (1 1))"),
    ],
}  # fmt: skip

#: What we say and Dovecot's version in Debian does not: other extensions, and codes of RFC 5530.
_OURS = re.compile(rb"\* OK \[(MAILBOXID|HIGHESTMODSEQ) ")


def normal(answers: list[bytes]) -> list[Any]:
    """Return answers in a form in which those of both servers are the same."""
    found: list[Any] = []
    gone: list[int] = []
    for answer in answers:
        if match := re.fullmatch(rb"\* ([0-9]+) EXPUNGE", answer):
            # In any order, and each number counts after those before are gone.
            number = int(match[1])
            for one in sorted(gone):
                number += one <= number
            gone.append(number)
            continue
        line = re.sub(rb"(UIDVALIDITY|HIGHESTMODSEQ|APPENDUID|COPYUID) [0-9]+", rb"\1 N", answer)
        line = re.sub(rb"MODSEQ (\(?)[0-9]+", rb"MODSEQ \1N", line)
        line = re.sub(rb'\(TAG "[^"]*"\)', b"", line)
        line = line.replace(b'INTERNALDATE " ', b'INTERNALDATE "0')  # both are in the grammar
        line = re.sub(rb'\{5\}\r\na"b\\c', rb'"a\\"b\\\\c"', line)
        if _OURS.match(answer):
            continue
        if match := re.match(
            rb"(\* )?(OK|NO|BAD)( \[[A-Z]+UID N [^\]]*\]| \[READ-[A-Z]+\])?", line
        ):
            found.append(match[0])
        elif match := re.fullmatch(rb"(\* FLAGS) \((.*)\)", line):
            found.append(b"* FLAGS")  # Dovecot remembers keywords that no message has
        elif match := re.match(rb"(\* [0-9]+ FETCH) \((.*)\)\Z", line, re.DOTALL):
            found.append((match[1], items(match[2])))
        elif match := re.fullmatch(rb"\* STATUS (\S+) \((.*)\)", line):
            found.append((match[1], set(re.findall(rb"[A-Z]+ \w+", match[2]))))
        else:
            found.append(line)
    if gone:
        found.insert(0, ("EXPUNGE", sorted(gone)))
    # LIST and LSUB are in no order.
    if found and all(isinstance(one, bytes) and b'"/"' in one for one in found[:-1]):
        found[:-1] = sorted(found[:-1])
    return found


_ITEM = re.compile(rb"(FLAGS) \(([^)]*)\) ?|(UID) ([0-9]+) ?|(MODSEQ) \(N\) ?")


def items(text: bytes) -> tuple[Any, ...]:
    """Return FETCH's items, with those apart that servers may put anywhere."""
    anywhere = []
    for part in _ITEM.finditer(text[: text.find(b"{")] if b"{" in text else text):
        if part[1]:
            anywhere.append((b"FLAGS", frozenset(part[2].split())))
        elif part[3]:
            anywhere.append((b"UID", frozenset({part[4]})))
    if match := re.search(rb" FLAGS \(([^)]*)\)\Z", text):
        anywhere.append((b"FLAGS", frozenset(match[1].split())))
        text = text[: match.start()]
    head, brace, tail = text.partition(b"{")
    return frozenset(anywhere), _ITEM.sub(b"", head).strip() + brace + tail


class Dovecot(Lines):
    """A session of Dovecot's IMAP process, which has logged in."""

    def __init__(self, configuration: Path) -> None:
        environment = {**own_environment(), "USER": "test", "HOME": str(configuration.parent)}
        self.process = subprocess.Popen(
            [DOVECOT_IMAP, "-c", str(configuration)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.stream = self.process.stdout  # type: ignore[assignment]
        self.count = 0
        self.greeting = self.response()

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.stream.close()


def fill(root: Path) -> None:
    """Put the messages into a Maildir that is new."""
    for name in ("cur", "new", "tmp"):
        (root / name).mkdir(parents=True)
    for number, message in enumerate(MESSAGES):
        path = root / "new" / f"{1_700_000_000 + number}.M{number}P1.host"
        path.write_bytes(message)
        when = 1_700_000_000 + number * 90_000
        os.utime(path, (when, when))


@pytest.fixture
def dovecot() -> Iterator[Callable[[], Dovecot]]:
    sessions: list[Dovecot] = []
    with user_directory() as directory:
        mail = directory / "mail"
        fill(mail)
        user, group = os.geteuid(), os.getegid()
        if user == 0:
            user, group = NOBODY.pw_uid, NOBODY.pw_gid
            for path in (mail, *mail.rglob("*")):
                os.chown(path, user, group)
        configuration = directory / "dovecot.conf"
        configuration.write_text(
            f"mail_location = maildir:{mail}\nmail_uid = {user}\nmail_gid = {group}\n"
            "first_valid_uid = 1\nfirst_valid_gid = 1\nssl = no\nlog_path = /dev/null\n"
            f"base_dir = {directory}/run\nstate_dir = {directory}/state\n"
            "namespace inbox {\n inbox = yes\n separator = /\n}\n"
        )

        def session() -> Dovecot:
            sessions.append(Dovecot(configuration))
            return sessions[-1]

        try:
            yield session
        finally:
            for one in sessions:
                one.close()


@external(DOVECOT_IMAP)
@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogue(tmp_path: Path, dovecot: Callable[[], Dovecot], name: str) -> None:
    fill(tmp_path / "mail" / ADDRESS)
    with serve_imap(tmp_path) as server:
        ours, theirs = [server.lines(), server.lines()], [dovecot(), dovecot()]
        for one, other in zip(ours, theirs, strict=True):
            one.ok("SELECT INBOX")
            other.ok("SELECT INBOX")
        for who, command in DIALOGUES[name]:
            answer, right = ours[who].say(command), theirs[who].say(command)
            assert normal(answer) == normal(right), (command, answer, right)
