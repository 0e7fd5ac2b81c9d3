"""SIGKILL at every system call of a delivery: no partial message, no acknowledged one missing.

Rules of this file: a child for every number of system calls after which it is killed, until one
child gets to the end. The syncs are counted but not carried out: a kill loses nothing that the
kernel has. That they come before what depends on them is tested in test_maildir.py and
test_delivery_group.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER, Spool

#: Runs `deliver`, which is put in front of it, in children that are killed after one system call,
#: two, and so on, until one finishes. Prints each child's exit status.
PROGRAM = """
import itertools, os, signal, sys
CALLS = ("open", "write", "fsync", "link", "rename", "unlink", "close", "mkdir")
def until(last):
    count = 0
    def killing(real):
        def call(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)
        return call
    os.fsync = lambda fd: None
    for name in CALLS:
        setattr(os, name, killing(getattr(os, name)))
for number in itertools.count(1):
    child = os.fork()
    if child == 0:
        until(number)
        deliver(f"{sys.argv[1]}/{number}", *sys.argv[2:])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status)
    if status != -signal.SIGKILL:
        break
"""


#: One message for three.
ONE = """
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool
from support.deliveries import commit
def deliver(place, way, kind):
    boxes = [Maildir(f"{place}/{name}") for name in "abc"]
    spool = Spool(f"{place}/spool") if way == "spool" else None
    staged = StagedMessage(boxes, "name", spool=spool, independent=kind == "independent")
    staged.write([b"first "])
    staged.suspend()
    staged.write([b"second"])
    commit(staged)
"""

#: The messages of `MESSAGES` as one group, as a thread of the pool works on it. What a client may
#: be told is in the file `told`, from before anything else can happen.
GROUP = """
import asyncio, os
from pathlib import Path
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery import delivery_queue, message_writer, storage
def deliver(place, kind):
    # Nothing but the group touches the disk: no threads, no loop that runs.
    tell = open(f"{place}.told", "ab", buffering=0)
    delivery_queue.call_on = lambda loop, callback: callback() or True
    class Queue:
        jobs = []
        submit = jobs.append
    class Place(storage.MailStorage):
        def __init__(self):
            self.mail, self.subscriptions, self.queue = Path(place), (), Queue
    messages = []
    for name, to, content in MESSAGES:
        def changed(name=name):
            (it,) = [it for one, it in messages if one == name]
            if it.done and it.error is None:
                tell.write(f"{name}\\n".encode())
        it = message_writer.MessageWriter(
            Place(), [Account(one) for one in to], name, None, changed,
            independent=kind == "independent",
        )
        messages.append((name, it))
        it.add(content)
        it.commit()
    delivery_queue.run_together(Queue.jobs)
    assert all(it.done and it.error is None for _, it in messages)
"""

#: Name, recipients and content of the messages of a group: with recipients of their own and shared.
MESSAGES = [
    ("one", "ab", b"first"),
    ("two", "b", b"second"),
    ("three", "bca", b"third"),
    ("four", "c", b"fourth"),
]


def killed_at_every_call(program: str, *arguments: str) -> list[int]:
    """Run a program; return how its children ended, of which the last one was not killed."""
    done = subprocess.run(
        [sys.executable, "-c", program + PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert done.returncode == 0, done.stderr
    ends = [int(line) for line in done.stdout.split()]
    assert ends[-1] == 0, done.stderr
    return ends


def found_in(place: Path, name: str) -> dict[str, bytes]:
    """Return what a mailbox holds, by name."""
    box = Maildir(str(place / name))
    return {message.name: box.read(message) for message in box.messages()}


def clean(place: Path) -> None:
    """Remove what was left unfinished, as a server does at its start."""
    for spool in (*(Maildir(str(place / name)) for name in "abc"), Spool(str(place / "spool"))):
        spool.clean(time.time() + 2 * STALE_AFTER)
        assert not os.path.exists(spool.tmp) or os.listdir(spool.tmp) == []


@pytest.mark.parametrize(
    ("way", "kind"), [("direct", "together"), ("spool", "together"), ("direct", "independent")]
)
def test_kill_at_every_system_call(tmp_path: Path, way: str, kind: str) -> None:
    ends = killed_at_every_call(ONE, str(tmp_path), way, kind)
    assert len(ends) > 30
    partial = 0
    for number, end in enumerate(ends, 1):
        place = tmp_path / str(number)
        found = [found_in(place, name) for name in "abc"]
        assert all(those in ({}, {"name": b"first second"}) for those in found)
        have = sum(map(len, found))
        if end == 0:
            assert have == 3
        partial += 0 < have < 3
        clean(place)
        # Cleaning up has not changed the messages.
        assert [found_in(place, name) for name in "abc"] == found
    # Between the renames some accounts have the message: that attempt was not acknowledged.
    assert partial == 2


@pytest.mark.parametrize("kind", ["together", "independent"])
def test_kill_at_every_system_call_of_a_group(tmp_path: Path, kind: str) -> None:
    ends = killed_at_every_call(f"MESSAGES = {MESSAGES!r}\n{GROUP}", str(tmp_path), kind)
    assert len(ends) > 60
    unconfirmed = 0
    for number, end in enumerate(ends, 1):
        place = tmp_path / str(number)
        told = (tmp_path / f"{number}.told").read_text().split()
        if end == 0:
            assert sorted(told) == sorted(name for name, _, _ in MESSAGES)
        found = {name: found_in(place, name) for name in "abc"}
        for box, messages in found.items():
            # Each at most once, whole, and for nobody else.
            mine = {name: content for name, to, content in MESSAGES if box in to}
            assert messages.items() <= mine.items()
            assert messages.keys() >= {name for name in told if name in mine}
            unconfirmed += len(messages.keys() - told)
        clean(place)
        assert {name: found_in(place, name) for name in "abc"} == found
    assert unconfirmed > 0  # kills between renames and replies have been among them
