"""What tests of synchronizers share: mail on two sides, changes on both, and what must come of it.

Rules of this file: no test in it, and nothing that one synchronizer needs. A message is known by
its Subject, because each side numbers messages itself; a mailbox is a dict from that to octets and
flags. The server's mailboxes are read and changed over IMAP, and so may the other side's be;
`LocalMaildir` is a side of files.
"""

from __future__ import annotations

import imaplib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from support.mail_store import deliver

__all__ = ["ImapSide", "LocalMaildir", "Mailbox", "Message", "Side", "changed", "filled", "message"]

#: Of each letter in the name of a file (maildir(5)), the flag.
LETTERS = {"D": "\\Draft", "F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted"}


class Message(NamedTuple):
    """A message as both sides must have it."""

    content: bytes
    flags: frozenset[str]


#: A mailbox, by the subjects of its messages.
Mailbox = dict[str, Message]


def message(subject: str, number: int = 0) -> bytes:
    """Return a message of its own; one in three is multipart, and the sizes differ."""
    head = (
        f"From: Bob <bob@example.com>\r\nTo: alice@example.org\r\nSubject: {subject}\r\n"
        f"Date: Tue, 3 Feb 2026 {number // 60 % 24:02}:{number % 60:02}:00 +0000\r\n"
        f"Message-ID: <{subject}@example.com>\r\nMIME-Version: 1.0\r\n"
    )
    body = f"line {number}\r\n.\r\n..\r\n" * (number % 7 + 1)
    if number % 3:
        return f"{head}Content-Type: text/plain; charset=utf-8\r\n\r\n{body}Grüße\r\n".encode()
    return (
        f"{head}Content-Type: multipart/mixed; boundary=xx\r\n\r\n--xx\r\n\r\n{body}\r\n"
        f"--xx\r\nContent-Type: application/octet-stream\r\n\r\n{body}\r\n--xx--\r\n"
    ).encode()


class Side(Protocol):
    """One of the two sides."""

    def read(self, mailbox: str) -> Mailbox:
        """Return the messages."""

    def add(self, mailbox: str, messages: Mapping[str, Message]) -> None:
        """Put messages into a mailbox, which is made if it is not there."""

    def flag(self, mailbox: str, subjects: Iterable[str], flags: frozenset[str]) -> None:
        """Set the flags of messages."""

    def remove(self, mailbox: str, subjects: Iterable[str]) -> None:
        """Remove messages for good."""


def _subject(content: bytes) -> str:
    found = re.search(rb"(?m)^Subject: (.*?)\r?$", content)
    assert found, content[:200]
    return found[1].decode()


class ImapSide:
    """A side that is a server.

    Args:
        client: a client that has logged in.
        added: the pattern of header fields that the synchronizer adds, which are left out.
    """

    def __init__(self, client: imaplib.IMAP4, added: bytes = b"") -> None:
        self._client = client
        self._added = added

    def _ok(self, answer: tuple[str, Any]) -> Any:
        assert answer[0] == "OK", answer
        return answer[1]

    def _fetched(self, mailbox: str, items: str) -> Iterator[tuple[bytes, bytes]]:
        self._ok(self._client.select(mailbox))
        pieces = self._ok(self._client.uid("FETCH", "1:*", f"({items})"))
        for index, piece in enumerate(pieces):
            if isinstance(piece, tuple):
                yield piece[0] + pieces[index + 1], piece[1]

    def read(self, mailbox: str) -> Mailbox:
        """Return the messages."""
        found: Mailbox = {}
        for head, content in self._fetched(mailbox, "FLAGS BODY.PEEK[]"):
            if self._added:
                content = re.sub(rb"(?m)^(?:%b):.*\r\n" % self._added, b"", content, count=1)
            subject = _subject(content)
            assert subject not in found, f"{subject} is there twice"
            (flags,) = re.findall(rb"FLAGS \(([^)]*)\)", head)
            found[subject] = Message(content, frozenset(flags.decode().split()) - {"\\Recent"})
        return found

    def state(self, *mailboxes: str) -> list[bytes]:
        """Return what STATUS says of mailboxes: it is the same as long as nothing changes."""
        items = "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)"
        return [self._ok(self._client.status(one, items))[0] for one in mailboxes]

    def _uids(self, mailbox: str) -> dict[str, str]:
        found = {}
        for head, content in self._fetched(mailbox, "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"):
            (uid,) = re.findall(rb"UID ([0-9]+)", head)
            found[_subject(content)] = uid.decode()
        return found

    def add(self, mailbox: str, messages: Mapping[str, Message]) -> None:
        """Append messages."""
        if mailbox != "INBOX":
            self._client.create(mailbox)
        for one in messages.values():
            flags = f"({' '.join(sorted(one.flags))})"
            self._ok(self._client.append(mailbox, flags, "", one.content))

    def flag(self, mailbox: str, subjects: Iterable[str], flags: frozenset[str]) -> None:
        """Set the flags of messages."""
        uids = self._uids(mailbox)
        which = ",".join(uids[one] for one in subjects)
        self._ok(self._client.uid("STORE", which, "FLAGS.SILENT", f"({' '.join(sorted(flags))})"))

    def remove(self, mailbox: str, subjects: Iterable[str]) -> None:
        """Remove messages for good."""
        self.flag(mailbox, subjects, frozenset({"\\Deleted"}))
        self._ok(self._client.expunge())


