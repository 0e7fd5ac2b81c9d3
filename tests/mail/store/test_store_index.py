"""The index: its counter, power losses, restored copies, and a new index in the place of another.

Rules of this file: a power loss is a process that ends without closing, a log that is cut, and
another boot id.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.forked import MAY_HAVE_THREADS, exit_status
from support.mail_store import (
    check_account,
    deliver,
    inbox,
    index_of,
    settled_look,
    uids_of,
)
from support.waiting import PATIENCE

from fastlisten.mail.store import index as index_module
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.file_identity import identity_of
from fastlisten.mail.store.folders import discover, status
from fastlisten.mail.store.index import RESTORED_STRIDE, UID_STRIDE, Index
from fastlisten.mail.store.pending import finish


def state_of(root: Path, column: str) -> str:
    """Return what the file says, as it lies on the disk."""
    with sqlite3.connect(root / "index.db") as connection:
        (value,) = connection.execute(f"SELECT {column} FROM state").fetchone()
    connection.close()
    return str(value)


def unclosed(work: Callable[[Index], None], root: Path) -> None:
    """Do something in a process that ends without closing the index."""

    def child() -> bool:
        index = Index(str(root), finish)
        discover(index)
        work(index)
        return True

    assert exit_status(child) == 0


def absorb(index: Index) -> None:
    look(index, inbox(index).id)


def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "boot_id", lambda: "another")


def test_files_are_private(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        deliver(index.maildir)
        absorb(index)
        for name in ("index.db", "index.db-wal", "index.db-shm", "index.lock", "uidvalidity"):
            assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600, name


def test_numbers_grow_though_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index_of(tmp_path) as index, index_of(tmp_path) as other:
        seen = []
        for clock in (10**16, 10**15, 0, 10**16 + 50):
            monkeypatch.setattr(index_module, "_now", lambda clock=clock: clock)
            for one in (index, other):
                with one.locked(), one.transaction():
                    seen.append(one.numbers(3))
        assert all(after >= before + 3 for before, after in itertools.pairwise(seen))
        assert seen[0] == 10**16
        assert seen[-2] == 10**16 + 50


def test_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        before = state_of(tmp_path, "counter")

        def fail() -> None:
            with index.locked(), index.transaction() as db:
                index.numbers(1)
                db.execute("INSERT INTO state SELECT * FROM state")

        with pytest.raises(sqlite3.IntegrityError):
            fail()
        assert state_of(tmp_path, "counter") == before
        with index.locked(), index.transaction():
            index.numbers(1)
        assert state_of(tmp_path, "counter") > before


def test_dirty_boot_is_set_before_changes_and_cleared_at_the_end(tmp_path: Path) -> None:
    with index_of(tmp_path):
        assert state_of(tmp_path, "dirty_boot") == index_module.boot_id()
    assert state_of(tmp_path, "dirty_boot") == ""
    with index_of(tmp_path) as index:
        absorb(index)  # finds nothing
        deliver(index.maildir)
        absorb(index)
        assert state_of(tmp_path, "dirty_boot") == index_module.boot_id()
        # Another process that closes says nothing about what this one writes afterwards.
        with index_of(tmp_path):
            pass
        deliver(index.maildir)
        absorb(index)
        assert state_of(tmp_path, "dirty_boot") == index_module.boot_id()


@MAY_HAVE_THREADS
def test_crash_without_power_loss_keeps_everything(tmp_path: Path) -> None:
    deliver(str(tmp_path), name="1.a")
    unclosed(absorb, tmp_path)
    with index_of(tmp_path) as index:
        assert uids_of(index, inbox(index).id) == {"1.a": 1}
        assert status(index, inbox(index)).uidnext == 2


@MAY_HAVE_THREADS
def test_power_loss_gives_no_uid_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of the log is lost."""
    monkeypatch.setattr(index_module, "LARGEST_SLICE", 2)
    before = tmp_path / "before"
    with index_of(before):
        pass
    shares = 16
    for share in range(shares + 1):
        root = tmp_path / str(share)
        shutil.copytree(before, root)
        with index_of(root):
            pass  # takes note of its new inode
        told: dict[str, int] = {}
        numbers = []

        def work(index: Index, root: Path = root) -> None:
            for number in range(6):
                deliver(index.maildir, name=f"{number}.a")
                absorb(index)
                uids = uids_of(index, inbox(index).id)
                (root / "told").write_text(f"{uids!r}\n{status(index, inbox(index)).highestmodseq}")

        unclosed(work, root)
        lines = (root / "told").read_text().splitlines()
        told, last = eval(lines[0]), int(lines[1])
        assert len(told) == 6
        log = root / "index.db-wal"
        os.truncate(log, log.stat().st_size * share // shares)
        with monkeypatch.context() as patch:
            another_boot(patch)
            with index_of(root) as index:
                settled_look(index, inbox(index).id, thorough=True)
                found = uids_of(index, inbox(index).id)
                assert found.keys() == told.keys()
                for name, uid in found.items():
                    assert uid == told[name] or uid > UID_STRIDE
                assert status(index, inbox(index)).highestmodseq > last
                numbers.append(sum(found[name] != told[name] for name in told))
                check_account(index)
        if share == shares:
            assert numbers[-1] == 0


@MAY_HAVE_THREADS
def test_power_loss_before_anything_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole log is gone: the index is made again, with another UIDVALIDITY."""
    deliver(str(tmp_path), name="1.a")
    unclosed(absorb, tmp_path)
    used = int((tmp_path / "uidvalidity").read_text())
    os.unlink(tmp_path / "index.db-wal")
    os.unlink(tmp_path / "index.db-shm")
    os.truncate(tmp_path / "index.db", 0)
    another_boot(monkeypatch)
    with index_of(tmp_path) as index:
        assert inbox(index).uidvalidity > used
        settled_look(index, inbox(index).id)
        check_account(index)


def test_uidnext_is_never_far_from_what_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "UID_STRIDE", 5)
    synced = []
    with index_of(tmp_path) as index:
        real = Index._synced

        def counting(self: Index) -> object:
            synced.append(1)
            return real(self)

        monkeypatch.setattr(Index, "_synced", counting)
        for _ in range(20):
            deliver(index.maildir)
            absorb(index)
            ((ahead,),) = index.query("SELECT uidnext - synced FROM folder")
            assert ahead < 5
        assert len(synced) == 4


def test_restored_copy_gives_no_uid_of_what_came_after_the_backup(tmp_path: Path) -> None:
    root, backup = tmp_path / "account", tmp_path / "backup"
    with index_of(root) as index:
        deliver(index.maildir, name="1.a")
        absorb(index)
    shutil.copytree(root, backup)
    with index_of(root) as index:
        deliver(index.maildir, name="2.b")
        absorb(index)
        last = status(index, inbox(index)).highestmodseq
        uidvalidity = inbox(index).uidvalidity
    shutil.rmtree(root)
    shutil.copytree(backup, root)
    with index_of(root) as index:
        deliver(index.maildir, name="3.c")
        settled_look(index, inbox(index).id)
        assert inbox(index).uidvalidity == uidvalidity
        assert uids_of(index, inbox(index).id) == {"1.a": 1, "3.c": RESTORED_STRIDE + 2}
        assert status(index, inbox(index)).highestmodseq > last
        check_account(index)
    with index_of(root) as index:  # and only once
        assert status(index, inbox(index)).uidnext == RESTORED_STRIDE + 3


def test_file_of_another_time_in_the_same_inode_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ext4 makes them: the number of an inode that was removed is used for the next one."""
    path = tmp_path / "file"
    path.touch()
    made = subprocess.run(["stat", "--format=%W", path], capture_output=True, text=True, check=True)
    if made.stdout.strip() in ("0", "-"):
        pytest.skip("the filesystem does not keep the time")
    status = os.stat(path)
    monkeypatch.setattr("fastlisten.mail.store.file_identity.os.stat", lambda _: status)
    first = identity_of(str(path))
    assert identity_of(str(path)) == first
    with path.open("a") as file:
        file.write("changed")
    assert identity_of(str(path)) == first
    second = first
    end = time.monotonic() + PATIENCE
    while second == first and time.monotonic() < end:  # until the kernel's clock ticks
        path.unlink()
        path.touch()
        second = identity_of(str(path))
    assert second != first


def test_copy_restored_under_an_open_index(tmp_path: Path) -> None:
    root, backup = tmp_path / "account", tmp_path / "backup"
    with index_of(root) as index:
        deliver(index.maildir, name="1.a")
        absorb(index)
    shutil.copytree(root, backup)
    with index_of(root) as index:
        deliver(index.maildir, name="2.b")
        absorb(index)
        shutil.rmtree(root)
        shutil.copytree(backup, root)
        deliver(index.maildir, name="3.c")
        settled_look(index, inbox(index).id)
        assert uids_of(index, inbox(index).id) == {"1.a": 1, "3.c": RESTORED_STRIDE + 2}
        with index_of(root) as other:
            assert uids_of(other, inbox(other).id) == uids_of(index, inbox(index).id)


def test_deleted_index_is_made_again_with_another_uidvalidity(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        used = inbox(index).uidvalidity
    for _ in range(3):
        for path in tmp_path.glob("index.db*"):
            path.unlink()
        with index_of(tmp_path) as index:
            assert inbox(index).uidvalidity > used
            used = inbox(index).uidvalidity


def test_index_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with index_of(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="newer version: 99"), index_of(tmp_path):
        pass
