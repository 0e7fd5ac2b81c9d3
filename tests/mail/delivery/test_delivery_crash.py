"""SIGKILL at every system call of a delivery: no partial message, no acknowledged one missing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER, Spool

#: Delivers to three accounts in children that are killed after one system call, two, and so on,
#: until one finishes. Prints each child's exit status.
PROGRAM = """
import itertools, os, signal, sys
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool
root, spooled, independent = sys.argv[1], sys.argv[2] == "spool", sys.argv[3] == "independent"
CALLS = ("open", "write", "fsync", "link", "rename", "unlink", "close", "mkdir")
def deliver(place, last):
    count = 0
    def killing(real):
        def call(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)
        return call
    os.fsync = lambda fd: None  # a kill loses nothing that the kernel has, and this is quicker
    for name in CALLS:
        setattr(os, name, killing(getattr(os, name)))
    boxes = [Maildir(f"{place}/{name}") for name in "abc"]
    spool = Spool(f"{place}/spool") if spooled else None
    staged = StagedMessage(boxes, "name", spool=spool, independent=independent)
    staged.write([b"first "])
    staged.suspend()
    staged.write([b"second"])
    assert staged.commit(lambda: True)
for number in itertools.count(1):
    place = f"{root}/{number}"
    child = os.fork()
    if child == 0:
        deliver(place, number)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status)
    if status != -signal.SIGKILL:
        break
"""


@pytest.mark.parametrize(
    ("way", "kind"), [("direct", "together"), ("spool", "together"), ("direct", "independent")]
)
def test_kill_at_every_system_call(tmp_path: Path, way: str, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), way, kind],
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    ends = [int(line) for line in done.stdout.split()]
    assert ends[-1] == 0
    assert len(ends) > 30
    partial = 0
    for number, end in enumerate(ends, 1):
        place = tmp_path / str(number)
        boxes = [Maildir(str(place / name)) for name in "abc"]
        found = [[box.read(message) for message in box.messages()] for box in boxes]
        assert all(those in ([], [b"first second"]) for those in found)
        have = sum(map(len, found))
        if end == 0:
            assert have == 3
        partial += 0 < have < 3
        for spool in (*boxes, Spool(str(place / "spool"))):
            spool.clean(time.time() + 2 * STALE_AFTER)
            assert not os.path.exists(spool.tmp) or os.listdir(spool.tmp) == []
        # Cleaning up has not changed the messages.
        assert [[box.read(it) for it in box.messages()] for box in boxes] == found
    # Between the renames some accounts have the message: that attempt was not acknowledged.
    assert partial == 2
