"""Dialogues with Dovecot and with this server, and the form in which answers are compared.

Rules of this file: no test in it. Numbers that servers choose, texts for people and the order of
what the RFCs leave unordered are normalised (`normal`).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.dovecot_imap import SLASHES, account_directory, command_of, configured, values_of
from support.imap_server import Lines

__all__ = ["MESSAGES", "Dovecot", "dovecot_sessions", "fill", "normal"]

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

#: What only one of them says: other extensions, names and versions.
_APART = re.compile(rb"\* (?:OK \[(?:MAILBOXID|HIGHESTMODSEQ) |CAPABILITY |ID )")
_NUMBER = re.compile(rb"(UIDVALIDITY|HIGHESTMODSEQ|APPENDUID|COPYUID|MODSEQ) [0-9]+")


def normal(answers: list[bytes]) -> list[Any]:
    """Return answers in a form in which those of both servers are the same."""
    found: list[Any] = []
    gone: list[int] = []
    fetched: dict[bytes, dict[bytes, Any]] = {}
    for answer in answers:
        line = re.sub(rb'\(TAG "[^"]*"\)', b"", _NUMBER.sub(rb"\1 N", answer))
        if match := re.fullmatch(rb"\* ([0-9]+) EXPUNGE", answer):
            # In any order, and each number counts after those before are gone.
            number = int(match[1])
            for one in sorted(gone):
                number += one <= number
            gone.append(number)
        elif _APART.match(answer) or (
            # Of new keywords; 2.4 leaves it to FLAGS, as new ones are permitted anyway.
            answer.startswith(b"* OK [PERMANENTFLAGS ") and answers[1] == answer
        ):
            continue
        elif match := re.match(
            rb"(\* )?(OK|NO|BAD)( \[[A-Z]+UID N [^\]]*\]| \[READ-[A-Z]+\])?", line
        ):
            found.append(match[0])
        elif match := re.fullmatch(rb"(\* FLAGS) \((.*)\)", line):
            found.append(b"* FLAGS")  # Dovecot remembers keywords that no message has
        elif match := re.match(rb"\* ([0-9]+) FETCH ", answer):
            # In one response or several.
            if match[1] not in fetched:
                found.append((match[1], fetched.setdefault(match[1], {})))
            fetched[match[1]].update(items(answer[match.end() :]))
        elif match := re.fullmatch(rb"\* STATUS (\S+) \((.*)\)", line):
            found.append((match[1], set(re.findall(rb"[A-Z]+ \w+", match[2]))))
        elif match := re.fullmatch(rb"\* (LIST|LSUB) \(([^)]*)\) (.*)", line):
            # More than what was asked for may be said (RFC 5258 4).
            attributes = set(match[2].split()) - {b"\\HasNoChildren", b"\\HasChildren"}
            found.append((match[1], match[3], attributes))
        else:
            found.append(line)
    if gone:
        found.insert(0, ("EXPUNGE", sorted(gone)))
    listed = [one for one in found if isinstance(one, tuple) and one[0] in (b"LIST", b"LSUB")]
    others = [one for one in found if one not in listed]
    return [*sorted(listed, key=lambda one: one[1]), *others]


def items(text: bytes) -> dict[bytes, Any]:
    """Return the items of a FETCH response, in whatever order they are."""
    (values,) = values_of(text)
    found = {}
    for name, value in zip(values[::2], values[1::2], strict=True):
        if name == b"FLAGS":
            value = frozenset(value)
        elif name == b"MODSEQ":
            value = b"N"
        elif name == b"INTERNALDATE":
            value = value.replace(b" ", b"0", 1) if value.startswith(b" ") else value
        found[name.upper()] = value
    return found


class Dovecot(Lines):
    """A session of Dovecot's IMAP process, which has logged in."""

    def __init__(self, configuration: Path) -> None:
        self.process = subprocess.Popen(
            command_of(configuration),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
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
def dovecot_sessions() -> Iterator[Callable[[], Dovecot]]:
    sessions: list[Dovecot] = []
    with account_directory() as directory:
        fill(directory / "mail")
        configuration = configured(directory, SLASHES)

        def session() -> Dovecot:
            sessions.append(Dovecot(configuration))
            return sessions[-1]

        try:
            yield session
        finally:
            for one in sessions:
                one.close()
