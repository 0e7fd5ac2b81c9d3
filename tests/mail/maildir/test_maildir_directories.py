"""New directories of a maildir are durable, and names of messages are nobody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.forked import MAY_HAVE_THREADS

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name


def test_each_new_directory_is_synced_into_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    real = os.fsync

    def noted(fd: int) -> None:
        real(fd)
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", noted)
    box = tmp_path / "mail" / "alice@example.org"
    Maildir(str(box)).prepare()
    assert {str(tmp_path), str(tmp_path / "mail"), str(box)} <= synced
    # What exists is left alone.
    synced.clear()
    Maildir(str(box)).prepare()
    assert synced == set()


@MAY_HAVE_THREADS
def test_a_forked_process_has_random_bits_of_its_own() -> None:
    """Process ids are used again, and containers share them."""

    def bits(name: str) -> str:
        return name.partition(".M")[2].partition("R")[2].partition(".")[0]

    ours = bits(unique_name())
    assert len(ours) == 8
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, bits(unique_name()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="ascii") as pipe:
        theirs = pipe.read()
    os.waitpid(pid, 0)
    assert len(theirs) == 8
    assert theirs != ours
    assert bits(unique_name()) == ours