class LocalMaildir:
    """A side of Maildirs, one per mailbox, whose files have a line feed at the end of lines.

    Args:
        root: the directory of them all.
        added: the pattern of header fields that the synchronizer adds, which are left out.
    """

    def __init__(self, root: Path, added: bytes = b"") -> None:
        self._root = root
        self._added = added

    def _files(self, mailbox: str) -> dict[str, Path]:
        found = {}
        for path in (self._root / mailbox).glob("[cn]*/*"):
            subject = _subject(path.read_bytes())
            assert subject not in found, f"{subject} is there twice"
            found[subject] = path
        return found

    def read(self, mailbox: str) -> Mailbox:
        """Return the messages."""
        found: Mailbox = {}
        for subject, path in self._files(mailbox).items():
            content = path.read_bytes().replace(b"\r\n", b"\n")
            if self._added:
                content = re.sub(rb"(?m)^(?:%b):.*\n" % self._added, b"", content, count=1)
            letters = path.name.partition(":2,")[2]
            flags = frozenset(LETTERS[letter] for letter in letters)
            found[subject] = Message(content.replace(b"\n", b"\r\n"), flags)
        return found

    def add(self, mailbox: str, messages: Mapping[str, Message]) -> None:
        """Put messages into files."""
        box = self._root / mailbox
        for one in messages.values():
            name = deliver(str(box), one.content.replace(b"\r\n", b"\n"))
            self._name(box / "new" / name, one.flags)

    def _name(self, path: Path, flags: frozenset[str]) -> None:
        letters = "".join(letter for letter, flag in LETTERS.items() if flag in flags)
        path.rename(path.parent.parent / "cur" / f"{path.name.partition(':')[0]}:2,{letters}")

    def flag(self, mailbox: str, subjects: Iterable[str], flags: frozenset[str]) -> None:
        """Rename the files of messages."""
        files = self._files(mailbox)
        for one in subjects:
            self._name(files[one], flags)

    def remove(self, mailbox: str, subjects: Iterable[str]) -> None:
        """Remove the files of messages."""
        files = self._files(mailbox)
        for one in subjects:
            files[one].unlink()


def filled(side: Side, mailbox: str, prefix: str, count: int) -> Mailbox:
    """Put messages into a mailbox, every other one read; return them."""
    made: Mailbox = {}
    for number in range(count):
        flags = frozenset({"\\Seen"}) if number % 2 else frozenset[str]()
        made[f"{prefix}-{number}"] = Message(message(f"{prefix}-{number}", number), flags)
    side.add(mailbox, made)
    return made


def changed(side: Side, mailbox: str, known: Mailbox, turn: int, prefix: str) -> None:
    """Change a tenth of the messages, remove a tenth, add as many; note that in `known` too.

    Args:
        side: whose mailbox is changed.
        mailbox: its name.
        known: what is there before; the changes of both sides are noted in it.
        turn: which tenths, so that both sides change others: even and below 10.
        prefix: begins the subjects of what is added.
    """
    subjects = sorted(name for name in known if name.startswith("first-"))
    starred, dropped = subjects[turn::10], subjects[turn + 1 :: 10]
    flags = frozenset({"\\Flagged", "\\Answered"})
    side.flag(mailbox, starred, flags)
    side.remove(mailbox, dropped)
    for name in starred:
        known[name] = known[name]._replace(flags=flags)
    for name in dropped:
        del known[name]
    known.update(filled(side, mailbox, prefix, len(dropped)))
