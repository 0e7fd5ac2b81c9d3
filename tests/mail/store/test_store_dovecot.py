"""Dovecot writes to the same Maildir: both sides see the same messages and flags in the end.

Rules of this file: Dovecot's IMAP process and a process of ours change INBOX at the same time, at
random. Each deletes messages of its own only, so that what must be left is known.
"""

from __future__ import annotations

import codecs
import contextlib
import imaplib
import os
import random
import re
import shlex
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dovecot_imap import DOVECOT_IMAP
from support.environment import own_environment
from support.forked import MAY_HAVE_THREADS, exit_status
from support.mail_store import check_account, inbox, index_of, rows_of, settled_look
from support.other_user import NOBODY, user_directory

from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.files import Listing
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreMode

pytestmark = pytest.mark.skipif(
    not os.access(DOVECOT_IMAP, os.X_OK), reason="Dovecot is not installed"
)

_RESPONSE = re.compile(rb"FLAGS \(([^)]*)\)")

#: A message with its flags, and how often it is there.
State = Counter[tuple[bytes, frozenset[str]]]


@contextlib.contextmanager
def dovecot_session(directory: Path) -> Iterator[imaplib.IMAP4]:
    configuration = directory / "dovecot.conf"
    configuration.write_text(
        f"""
        mail_location = maildir:{directory}/mail
        mail_uid = {os.geteuid()}
        mail_gid = {os.getegid()}
        first_valid_uid = 1
        first_valid_gid = 1
        ssl = no
        log_path = {directory}/log
        base_dir = {directory}/run
        state_dir = {directory}/state
        """
    )
    settings = {**own_environment(), "USER": "test", "HOME": str(directory)}
    words = ["env", "-i", *(f"{name}={value}" for name, value in settings.items())]
    words += [DOVECOT_IMAP, "-c", str(configuration)]
    client = imaplib.IMAP4_stream("exec " + shlex.join(words) + " 2>/dev/null")
    try:
        client.select("INBOX")
        yield client
    finally:
        client.logout()
        client.process.wait()


def ours(root: str, chance: random.Random) -> None:
    """Change INBOX until the signal comes, and end between two changes."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    with index_of(root) as index:
        box = inbox(index).id
        number = 0
        mine: list[int] = []
        while not ended or number < 20:
            number += 1
            look(index, box, thorough=chance.random() < 0.2)
            appending = Appending(index, box)
            appending.begin()
            appending.add(b"Subject: ours.%d\r\n\r\nx\r\n" % number)
            mine += appending.commit().uids
            uids = [uid for uid, *_ in rows_of(index, box)]
            some = sorted(chance.sample(uids, min(len(uids), 3)))
            store(index, box, some, chance.choice([StoreMode.ADD, StoreMode.REMOVE]), Flag.FLAGGED)
            if len(mine) > 10:
                store(index, box, [mine.pop(0)], StoreMode.ADD, Flag.DELETED)
                expunge(index, box)
            with open(f"{root}/../ours", "w") as file:
                file.write(str(number))


def theirs(client: imaplib.IMAP4, chance: random.Random, rounds: int) -> None:
    """Change INBOX by Dovecot."""
    for number in range(rounds):
        text = b"Subject: theirs.%d\r\n\r\nx\r\n" % number
        assert client.append("INBOX", "", "", text)[0] == "OK"
        _, (found,) = client.uid("SEARCH", "ALL")
        uids = found.split()
        for _ in range(3):
            sign, uid = chance.choice("+-"), chance.choice(uids).decode()
            client.uid("STORE", uid, f"{sign}FLAGS.SILENT", r"(\Seen)")
        _, (found,) = client.uid("SEARCH", "SUBJECT", "theirs.")
        old = found.split()[:-10]
        if old:
            client.uid("STORE", old[0].decode(), "+FLAGS.SILENT", r"(\Deleted)")
            client.expunge()


def seen_by_dovecot(client: imaplib.IMAP4) -> State:
    client.select("INBOX")
    _, data = client.fetch("1:*", "(FLAGS BODY.PEEK[])")
    found: State = Counter()
    for piece in data:
        if isinstance(piece, tuple):
            match = _RESPONSE.search(piece[0])
            assert match is not None, piece
            flags = {flag[1:].decode() for flag in match[1].split() if flag.startswith(b"\\")}
            found[piece[1], frozenset(flags - {"Recent"})] += 1
    return found


def seen_by_us(index: Index) -> State:
    files = Listing(index.maildir).files
    found: State = Counter()
    for _, name, flags, _ in rows_of(index, inbox(index).id):
        names = {flag.name.capitalize() for flag in Flag if flags & flag and flag.name}
        content = Path(files[name].path).read_bytes().replace(b"\r\n", b"\n")
        found[content.replace(b"\n", b"\r\n"), frozenset(names)] += 1
    return found


def compare(directory: Path, rounds: int, seed: int) -> None:
    root = str(directory / "mail")
    with index_of(root):
        pass
    worker = os.fork()
    if worker == 0:
        try:
            ours(root, random.Random(seed))
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
    with dovecot_session(directory) as client:
        theirs(client, random.Random(seed), rounds)
        os.kill(worker, signal.SIGTERM)
        assert os.waitpid(worker, 0)[1] == 0
        number = int((directory / "ours").read_text())
        with index_of(root) as index:
            settled_look(index, inbox(index).id, thorough=True)
            check_account(index)
            found = seen_by_us(index)
            assert found == seen_by_dovecot(client)
            # Each has all but those that it deleted.
            subjects = {content.split(b"\r\n")[0] for content, _ in found}
            left = {b"Subject: ours.%d" % one for one in range(max(1, number - 9), number + 1)}
            left |= {b"Subject: theirs.%d" % one for one in range(rounds - 10, rounds)}
            assert left <= subjects
            assert len(found) == sum(found.values())


def beside_dovecot(rounds: int, seed: int) -> None:
    # What is imported late must have been imported: the interpreter may be in /root.
    with tempfile.TemporaryDirectory() as other, index_of(other) as index:
        index.maildir.messages()
        codecs.lookup("ascii")
    with user_directory() as directory:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY.pw_uid, NOBODY.pw_gid)

        def unprivileged() -> bool:
            if os.geteuid() == 0:  # which Dovecot refuses
                os.setgroups([])
                os.setgid(NOBODY.pw_gid)
                os.setuid(NOBODY.pw_uid)
            try:
                compare(directory, rounds, seed)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
                raise
            return True

        assert exit_status(unprivileged) == 0


@MAY_HAVE_THREADS
def test_dovecot_and_we_agree() -> None:
    beside_dovecot(40, 1)


@MAY_HAVE_THREADS
@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2, 5))
def test_dovecot_and_we_agree_after_minutes(seed: int) -> None:
    beside_dovecot(2000, seed)
