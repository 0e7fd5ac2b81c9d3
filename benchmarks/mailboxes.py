"""Mail for IMAP servers to find: Maildirs with messages, and who may read them.

Rules of this file: the same mail for every candidate. It is made anew for each sample, because a
server leaves its index in it.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

from benchmarks.workloads import Mail

__all__ = ["OTHER", "PASSWORD", "give_to", "names_of", "write_mail"]

PASSWORD = "secret"

#: An account with one message, for what a server does only the first time.
OTHER = "bob@example.org"

#: A message of 500 octets, as a short notice is.
MESSAGE = (
    b"Return-Path: <sender@example.com>\r\n"
    b"Received: from mail.example.com by mail.example.org with ESMTP;\r\n"
    b"\tTue, 2 Jan 2024 10:00:00 +0000\r\n"
    b"From: Sender <sender@example.com>\r\nTo: Alice <alice@example.org>\r\n"
    b"Subject: a short notice\r\nDate: Tue, 2 Jan 2024 10:00:00 +0000\r\n"
    b"Message-ID: <%08d@example.com>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + b"a line of text of a usual length\r\n" * 5
)

#: The date of the first message, 1 January 2024, and how far apart messages are.
_FIRST, _STEP = 1_704_067_200, 300

#: One message in this many has not been seen.
_UNSEEN = 10


def names_of(mail: Mail) -> list[str]:
    """Return the accounts, without `OTHER`."""
    if mail.accounts:
        return [f"u{number}@example.org" for number in range(mail.accounts)]
    return ["alice@example.org"]


def write_mail(directory: Path, mail: Mail) -> None:
    """Fill a data directory.

    Args:
        directory: empty.
        mail: what is in it.
    """
    for name in names_of(mail):
        _maildir(directory / "mail" / name, mail.messages, new=mail.new)
    _maildir(directory / "mail" / OTHER, 1, new=False)


def _maildir(path: Path, messages: int, *, new: bool) -> None:
    for folder in ("cur", "new", "tmp"):
        (path / folder).mkdir(parents=True)
    place = path / ("new" if new else "cur")
    for number in range(messages):
        flags = "" if new else ":2," if number % _UNSEEN == 0 else ":2,S"
        date = _FIRST + number * _STEP
        file = f"{place}/{date}.M{number}P1.mail{flags}"
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, MESSAGE % number)
        os.utime(fd, (date, date))
        os.close(fd)


def give_to(directory: Path, user: int, group: int) -> None:
    """Make a user the owner of all mail."""
    for path, folders, files in os.walk(directory / "mail"):
        os.chown(path, user, group)
        for name in itertools.chain(folders, files):
            shutil.chown(f"{path}/{name}", user, group)
