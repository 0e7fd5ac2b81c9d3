"""Power losses: the log is cut at every frame and within, is missing, or ends in garbage.

Rules of this file: a process changes an account and ends without closing it; what it told clients
is known. Then the log is damaged in place and the machine has booted again. Files keep what was
told: existence and system flags. Keywords of the last changes may be lost; UIDs and modification
sequences that were told never get another meaning.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.forked import MAY_HAVE_THREADS, exit_status
from support.mail_store import check_account, deliver, inbox, index_of, rows_of
from support.store_kills import settle

from fastlisten.mail.store import folders
from fastlisten.mail.store import index as index_module
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.changes import changes
from fastlisten.mail.store.copying import copy, move
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreMode
from fastlisten.mail.store.pending import finish

pytestmark = MAY_HAVE_THREADS

#: https://www.sqlite.org/fileformat2.html#walformat: the log's header, and a frame with its page.
HEADER, FRAME = 32, 24 + 4096


def work(index: Index, tell: Callable[..., None]) -> None:
    """Change messages; tell which UIDs mean which files, and the modification sequence."""
    box, other = inbox(index).id, folders.find(index, "Work").id
    for number in range(3):
        deliver(index.maildir, b"%d" % number, f"{number}.b")
        look(index, box)
        tell_all(index, tell)
    store(index, box, [1, 2, 4], StoreMode.ADD, Flag.FLAGGED | Flag.DELETED)
    tell_all(index, tell)
    copy(index, box, [3], other)
    move(index, box, [5], other)
    tell_all(index, tell)
    expunge(index, box, [1, 2])
    deliver(index.maildir, b"last", "9.b")
    look(index, box)
    tell_all(index, tell)


def tell_all(index: Index, tell: Callable[..., None]) -> None:
    for folder, modseq in index.query("SELECT id, highmodseq FROM folder"):
        tell(folder, modseq, [(uid, name, flags) for uid, name, flags, _ in rows_of(index, folder)])


class Lost:
    """An account whose machine has lost power.

    Attributes:
        root: its directory.
        log: what there was of the log.
        synced: how much of it is on the disk in any case.
        told: folder, modification sequence, and UID, name and flags of each message.
    """

    def __init__(self, root: Path, *, checkpointed: bool = False) -> None:
        self.root = root
        with index_of(root) as index:
            folders.create(index, "Work")
            for number in range(3):
                deliver(index.maildir, b"a%d" % number, f"{number}.a")
            look(index, inbox(index).id)

        def child() -> bool:
            index = Index(str(root), finish)
            with index.locked(), index.transaction():
                pass
            if checkpointed:
                index.query("PRAGMA wal_checkpoint(TRUNCATE)")
            (root / "synced").write_text(str((root / "index.db-wal").stat().st_size))
            with open(root / "told", "w") as file:
                work(index, lambda *what: print(json.dumps(what), file=file))
            return True

        assert exit_status(child) == 0
        self.told: list[Any] = [json.loads(one) for one in (root / "told").read_text().splitlines()]
        self.synced = int((root / "synced").read_text())
        self.log = (root / "index.db-wal").read_bytes()
        self._index = (root / "index.db").read_bytes()
        shutil.copytree(root, root.with_name("files"), ignore=shutil.ignore_patterns("index.*"))

    def restore(self, log: bytes | None) -> None:
        """Have everything as it was, in the same inode, but for the log."""
        for path in self.root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        shutil.copytree(self.root.with_name("files"), self.root, dirs_exist_ok=True)
        (self.root / "index.db").write_bytes(self._index)
        for suffix in ("-wal", "-shm"):
            Path(f"{self.root}/index.db{suffix}").unlink(missing_ok=True)
        if log is not None:
            (self.root / "index.db-wal").write_bytes(log)

    def judge(self, note: object) -> None:
        """Open it; check that what was told is so, or was never told."""
        last = {folder: modseq for folder, modseq, _ in self.told}
        meaning = {(folder, uid): name for folder, _, rows in self.told for uid, name, _ in rows}
        with index_of(self.root) as index:
            settle(index)
            for folder in last:
                found = changes(index, folder, last[folder])
                assert found.cursor > last[folder], note
                # A client that has been told everything compares everything.
                assert not found.complete, note
                for uid, name, _, _ in rows_of(index, folder):
                    assert meaning.get((folder, uid), name) == name, note
            now = {name: flags for folder in last for _, name, flags, _ in rows_of(index, folder)}
            final = {one[0]: one[2] for one in self.told[-2:]}
            expected = {name: flags for rows in final.values() for _, name, flags in rows}
            assert now == expected, note
            check_account(index)


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lost:
    found = Lost(tmp_path / "account")
    monkeypatch.setattr(index_module, "boot_id", lambda: "another")
    return found


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_log_cut_after_frames(lost: Lost, step: int) -> None:
    sizes = range(lost.synced, len(lost.log) + 1, step * FRAME)
    assert len(sizes) > 40 // step
    for size in sizes:
        lost.restore(lost.log[:size])
        lost.judge(size)


def test_log_cut_within_frames(lost: Lost) -> None:
    chance = random.Random(0)
    sizes = [lost.synced + more for more in (1, 23, 24, 25, FRAME - 1)] + [len(lost.log) - 1]
    sizes += [chance.randrange(lost.synced, len(lost.log)) for _ in range(10)]
    for size in sizes:
        lost.restore(lost.log[:size])
        lost.judge(size)


def test_log_that_ends_in_garbage(lost: Lost) -> None:
    """Blocks that were allocated and not written."""
    chance = random.Random(0)
    for size in range(lost.synced, len(lost.log), len(lost.log) // 8):
        left = len(lost.log) - size
        for rest in (bytes(left), chance.randbytes(left)):
            lost.restore(lost.log[:size] + rest)
            lost.judge(size)


def test_log_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a checkpoint that was complete, and nothing of the next log was written."""
    lost = Lost(tmp_path / "account", checkpointed=True)
    monkeypatch.setattr(index_module, "boot_id", lambda: "another")
    for log in (None, b"", lost.log[:HEADER]):
        lost.restore(log)
        lost.judge("missing")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 32768, bytes(32768), b"x" * 100],
    ids=["empty", "ones", "zeros", "short"],
)
def test_shared_memory_of_garbage(lost: Lost, content: bytes) -> None:
    """It is of the time before, and may hold anything."""
    lost.restore(lost.log[: lost.synced + 20 * FRAME])
    (lost.root / "index.db-shm").write_bytes(content)
    lost.judge("garbage")


def test_copy_of_the_directory(lost: Lost) -> None:
    """`cp -a` while it was open, put in the place of it: all inodes are others."""
    lost.restore(lost.log)
    twin = lost.root.with_name("twin")
    shutil.copytree(lost.root, twin)
    shutil.rmtree(lost.root)
    os.rename(twin, lost.root)
    lost.judge("copy")
